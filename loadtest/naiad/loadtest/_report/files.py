"""Files of results: checked before a run, written all or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from naiad.loadtest.errors import OutputNotWritable

__all__ = ["check_writable", "write_atomically"]


def check_writable(path: Path) -> None:
    """Refuse a path that could not be written after the run, before the run; leaves nothing behind.

    Raises:
        OutputNotWritable: it is a folder, or its folder is missing or not writable.
    """
    folder = path.parent
    if path.is_dir():
        raise OutputNotWritable(f"expected a file to write, found the folder {path}: add a file name", path=str(path))
    if not folder.is_dir():
        raise OutputNotWritable(f"the folder of {path} does not exist: create {folder} first", path=str(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputNotWritable(
            f"the folder {folder} is not writable: choose another place for {path.name}", path=str(path)
        )


def write_atomically(path: Path, text: str) -> None:
    """Write ``text``; readers see the old file or the whole new one, also after a crash or with a full disk.

    Raises:
        OutputNotWritable: it could not be written; nothing is left behind.
    """
    check_writable(path)
    try:
        _replace(path, text.encode())
    except OSError as exc:
        raise OutputNotWritable(f"{path} could not be written: {exc.strerror or exc}", path=str(path)) from exc


def _replace(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
