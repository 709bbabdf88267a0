"""The private directory of one running Triton.

Triton passes paths unquoted through a shell and imports from its working directory, so it gets a directory of its own
under /tmp without spaces, with symbolic links to what lies elsewhere:

    naiad-triton-XXXXXXXX/
        lock            held (flock) by the launcher and its watchdog: free means that both are dead
        owner.json      what to remove when they are
        cwd/            the server's working directory, empty
        be/             the backend directory
        env/            the stub's Python environment
        lib/            the libpython that the stub needs; a libcuda.so where the driver lacks that name
        repository      → the model repository
        triton.log
"""

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil

from naiad.server import _reaper
from naiad.server.errors import PreflightFailed

_log = logging.getLogger("naiad.server")
_PLACES: Final = ("/tmp", "/var/tmp", "/run")  # noqa: S108 - created by mkdtemp with mode 0700
_ABANDONED_AFTER_S: Final = 60.0
_CLOCK_SLACK_S: Final = 5.0


class PrivateDirectory:
    """Created on construction, removed by `remove()`, or by the watchdog once this process is gone."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=_reaper.PREFIX, dir=_place()))
        self.region_prefix = f"naiad_{secrets.token_hex(6)}_"
        self._temporary: set[str] = set()
        self._state_files: set[str] = set()
        self._lock = _locked(self.path / "lock")
        for name in ("cwd", "be", "env", "lib"):
            (self.path / name).mkdir()
        self._note()
        self._pipe, self._watchdog = self._watch()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def claim(self, temporary: Iterable[str] = (), state_files: Iterable[str] = ()) -> None:
        """Note directories in /tmp or state files that have to go when the server is gone."""
        before = len(self._temporary) + len(self._state_files)
        self._temporary.update(temporary)
        self._state_files.update(state_files)
        if len(self._temporary) + len(self._state_files) != before:
            self._note()

    def sweep(self) -> None:
        """End the server and its stubs, remove their regions and temporary directories; keep the directory."""
        _reaper.end_processes(self.path)
        _reaper.remove_regions(self.region_prefix)
        _reaper.remove_temporary(sorted(self._temporary), self.path)
        self._temporary.clear()
        self._note()

    def remove(self) -> None:
        """Remove everything and let the watchdog go."""
        self.sweep()
        for name in self._state_files:
            Path(name).unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.write(self._pipe, _reaper.DISMISSED)
        os.close(self._pipe)
        self._watchdog.wait()
        os.close(self._lock)

    def _note(self) -> None:
        owner = {
            "pid": os.getpid(),
            "region_prefix": self.region_prefix,
            "temporary": sorted(self._temporary),
            "state_files": sorted(self._state_files),
        }
        staged = self.path / f".{_reaper.OWNER_FILE}"
        staged.write_text(json.dumps(owner))
        staged.replace(self.path / _reaper.OWNER_FILE)

    def _watch(self) -> tuple[int, subprocess.Popen[bytes]]:
        reading, writing = os.pipe()
        command = [sys.executable, "-I", "-S", _reaper.__file__, str(self.path), str(reading), str(os.getpid())]
        process = subprocess.Popen(
            command,
            cwd="/",
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(reading, self._lock),
        )
        os.close(reading)
        return writing, process


def remove_abandoned() -> None:
    """Clean up after launchers of this user that died together with their watchdogs."""
    for place in _PLACES:
        for path in Path(place).glob(f"{_reaper.PREFIX}*"):
            with contextlib.suppress(OSError):
                if _abandoned(path):
                    _log.warning("Cleaning up after a Triton whose owner is gone: %s", path)
                    _reaper.clean(path)
    _remove_orphaned_environments()


def _remove_orphaned_environments() -> None:
    """Remove what killed Tritons left in /tmp: empty, and older than every Triton that runs."""
    running = [process.info for process in psutil.process_iter(["name", "create_time"])]
    born = [info["create_time"] for info in running if info["name"] == "tritonserver"]
    oldest = min(born, default=time.time()) - _CLOCK_SLACK_S
    for path in Path(_PLACES[0]).glob("python_env_*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid == os.getuid() and path.lstat().st_mtime < oldest:
                path.rmdir()


def _abandoned(path: Path) -> bool:
    info = path.lstat()
    # Nothing is removed that is not beyond doubt one of ours.
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or not (path / "cwd").is_dir():
        return False
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        # Its creator may be between two lines of code, or have died there.
        return time.time() - info.st_mtime > _ABANDONED_AFTER_S
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _locked(path: Path) -> int:
    # Locked before it gets its name: whoever looks for abandoned directories never sees it unlocked.
    staged = path.with_name(f".{path.name}")
    descriptor = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    staged.rename(path)
    return descriptor


def _place() -> str:
    """A directory without spaces, where files can be created and libraries loaded."""
    for place in _PLACES:
        if os.access(place, os.W_OK | os.X_OK) and not os.statvfs(place).f_flag & os.ST_NOEXEC:
            return place
    raise PreflightFailed(
        f"Triton needs a writable directory that is not mounted noexec: expected one of {', '.join(_PLACES)}, "
        "found none. Mount a tmpfs on /tmp.",
        check="private directory",
    )
