"""The conductor's end of an engine process. Works under gevent: it waits on pipes only, and never touches gRPC."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

from naiad.loadtest.messages import EngineMessage, decode_message
from naiad.loadtest.plan import Traffic

__all__ = ["EngineLink"]

_EXIT_TIMEOUT_S = 15.0


class EngineLink:
    """Starts an engine process for ``traffic``; the engine ends when the link is closed or this process is gone."""

    def __init__(self, traffic: Traffic) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "naiad.loadtest._engine_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the one who asks for the report, not for us
        )
        self._users = 0
        self._order(json.dumps(traffic.to_json()))

    def add_users(self, number: int) -> None:
        """Have ``number`` users more (or fewer, where negative)."""
        self._users += number
        self._order(f"users {self._users}")

    def open_window(self) -> None:
        """Begin to measure."""
        self._order("open")

    def close_window(self) -> None:
        """End the measurement; the engine drains, reports and ends."""
        self._order("close")

    def read(self, on_message: Callable[[EngineMessage], None]) -> int:
        """Hand every message to ``on_message`` until the engine ends; return its exit code."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith(b"\n"):  # else it was killed in the middle of it
                on_message(decode_message(line))
        self._process.stdout.close()
        return self._process.wait()

    def close(self) -> None:
        """End the engine, by force if it does not go by itself."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it ended before it read the last order
            self._process.stdin.close()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _order(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ValueError):  # the engine ended; its last message says why
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
