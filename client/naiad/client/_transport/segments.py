"""Files in shared memory that do not outlive their owner, not even one that is killed.

An owner keeps a lock (flock(2)) on a file of its own, and its segments carry its name. The kernel ends the lock with
the process, whatever ends it and whichever PID namespace it is in: an owner whose lock can be had is gone, and
everybody may sweep up after it. The lock's file is made before the first segment and removed after the last.
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

DIRECTORY: Final = Path("/dev/shm")  # noqa: S108  (where shm_open(3) looks for names)
_PREFIX: Final = "naiad-client-"
_SEGMENT: Final = re.compile(rf"({_PREFIX}[0-9a-f]{{16}})-[0-9]+")
_LOCK: Final = ".lock"
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE: Final = 0o600
_SHARE_OF_THE_REST: Final = 8


class Segment:
    """A file of fixed size, mapped: ``memory`` are its bytes, ``name`` is its key for shm_open(3)."""

    __slots__ = ("_path", "memory", "name", "size_bytes")

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Make the file.

        Raises:
            OSError: there is not that much memory, or the file cannot be made; no file is left.
        """
        descriptor = os.open(path, _CREATE, _PRIVATE)
        try:
            # All of it now: a file that is merely long enough kills who touches it when memory has run out (SIGBUS).
            os.posix_fallocate(descriptor, 0, size_bytes)
            memory = mmap.mmap(descriptor, size_bytes)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)
        self.memory = memoryview(memory)
        self.name = path.name
        self.size_bytes = size_bytes
        self._path = path

    def unlink(self) -> None:
        """Remove the name; the memory goes when nobody maps it any more. Doing it twice does nothing."""
        with suppress(OSError):
            self._path.unlink()

    def let_go(self) -> None:
        """Give up this process's mapping, at once or when the last view of it is gone."""
        self.memory = memoryview(b"")


class Owner:
    """Whose segments these are: a name, and the lock that says that it lives."""

    __slots__ = ("_descriptor", "_directory", "_numbers", "name")

    def __init__(self, directory: Path = DIRECTORY) -> None:
        """Take a name and its lock.

        Raises:
            OSError: no file can be made and locked there.
        """
        self._directory = directory
        self._numbers = itertools.count(1)
        self.name, self._descriptor = _lock_new(directory)

    def segment(self, size_bytes: int) -> Segment:
        """Make a segment under a name that was never used before.

        Raises:
            OSError: there is not that much memory to be had while leaving several times as much to others.
        """
        free = os.statvfs(self._directory)
        # Triton's Python backends need a multiple of a request in the same file system, and fail without it.
        if size_bytes > free.f_bavail * free.f_frsize // _SHARE_OF_THE_REST:
            raise OSError(f"{size_bytes} bytes are more than 1/{_SHARE_OF_THE_REST} of what {self._directory} has left")
        return Segment(self._directory / f"{self.name}-{next(self._numbers)}", size_bytes)

    def close(self) -> None:
        """Remove the lock; all segments are unlinked before. Doing it twice does nothing."""
        if self._descriptor >= 0:
            with suppress(OSError):
                _lock_path(self._directory, self.name).unlink()
            self.forget()

    def forget(self) -> None:
        """Close the lock's descriptor: in a forked process, where the lock is the parent's."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def sweep(directory: Path = DIRECTORY) -> int:
    """Remove the segments of all owners that are gone, and their locks; return how many segments there were."""
    num_removed = 0
    for owner in sorted(set(_owners(directory))):
        with suppress(OSError):  # another user's, or swept up by somebody else meanwhile
            num_removed += _sweep_up(directory, owner)
    return num_removed


def is_orphan(name: str, directory: Path = DIRECTORY) -> bool:
    """Whether a region's name is that of a segment in ``directory`` whose owner is gone."""
    match = _SEGMENT.fullmatch(name)
    if match is None:
        return False
    try:
        descriptor = _open_lock(directory, match[1])
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        return _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock_new(directory: Path) -> tuple[str, int]:
    while True:
        name = _PREFIX + secrets.token_hex(8)
        descriptor = os.open(_lock_path(directory, name), _CREATE, _PRIVATE)
        # Somebody who sweeps may have seen the file before it was locked, and have locked or removed it.
        if _try_lock(descriptor, fcntl.LOCK_EX) and os.fstat(descriptor).st_nlink:
            return name, descriptor
        _lock_path(directory, name).unlink(missing_ok=True)
        os.close(descriptor)


def _owners(directory: Path) -> Iterator[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        match = _SEGMENT.fullmatch(name)
        if match is not None:
            yield match[1]
        elif name.startswith(_PREFIX) and name.endswith(_LOCK):
            yield name.removesuffix(_LOCK)


def _sweep_up(directory: Path, owner: str) -> int:
    try:
        descriptor = _open_lock(directory, owner)
    except FileNotFoundError:  # its lock was removed by hand: nobody lives without one
        return _unlink_segments(directory, owner)
    try:
        if not _try_lock(descriptor, fcntl.LOCK_EX):
            return 0
        num_removed = _unlink_segments(directory, owner)
        _lock_path(directory, owner).unlink(missing_ok=True)
        return num_removed
    finally:
        os.close(descriptor)


def _unlink_segments(directory: Path, owner: str) -> int:
    paths = list(directory.glob(f"{owner}-*"))
    for path in paths:
        path.unlink(missing_ok=True)
    return len(paths)


def _lock_path(directory: Path, owner: str) -> Path:
    return directory / f"{owner}{_LOCK}"


def _open_lock(directory: Path, owner: str) -> int:
    return os.open(_lock_path(directory, owner), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
