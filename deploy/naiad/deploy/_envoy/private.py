"""The private directory of one running gateway, readable by its user alone.

    naiad-gateway-XXXXXXXX/
        lock            held (flock) by the gateway and its watchdog: free means that both are dead
        config/         the rendered files
        secrets/        where the caller gives none
        cwd/            Envoy's working directory, empty
        admin.sock      Envoy's administration
        envoy.log

The path is short: that of a UNIX socket may have 107 bytes.
"""

import contextlib
import fcntl
import logging
import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from naiad.deploy._envoy import reaper
from naiad.deploy.errors import GatewayError

_log = logging.getLogger("naiad.deploy")
_PLACES: Final = ("/tmp", "/var/tmp", "/run")  # noqa: S108 - created by mkdtemp with mode 0700
_ABANDONED_AFTER_S: Final = 60.0


class PrivateDirectory:
    """Created on construction, removed by `remove()`, or by the watchdog once this process is gone."""

    def __init__(self) -> None:
        self.path = _made()
        self._lock = _locked(self.path / "lock")
        for name in ("config", "secrets", "cwd"):
            (self.path / name).mkdir(mode=0o700)
        self._pipe, self._watchdog = self._watch()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def remove(self) -> None:
        """End what still runs here, remove everything, and let the watchdog go."""
        reaper.clean(self.path)
        with contextlib.suppress(OSError):
            os.write(self._pipe, reaper.DISMISSED)
        os.close(self._pipe)
        self._watchdog.wait()
        os.close(self._lock)

    def _watch(self) -> tuple[int, subprocess.Popen[bytes]]:
        reading, writing = os.pipe()
        command = [sys.executable, "-I", "-S", reaper.__file__, str(self.path), str(reading), str(os.getpid())]
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
    """Clean up after gateways of this user that died together with their watchdogs."""
    for place in _PLACES:
        for path in Path(place).glob(f"{reaper.PREFIX}*"):
            with contextlib.suppress(OSError):
                if _abandoned(path):
                    _log.warning("Cleaning up after a gateway whose owner is gone: %s", path)
                    reaper.clean(path)


def sockets() -> tuple[Path, ...]:
    """The administration of every gateway of this user that runs here."""
    found = [path for place in _PLACES for path in sorted(Path(place).glob(f"{reaper.PREFIX}*/admin.sock"))]
    return tuple(path for path in found if path.lstat().st_uid == os.getuid())


def _abandoned(path: Path) -> bool:
    info = path.lstat()
    # Nothing is removed that is not beyond doubt one of ours.
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
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


def _made() -> Path:
    refused = []
    for place in _PLACES:
        try:
            return Path(tempfile.mkdtemp(prefix=reaper.PREFIX, dir=place))
        except OSError as exc:
            refused.append(f"{place}: {exc.strerror}")
    raise GatewayError(
        f"The gateway needs a directory for its configuration; expected that one of {', '.join(_PLACES)} can be "
        f"written, found {'; '.join(refused)}. Make room there, or mount a tmpfs on /tmp."
    )


def _locked(path: Path) -> int:
    # Locked before it gets its name: whoever looks for abandoned directories never sees it unlocked.
    staged = path.with_name(f".{path.name}")
    descriptor = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    staged.rename(path)
    return descriptor
