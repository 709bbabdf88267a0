"""One run of the Envoy process: started, watched until it serves, ended."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

from naiad.deploy._envoy import log
from naiad.deploy._envoy.admin import Admin, AdminUnreachable
from naiad.deploy.errors import GatewayError

_POLL_S: Final = 0.02
_REFUSED: Final = r"(update_rejected|config_fail|listener_create_failure)$"


class StartRefused(GatewayError):
    """A start that failed; `port` is the one that was taken, if that was why."""

    def __init__(self, message: str, port: int | None = None) -> None:
        super().__init__(message)
        self.port = port


class Process:
    """A running Envoy, in a process group of its own."""

    def __init__(
        self, envoy: Path, config: Path, *, directory: Path, log_path: Path, num_threads: int | None, drain_s: float
    ) -> None:
        self._log_path = log_path
        self._log_starts = log.size(log_path)
        command = [str(envoy), "-c", str(config), "--log-level", "warning"]
        # Nothing is inherited from an Envoy before: no shared memory is made that a killed one would leave behind.
        command += ["--disable-hot-restart", "--reject-unknown-dynamic-fields"]
        command += ["--drain-time-s", str(max(1, round(drain_s))), "--drain-strategy", "immediate"]
        command += ["--file-flush-interval-msec", "1000"]  # of the access log, that a crash loses a second at most
        command += ["--concurrency", str(num_threads)] if num_threads else []
        with open(log_path, "ab") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=directory,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=output,
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
        return log.text(self._log_path, self._log_starts)

    def wait_ready(self, admin: Admin, timeout_s: float, stopping: threading.Event) -> None:
        """Return when it serves with all of its configuration, or nobody waits for it any more.

        Raises: `StartRefused`.
        """
        deadline = time.monotonic() + timeout_s
        while not stopping.is_set():
            if self.returncode is not None:
                raise self.died()
            if self._is_serving(admin):
                return
            if time.monotonic() > deadline:
                raise self._failed(f"Expected Envoy to serve within {timeout_s:g} s, it does not.")
            stopping.wait(_POLL_S)

    def _is_serving(self, admin: Admin) -> bool:
        try:
            told = admin.stats(f"^listener_manager\\.|{_REFUSED}")
        except AdminUnreachable:
            return False
        if any(value for name, value in told.items() if name.endswith(("rejected", "config_fail", "create_failure"))):
            raise self._failed("Envoy refuses its configuration.")
        started = told.get("listener_manager.workers_started") and told.get("listener_manager.lds.update_success")
        return bool(started) and not told["listener_manager.total_listeners_warming"] and admin.is_ready()

    def died(self) -> StartRefused:
        """The error that says how it ended, with the end of its log."""
        return self._failed(f"Envoy ended by itself {_ending(self.returncode)}.")

    def _failed(self, what: str) -> StartRefused:
        port = log.port_taken(self.log_text())
        if port is not None:
            return StartRefused(f"Port {port} is taken: another program listens there. Name another.", port)
        said = log.essence(self.log_text())
        return StartRefused(f"{what} The end of its log:\n{said}" if said else f"{what} It logged nothing.")

    def terminate(self, timeout_s: float) -> bool:
        """Ask it to end; returns whether it did."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=timeout_s)
            return True
        return False

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


def validate(envoy: Path, config: Path, timeout_s: float = 30.0) -> None:
    """Let Envoy check a bootstrap file without serving. Raises `GatewayError` with its reasons."""
    command = [str(envoy), "-c", str(config), "--mode", "validate", "--disable-hot-restart", "--log-level", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env={})
    if done.returncode:
        raise GatewayError(f"Envoy refuses the configuration of the gateway:\n{log.essence(done.stderr)}")


def _ending(returncode: int | None) -> str:
    if returncode is None or returncode >= 0:
        return f"with exit code {returncode}"
    with contextlib.suppress(ValueError):
        return f"by {signal.Signals(-returncode).name}"
    return f"by signal {-returncode}"
