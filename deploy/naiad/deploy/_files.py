"""Files that others watch: each is replaced whole, and only if it says something else."""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def write_all(directory: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    """Write what changed below a directory, in the order given; returns the names of the files that were written.

    A reader sees the old file or the new one, and so does whoever looks after a crash: each is written beside its
    place, synced, and renamed. Raises OSError where that fails; the files before it are then the new ones, it and
    those after it the old ones.
    """
    written = tuple(name for name, text in files.items() if _replace(directory / name, text))
    for folder in {(directory / name).parent for name in written}:
        _sync(folder)
    return written


def _replace(path: Path, text: str) -> bool:
    with suppress(FileNotFoundError):
        if path.read_bytes() == text.encode():
            return False
    _make(path.parent)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # a gateway in a container is another user
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise
    return True


def _make(folder: Path) -> None:
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        each.chmod(0o755)  # as the files, whatever the caller's umask says


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
