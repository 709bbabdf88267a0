"""Removes what a gateway leaves behind: its processes and its private directory.

This module is also the watchdog: run as a script (`python -I -S`, standard library only) it outlives its parent, in a
session of its own, and cleans up after a parent that was killed.
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

PREFIX = "naiad-gateway-"
DISMISSED = b"q"
_KILL_ROUNDS = 50


def processes_in(directory: Path) -> list[int]:
    """Processes of this user whose working directory lies in `directory`."""
    prefix = f"{directory}{os.sep}"
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/cwd").startswith(prefix):
                    found.append(int(entry))
    return found


def end_processes(directory: Path) -> None:
    """Kill everything that runs in `directory`."""
    for _ in range(_KILL_ROUNDS):
        pids = processes_in(directory)
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def clean(directory: Path) -> None:
    """End what runs in a private directory, then remove it."""
    end_processes(directory)
    shutil.rmtree(directory, ignore_errors=True)


def watch(directory: Path, pipe: int, parent: int) -> None:
    """Wait until the parent dies or dismisses us; clean up in the first case."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN | select.POLLHUP)
    # The pipe alone is not enough: a child that the parent forked holds its writing end, too.
    with contextlib.suppress(OSError, AttributeError):
        poll.register(os.pidfd_open(parent), select.POLLIN)
    poll.poll()
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        if os.read(pipe, 1) == DISMISSED:
            return
    clean(directory)


if __name__ == "__main__":
    # Ctrl-C in the terminal is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watch(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
