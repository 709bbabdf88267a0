"""One run of the Triton process: started, watched until it answers, ended."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from naiad.server import _log
from naiad.server._admin import Admin, Stranger
from naiad.server._secrecy import hide_argument
from naiad.server.errors import ServerDied, StartTimeout, Unreachable

_POLL_S: Final = 0.02
_STUCK_POLL_S: Final = 0.5
_LOOK_FOR_DEAD_S: Final = 1.0
_METRICS_S: Final = 1.0
_NUM_LINES: Final = 20
_NUM_ARGUMENTS: Final = 8
_STUB_NAME: Final = "triton_python_b"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stub:
    """A child of the server that runs one instance of a model."""

    pid: int
    dead: bool
    """A zombie: Triton neither notices nor starts another."""
    stopped: bool
    """By a signal or a debugger: should it go on in the middle of a request, it aborts Triton."""
    arguments: tuple[str, ...]
    """Its command line; empty once it is dead."""

    @property
    def region(self) -> str:
        """Name of its shared-memory region; "" once it is dead."""
        return self.arguments[2] if len(self.arguments) > _NUM_ARGUMENTS else ""

    @property
    def instance(self) -> str:
        """Name of the model instance it runs, such as `digits_0_0`; "" once it is dead."""
        return self.arguments[8] if len(self.arguments) > _NUM_ARGUMENTS else ""


class Process:
    """A running Triton; its group holds every stub."""

    def __init__(
        self, command: Sequence[str], *, secret: str, environment: Mapping[str, str], directory: Path, log_path: Path
    ) -> None:
        self._log_path = log_path
        self._secret = secret
        with open(log_path, "ab") as log:
            self._log_starts = log.tell()
            self._popen = subprocess.Popen(
                command,
                cwd=directory,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid
        self.retired: set[int] = set()
        """Stubs that were replaced, for which nobody waits any more."""

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def log_text(self) -> str:
        """What this run has logged so far."""
        with open(self._log_path, "rb") as log:
            log.seek(self._log_starts)
            return log.read().decode(errors="replace")

    def wait_live(self, admin: Admin, timeout_s: float, stopping: threading.Event) -> None:
        """Return when it has tried to load its models and answers, or nobody waits for it any more.

        Raises: `ServerDied`, `StartTimeout`.
        """
        started = looked = time.monotonic()
        num_dead = 0
        while not self._answers(admin) and not stopping.wait(_POLL_S):
            self._hide_secret()
            now = time.monotonic()
            if self.returncode is not None:
                raise self.died()
            if now - started > timeout_s:
                raise self._too_slow(timeout_s)
            if now - looked > _LOOK_FOR_DEAD_S:
                looked, before, num_dead = now, num_dead, self._num_dead()
                # Triton collects a stub that failed in order; for one that just died it waits for ever.
                if before and num_dead:
                    raise self._stuck()
        self._hide_secret()
        self._wait_for_metrics(admin, stopping)

    def _hide_secret(self) -> None:
        # What it logs first comes after it has read its arguments.
        if self._secret and self._log_path.stat().st_size > self._log_starts:
            hide_argument(self.pid, self._secret)
            self._secret = ""

    def _wait_for_metrics(self, admin: Admin, stopping: threading.Event) -> None:
        # Their port is opened last; where it is taken, Triton unloads its models and ends, having answered already.
        deadline = time.monotonic() + _METRICS_S
        while not stopping.wait(_POLL_S):
            served = admin.serves_metrics() or time.monotonic() > deadline
            if self.returncode is not None:
                raise self.died()
            if served and _log.port_taken(self.log_text()) is None:
                return

    def _too_slow(self, timeout_s: float) -> StartTimeout:
        tail = _log.essence(self.log_text(), _NUM_LINES)
        return StartTimeout(
            f"Expected Triton to be ready within {timeout_s:g} s, it is still starting. Raise ready_timeout_s, or see "
            f"what it does; the end of its log:\n{tail}",
            log_tail=tail,
        )

    def _stuck(self) -> ServerDied:
        tail = _log.essence(self.log_text(), _NUM_LINES)
        said = "; ".join(_log.stub_complaints(self.log_text())) or f"nothing. The end of Triton's log:\n{tail}"
        return ServerDied(
            f"A Python process died while models were loading, and Triton would wait for it for ever; it said: {said}",
            log_tail=tail,
        )

    def _num_dead(self) -> int:
        return sum(stub.dead for stub in self.stubs())

    def died(self) -> ServerDied:
        """The error that says how it ended, with the end of its log."""
        tail = _log.essence(self.log_text(), _NUM_LINES)
        return ServerDied(
            f"Triton ended by itself {_ending(self.returncode)}; the end of its log:\n{tail}",
            log_tail=tail,
            returncode=self.returncode,
        )

    def stubs(self) -> tuple[Stub, ...]:
        """The server's Python stubs, dead ones included."""
        found = (self.stub(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
        return tuple(stub for stub in found if stub)

    def stub(self, pid: int) -> Stub | None:
        """The stub with that process id, if it is one of this server's."""
        return _stub(pid, self.pid)

    def terminate(self, timeout_s: float) -> bool:
        """Ask it to drain and end; returns whether there is nothing left to wait for."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.terminate()
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout=_STUCK_POLL_S)
                return True
            if self._waits_for_the_dead():
                return True
        return False

    def _waits_for_the_dead(self) -> bool:
        # Triton waits for a dead stub until its time-out, after all others have finished their requests and ended.
        stubs = self.stubs()
        return bool(stubs) and all(stub.dead or stub.pid in self.retired for stub in stubs)

    def kill(self) -> None:
        """End it and its whole group at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def _answers(self, admin: Admin) -> bool:
        if not admin.is_live():
            return False
        # Somebody else's server on our port, while ours is about to find it taken, does not know our secret.
        with contextlib.suppress(Unreachable, Stranger):
            admin.index()
            return True
        return False


def _ending(returncode: int | None) -> str:
    if returncode is None or returncode >= 0:
        return f"with exit code {returncode}"
    with contextlib.suppress(ValueError):
        return f"by {signal.Signals(-returncode).name}"
    return f"by signal {-returncode}"


def _stub(pid: int, parent: int) -> Stub | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        name, _, rest = text.partition("(")[2].rpartition(")")
        state, ppid = rest.split()[:2]
        # A child that died before it became the stub is still called bash.
        if int(ppid) != parent or not (name.startswith(_STUB_NAME) or state == "Z"):
            return None
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (OSError, ValueError):
        return None
    return Stub(pid=pid, dead=state == "Z", stopped=state in "Tt", arguments=tuple(arguments[:-1]))
