"""`manifest.json`: the hashes and the provenance of one version."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from naiad.export.errors import InvalidModel

FILE = "manifest.json"
SIGNATURE = "manifest.sig"
"""Added after the publication, so it is no part of what was published."""


def describe_files(directory: Path) -> dict[str, dict[str, Any]]:
    """Return SHA-256 and size of every file under `directory`, the manifest itself left out."""
    return {
        name: {"sha256": _sha256(directory / name), "size_bytes": (directory / name).stat().st_size}
        for name in _names(directory)
    }


def parse(data: bytes, *, model: str, where: str) -> dict[str, Any]:
    """Return the manifest in the bytes of the file at `where`.

    Raises:
        InvalidModel: It is not a manifest.
    """
    try:
        manifest = json.loads(data)
    except ValueError as exc:
        raise InvalidModel(f"{where} is not JSON: {exc}", model=model) from exc
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise InvalidModel(f"{where} is not a manifest: it has no 'files'", model=model)
    return manifest


def problems(manifest: dict[str, Any], found: Mapping[str, str]) -> tuple[str, ...]:
    """Return one sentence for each file that is missing, changed or unknown; `found` has their SHA-256 by name."""
    expected = manifest["files"]
    found = {name: digest for name, digest in found.items() if name != SIGNATURE}
    missing = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    unknown = [f"{name} is not in the manifest" for name in sorted(found.keys() - expected.keys())]
    changed = [
        f"{name} was changed: expected SHA-256 {expected[name]['sha256'][:12]}…, found {digest[:12]}…"
        for name, digest in sorted(found.items())
        if name in expected and digest != expected[name]["sha256"]
    ]
    return (*missing, *unknown, *changed)


def digests(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file under `directory`, the manifest itself and its signatures left out."""
    return {name: _sha256(directory / name) for name in _names(directory)}


def _names(directory: Path) -> list[str]:
    beside = {directory / FILE, directory / SIGNATURE}
    files = (path for path in directory.rglob("*") if path.is_file() and path not in beside)
    return sorted(str(path.relative_to(directory)) for path in files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
