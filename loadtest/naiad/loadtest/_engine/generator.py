"""What sends the load, seen from the one who conducts a run: processes on this machine, or Locust workers."""

from __future__ import annotations

from typing import Protocol

from naiad.loadtest._engine.messages import Message

__all__ = ["Generator"]


class Generator(Protocol):
    """Sends the load of one test."""

    @property
    def started_ns(self) -> int:
        """When the run started, by this machine's ``time.perf_counter_ns()``: the zero of all intervals."""

    def start(self) -> None:
        """Wait until everything is prepared, then begin to send.

        Raises:
            EngineFailed: something cannot be prepared, or a process ended.
        """

    def next_message(self, timeout_s: float) -> Message | None:
        """Return what was said next, ``None`` where that takes longer than ``timeout_s``."""

    def stop(self) -> None:
        """Send nothing new; what is in flight drains, then :class:`Drained` is said, once."""

    def close(self) -> None:
        """End everything at once, and leave no process behind."""
