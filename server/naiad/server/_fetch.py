"""Downloads the pinned wheels with pip and unpacks them into the cache, completely or not at all.

pip is the user's own, so index, proxy and certificates come from the configuration that works for everything else.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from naiad.server._progress import Progress
from naiad.server.errors import FetchError, HashMismatch, UnsupportedMachine

_log = logging.getLogger("naiad.server")
_MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """One file of a package index, pinned to the byte."""

    project: str
    version: str
    sha256: str
    size_bytes: int
    unpacked_bytes: int

    @property
    def folder(self) -> str:
        """Name of the directory it is unpacked into; another file never shares it."""
        return f"{self.project}-{self.version}-{self.sha256[:12]}"


TRITON: Final = Wheel(
    project="nvidia-pytriton",
    version="0.7.0",
    sha256="21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df",
    size_bytes=55_369_373,
    unpacked_bytes=150 * _MIB,
)
"""Triton 2.51.0 (release 24.10), never installed: its requirement numpy < 2 is the stub's, not the user's."""

_NUMPY: Final = {
    (3, 11): ("666dbfb6ec68962c033a450943ded891bed2d54e6755e35e5835d63f4f6931d5", 18_252_005),
    (3, 12): ("675d61ffbfa78604709862923189bad94014bef562cc35cf61d3a07bba02a7ed", 17_950_613),
}


def numpy_for(python: tuple[int, int]) -> Wheel:
    """The numpy 1.26 that the stub needs: with numpy 2 it silently corrupts tensors."""
    if python not in _NUMPY:
        found = ".".join(map(str, python))
        raise UnsupportedMachine(
            f"The embedded Triton's Python stub needs CPython 3.11 or 3.12, found {found}. "
            "Create the environment with one of these, or serve the repository with `docker compose up`."
        )
    sha256, size_bytes = _NUMPY[python]
    return Wheel(project="numpy", version="1.26.4", sha256=sha256, size_bytes=size_bytes, unpacked_bytes=70 * _MIB)


def install(wheel: Wheel, cache: Path) -> Path:
    """The directory below `cache` that holds the unpacked wheel; fetched first if it is not there yet.

    Several processes may call this at once: one fetches, the others wait. Killed at any point, it leaves either the
    complete directory or only a staging folder, from which the next call goes on. Raises: `FetchError`, `HashMismatch`.
    """
    final = cache / wheel.folder
    if final.is_dir():
        return final
    staging = cache / ".staging"
    try:
        staging.mkdir(parents=True, exist_ok=True)
        with _alone(staging / "lock"):
            if not final.is_dir():
                _obtain(wheel, staging, final)
    except OSError as exc:
        raise _explained(wheel, cache, exc) from exc
    return final


def installed(wheel: Wheel, cache: Path) -> Path | None:
    """The unpacked wheel, if it is there."""
    final = cache / wheel.folder
    return final if final.is_dir() else None


def _obtain(wheel: Wheel, staging: Path, final: Path) -> None:
    # Left behind by a process that was killed; only the holder of the lock comes here.
    for leftover in [*staging.glob("download-*"), *staging.glob("unpack-*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    archive = staging / f"{wheel.sha256}.whl"
    if not archive.is_file():
        _check_space(wheel, staging)
        _download(wheel, staging, archive)
    _unpack(archive, staging, final)
    archive.unlink()
    _log.info("Unpacked %s %s into %s", wheel.project, wheel.version, final)


def _check_space(wheel: Wheel, staging: Path) -> None:
    # pip holds the file twice for a moment: in its own temporary directory and where it was asked to put it.
    needed = 2 * wheel.size_bytes + wheel.unpacked_bytes
    free = shutil.disk_usage(staging).free
    if free < needed:
        raise FetchError(
            f"Fetching {wheel.project} {wheel.version} needs {needed // _MIB} MiB in {staging.parent}, found "
            f"{free // _MIB} MiB free. Free some space, or name another cache in NAIAD_CACHE_DIR.",
            project=wheel.project,
            version=wheel.version,
        )


def _download(wheel: Wheel, staging: Path, archive: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="download-", dir=staging))
    try:
        _run_pip(wheel, folder)
        found = _only_wheel(wheel, folder)
        _verify(wheel, found)
        found.replace(archive)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_pip(wheel: Wheel, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--progress-bar", "off", "--disable-pip-version-check", "--dest", str(folder / "wheel")]
    command += [f"{wheel.project}=={wheel.version}"]
    (folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    with open(folder / "pip.log", "w+b") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            Progress(f"Fetching {wheel.project} {wheel.version}", wheel.size_bytes).follow(process, folder)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise _pip_failed(wheel, (folder / "pip.log").read_text(errors="replace"))


def _pip_failed(wheel: Wheel, output: str) -> FetchError:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    said = " ".join(errors or lines[-1:]) or "nothing"
    return FetchError(
        f"pip could not download {wheel.project} {wheel.version}; it said: {said} "
        "Check the network and pip's configuration, or let PIP_FIND_LINKS name a directory that holds the wheel, "
        "or NAIAD_TRITON_HOME an unpacked Triton.",
        project=wheel.project,
        version=wheel.version,
    )


def _only_wheel(wheel: Wheel, folder: Path) -> Path:
    found = list((folder / "wheel").glob("*.whl"))
    if len(found) != 1:
        raise FetchError(
            f"Expected pip to download one wheel of {wheel.project}, found {len(found)}.",
            project=wheel.project,
            version=wheel.version,
        )
    return found[0]


def _verify(wheel: Wheel, path: Path) -> None:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise HashMismatch(
            f"Expected {path.name} with SHA-256 {wheel.sha256}, found {found} ({path.stat().st_size} bytes). "
            "It was not kept. Check which package index pip is configured to use (`pip config list`).",
            project=wheel.project,
            version=wheel.version,
            expected=wheel.sha256,
            found=found,
        )


def _unpack(archive: Path, staging: Path, final: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="unpack-", dir=staging))
    try:
        with zipfile.ZipFile(archive) as wheel:
            for member in wheel.infolist():
                path = wheel.extract(member, folder)
                # zipfile drops the executable bits.
                if member.external_attr >> 16 & 0o111:
                    Path(path).chmod(0o755)
        folder.chmod(0o755)
        folder.rename(final)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _explained(wheel: Wheel, cache: Path, exc: OSError) -> FetchError:
    return FetchError(
        f"Could not store {wheel.project} {wheel.version} in {cache}: {exc.strerror or exc}. "
        "Nothing half-made was left. Free some space, or name another cache in NAIAD_CACHE_DIR, then run this again.",
        project=wheel.project,
        version=wheel.version,
    )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that the kernel releases if this process is killed."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("Waiting for another process that fetches into %s", path.parent.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
