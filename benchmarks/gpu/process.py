"""Runs a process of the environment under a limit, and ends it with all its children."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_GRACE_S = 10.0
_LOOK_S = 0.5
_TIDY_S = 3.0
"""For those who outlive the process that was started: Python's own tracker removes its semaphores then."""


class TaskFailed(Exception):
    """A task raised, died or took too long; `refused` if it said no, `late` if its time was over."""

    def __init__(self, message: str, *, refused: bool = False, late: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        self.late = late


@contextlib.contextmanager
def started(
    command: list[str], variables: dict[str, str], log: Path, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a session of its own, its output in `log`; it and its children end with the block."""
    with open(log, "ab") as output:
        output.write(f"\n$ {' '.join(command)}\n".encode())
        output.flush()
        options.setdefault("stdout", output)
        process = subprocess.Popen(command, env=variables, stderr=output, start_new_session=True, **options)
    try:
        yield process
    finally:
        _end(process)


def answers(
    command: list[str], variables: dict[str, str], log: Path, order: dict[str, Any], limit_s: float
) -> Iterator[dict[str, Any]]:
    """Give the answers of a task as they come. Raises: `TaskFailed`."""
    until = time.monotonic() + limit_s
    with started(command, variables, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(order).encode())
            process.stdin.close()
        waiting = b""
        while True:
            if time.monotonic() > until:
                raise TaskFailed(f"took more than {limit_s:.0f} s", late=True)
            if not select.select([process.stdout], [], [], _LOOK_S)[0]:
                continue
            block = os.read(process.stdout.fileno(), 1 << 16)
            if not block:
                break
            *lines, waiting = (waiting + block).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                if "error" in answer:
                    raise TaskFailed(answer["error"])
                yield answer
        code = process.wait()
    if code:
        raise TaskFailed(f"ended with {code}; it said: {tail(log)}")


def tail(log: Path, lines: int = 3) -> str:
    """Return the end of a log in one line."""
    found = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(found[-lines:])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the group to end, then make it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        until = time.monotonic() + _TIDY_S
        while process.poll() is not None and time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(_LOOK_S / 10)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
