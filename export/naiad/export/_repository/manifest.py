"""`manifest.json`: the hashes and the provenance of one version."""

import hashlib
import json
from pathlib import Path
from typing import Any

from naiad.export.errors import InvalidModel

FILE = "manifest.json"


def describe_files(directory: Path) -> dict[str, dict[str, Any]]:
    """Return SHA-256 and size of every file under `directory`, the manifest itself left out."""
    return {
        name: {"sha256": _sha256(directory / name), "size_bytes": (directory / name).stat().st_size}
        for name in _names(directory)
    }


def read(directory: Path) -> dict[str, Any] | None:
    """Return the manifest of a version, or None where there is none.

    Raises:
        InvalidModel: The file is there but is not a manifest.
    """
    path = directory / FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise InvalidModel(f"{path} is not JSON: {exc}", model=directory.parent.name) from exc
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise InvalidModel(f"{path} is not a manifest: it has no 'files'", model=directory.parent.name)
    return manifest


def problems(directory: Path, manifest: dict[str, Any]) -> tuple[str, ...]:
    """Return one sentence for each file that is missing, changed or unknown to the manifest."""
    expected, found = manifest["files"], _names(directory)
    missing = [f"{name} is missing" for name in sorted(expected.keys() - set(found))]
    unknown = [f"{name} is not in the manifest" for name in found if name not in expected]
    changed = [
        f"{name} was changed: expected SHA-256 {expected[name]['sha256'][:12]}…, found {digest[:12]}…"
        for name in found
        if name in expected and (digest := _sha256(directory / name)) != expected[name]["sha256"]
    ]
    return (*missing, *unknown, *changed)


def _names(directory: Path) -> list[str]:
    files = (path for path in directory.rglob("*") if path.is_file() and path != directory / FILE)
    return sorted(str(path.relative_to(directory)) for path in files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
