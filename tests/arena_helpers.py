"""Processes that own shared memory, for the arena's tests: they live, fork and are killed for real."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SHM = Path("/dev/shm")


class Process:
    """A Python process that runs ``code``, says a line when it is there, and lives until it is told to go on."""

    def __init__(self, code: str, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        command = [*prefix, sys.executable, "-c", code, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()
        if not self.said:
            self.process.kill()
            pytest.fail(f"the process ended with {self.process.wait()} before it said anything")

    def go_on(self) -> int:
        """Let it run to its end; return its exit status."""
        self.process.communicate("\n", timeout=60)
        return self.process.returncode

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.communicate(timeout=60)


@contextmanager
def process(code: str, *arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[Process]:
    """Run a :class:`Process`; it is killed at the end if it still lives."""
    running = Process(code, *arguments, prefix=prefix)
    try:
        yield running
    finally:
        running.kill()


def files(directory: Path = SHM) -> set[str]:
    """The arena's files there."""
    return {path.name for path in directory.glob("naiad-client-*")}
