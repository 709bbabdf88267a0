"""A process that runs has a pulse, one that is stopped has none."""

import os
import signal
import subprocess
import sys
import time

from naiad.server._pulse import Pulse

BEATING = "import time\nwhile True: time.sleep(0.05)"
_DEADLINE_S = 30.0


def test_only_a_stopped_process_is_silent() -> None:
    """As long as it does anything it is not silent; stopped by a signal it soon is, and no more when it goes on."""
    with subprocess.Popen([sys.executable, "-c", BEATING]) as process:
        try:
            pulse = Pulse()
            assert not pulse.is_silent(process.pid)
            os.kill(process.pid, signal.SIGSTOP)
            _until(pulse, process.pid, silent=True)
            os.kill(process.pid, signal.SIGCONT)
            _until(pulse, process.pid, silent=False)
        finally:
            process.kill()


def _until(pulse: Pulse, pid: int, *, silent: bool) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while pulse.is_silent(pid) is not silent:
        assert time.monotonic() < deadline
        time.sleep(0.05)
