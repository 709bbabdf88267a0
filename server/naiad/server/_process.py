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
from naiad.server._admin import Admin, Stranger, Unreachable
from naiad.server.errors import ServerDied, StartTimeout

_POLL_S: Final = 0.02
_STUB_NAME: Final = "triton_python_b"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stub:
    """A child of the server that runs one instance of a model."""

    pid: int
    dead: bool
    """A zombie: Triton neither notices nor starts another."""
    arguments: tuple[str, ...]
    """Its command line; empty once it is dead."""

    @property
    def model_path(self) -> Path | None:
        """Where its model lies, as Triton sees it: `<repository>/<model>`."""
        return Path(self.arguments[1]) if len(self.arguments) > 1 else None


class Process:
    """A running Triton; its group holds every stub."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], directory: Path, log_path: Path
    ) -> None:
        self._log_path = log_path
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
        deadline = time.monotonic() + timeout_s
        while not self._answers(admin) and not stopping.wait(_POLL_S):
            if self.returncode is not None:
                raise self.died()
            if time.monotonic() > deadline:
                tail = _log.tail(self._log_path, 20)
                raise StartTimeout(
                    f"Expected Triton to be ready within {timeout_s:g} s, it is still starting. Raise "
                    f"ready_timeout_s, or see what it does; the end of its log:\n{tail}",
                    log_tail=tail,
                )

    def died(self) -> ServerDied:
        """The error that says how it ended, with the end of its log."""
        tail = _log.tail(self._log_path, 20)
        return ServerDied(
            f"Triton ended by itself {_ending(self.returncode)}; the end of its log:\n{tail}",
            log_tail=tail,
            returncode=self.returncode,
        )

    def stubs(self) -> tuple[Stub, ...]:
        """The server's Python stubs, dead ones included."""
        found = (_stub(int(entry), self.pid) for entry in os.listdir("/proc") if entry.isdigit())
        return tuple(stub for stub in found if stub)

    def terminate(self, timeout_s: float) -> int | None:
        """Ask it to drain and end; returns its exit code, None if it is still there after `timeout_s`."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._popen.wait(timeout=timeout_s)
        return None

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
        if int(ppid) != parent or not name.startswith(_STUB_NAME):
            return None
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (OSError, ValueError):
        return None
    return Stub(pid=pid, dead=state == "Z", arguments=tuple(arguments[:-1]))
