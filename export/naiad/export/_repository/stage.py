"""The lock of a repository, and private places beside it where a version is built before it is renamed in.

A directory inside the repository would be served as a model, or as a version (`3.tmp` is version 3 to Triton), so
staging happens in `.<repository>.staging` next to it: same file system, so that the rename is atomic. A stage is
locked by its owner; one without an owner was left by a killed process and is removed by the next export.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from naiad.export.errors import NotWritable

_LOCK = ".lock"


@contextlib.contextmanager
def locked(repository: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the repository's lock; it is released when the process dies, however it dies.

    Raises:
        BlockingIOError: Another process holds it, and `wait` is false.
    """
    descriptor = os.open(repository / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def stage(repository: Path, staging: Path) -> Iterator[Path]:
    """Give an empty private directory on the repository's file system; removed at the end, whatever happens."""
    path, owner = staging / uuid.uuid4().hex, list[int]()
    try:
        with locked(repository), uninterrupted():
            staging.mkdir(exist_ok=True)
            _require_same_file_system(repository, staging)
            _remove_abandoned(staging)
            path.mkdir(mode=0o700)
            owner.append(os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            fcntl.flock(owner[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield path
    finally:
        with uninterrupted():
            shutil.rmtree(path, ignore_errors=True)
            for descriptor in owner:
                os.close(descriptor)
            # Whoever holds the lock is about to use the staging place, and removes it afterwards.
            with contextlib.suppress(OSError), locked(repository, wait=False):
                staging.rmdir()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the end of the block, which must be short."""
    # Ctrl-C interrupts no other thread than the main one; a handler that is not Python's could not be put back.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if noted:
            signal.raise_signal(signal.SIGINT)


def _remove_abandoned(staging: Path) -> None:
    for path in staging.iterdir():
        if path.is_dir() and not _has_owner(path):
            shutil.rmtree(path, ignore_errors=True)


def _has_owner(path: Path) -> bool:
    try:
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _require_same_file_system(repository: Path, staging: Path) -> None:
    if repository.stat().st_dev != staging.stat().st_dev:
        with contextlib.suppress(OSError):
            staging.rmdir()
        raise NotWritable(
            f"{repository} and {staging} are on different file systems, so a version cannot be moved in at once; "
            "use a subdirectory of the mount as the repository, or name a staging directory on the same file system",
            repository=repository,
        )
