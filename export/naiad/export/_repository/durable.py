"""Writes that survive a power cut, and the one table from the system's errors to ours."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from naiad.export.errors import ExportError, NotWritable, OutOfSpace, RepositoryError

_OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EXDEV, errno.ENOENT}


@contextlib.contextmanager
def translated(repository: Path, model: str | None = None) -> Iterator[None]:
    """Turn an OSError of the repository's disk into an error that says what to do."""
    try:
        yield
    except ExportError:
        raise
    except OSError as exc:
        raise _translate(exc, repository, model) from exc


def _translate(exc: OSError, repository: Path, model: str | None) -> RepositoryError:
    reason = f"{exc.strerror or exc}: {exc.filename}" if exc.filename else str(exc.strerror or exc)
    if exc.errno in _OUT_OF_SPACE:
        return OutOfSpace(
            f"no space left for {model or 'the model'} in {repository} ({reason}; {_free(repository)} free there); "
            "nothing was published: free some space, or raise the quota, and run it again",
            repository=repository,
            model=model,
        )
    if exc.errno in _NOT_WRITABLE:
        return NotWritable(
            f"cannot write to the model repository {repository} ({reason}); "
            "choose a repository you may write to, or change its owner or mode",
            repository=repository,
            model=model,
        )
    return RepositoryError(f"the model repository {repository} failed: {reason}", repository=repository, model=model)


def _free(repository: Path) -> str:
    with contextlib.suppress(OSError):
        return f"{shutil.disk_usage(repository).free / 1e6:.1f} MB are"
    return "nothing is"


def sync_file(path: Path) -> None:
    """Wait until the file's bytes are on the disk."""
    _sync(path, os.O_RDONLY)


def sync_directory(path: Path) -> None:
    """Wait until the directory's entries (a rename, for one) are on the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_tree(path: Path) -> None:
    """Wait for every file and directory under `path`, and `path` itself."""
    for directory, _, names in os.walk(path, topdown=False):
        for name in names:
            sync_file(Path(directory, name))
        sync_directory(Path(directory))


def write_new(path: Path, data: bytes) -> None:
    """Write a file that does not exist yet, and wait until it is on the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: bytes) -> None:
    """Add a line in a single durable write; a line torn by a crash is closed first."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, (b"\n" if torn else b"") + line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
