"""Files that hold secrets: only their owner reads them, and each is replaced whole by one process at a time.

A secrets directory is mounted into a container whose user is another one than its administrator. Whoever owns the
directory therefore owns every file in it: root hands it over once and goes on working in it, and anybody else is its
owner already. No file has to be readable by all.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from naiad.deploy.errors import OutputNotWritable

__all__ = ["locked", "make_directory", "sync_directory", "write_secret"]

_LOCK_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.02


def make_directory(path: Path, *, owner: int | None = None) -> None:
    """Make a directory that its owner alone may enter; one that is there stays as it is.

    Raises:
        OutputNotWritable: it cannot be made or handed over.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not path.is_dir():
                raise
            return
        if owner is not None and owner != os.geteuid():
            os.chown(path, owner, owner)
    except OSError as exc:
        raise OutputNotWritable(f"expected to make the directory {path}: {exc.strerror or exc}") from exc


def write_secret(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put ``content`` at ``path`` in one step, while the directory is :func:`locked`.

    A reader sees the old content or the new one, also after a crash. The new file belongs to whom the old one did, and
    is as readable; a first one belongs to the directory's owner, and gets ``mode``: nobody else reads it.

    Raises:
        OutputNotWritable: the directory is missing, forbidden or full; what was there is as it was.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "wb") as file:
            _hand_over(handle, path, mode)
            file.write(content)
            file.flush()
            os.fsync(handle)
        beside.replace(path)
        sync_directory(path.parent)
    except OSError as exc:
        do = ": `naiad deploy secrets` makes it" if isinstance(exc, FileNotFoundError) else ""
        raise OutputNotWritable(f"expected to write {path}: {exc.strerror or exc}{do}") from exc
    finally:
        with suppress(OSError):
            beside.unlink()


def sync_directory(path: Path) -> None:
    """Have renames in a directory survive a loss of power."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory against other processes that change it; the lock ends with the process.

    Raises:
        OutputNotWritable: it is missing, or somebody else holds it for ten seconds.
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        do = ": `naiad deploy secrets` makes it" if isinstance(exc, FileNotFoundError) else ""
        raise OutputNotWritable(f"expected the directory {directory}: {exc.strerror or exc}{do}") from exc
    try:
        _lock(handle, directory)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, directory: Path) -> None:
    end = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if time.monotonic() > end:
                raise OutputNotWritable(
                    f"another process has been changing {directory} for {_LOCK_TIMEOUT_S:g} s: wait for it, or end it"
                ) from exc
        time.sleep(_POLL_S)


def _hand_over(handle: int, path: Path, mode: int) -> None:
    try:
        model = path.stat()
        mode = model.st_mode & 0o777
    except FileNotFoundError:
        model = path.parent.stat()
    os.fchmod(handle, mode)
    if os.geteuid() == 0 and model.st_uid != 0:
        os.fchown(handle, model.st_uid, model.st_gid)
