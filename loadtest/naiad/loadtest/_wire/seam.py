"""What the engine needs of a connection: requests go out, what came back is polled. One thread drives it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

__all__ = ["Event", "Wire"]


class Event(NamedTuple):
    """Something came back for the request with this ``token``. A tuple: every answer makes one."""

    token: int
    at_ns: int
    """``time.perf_counter_ns()`` when it was here, before anything else was done with it."""
    ended: bool
    """Whether nothing more will come for this token; with a stream, messages come before."""
    status: int = 0
    """The gRPC status code where it ended; 0 is OK."""
    details: str = ""
    message: bytes | bytearray | None = None
    """A serialised answer: of an unary call that ended well, or one message of a stream. Large ones come as the array
    that they were received into."""


class Wire(Protocol):
    """Connections to one server. Not thread-safe: the engine's one thread calls everything."""

    def prepare(self, message: bytes) -> Any:
        """Return what :meth:`send` and :meth:`write` take for a serialised request, made once for many sends."""

    def send(self, prepared: Any, token: int, timeout_s: float, suffix: bytes = b"") -> int:
        """Send a unary ModelInfer; ``suffix`` is appended to the serialised request (protobuf fields of this one).

        Returns ``time.perf_counter_ns()`` of when it left, or leaves: with the next poll or flush, or with the first
        send that is 30 µs later. Never raises for a broken line: the failure is an event.
        """

    def open_stream(self, token: int, timeout_s: float | None) -> None:
        """Open a ModelStreamInfer, which ends with an event like everything else."""

    def write(self, prepared: Any, token: int, suffix: bytes = b"") -> int:
        """Write a request to the stream of ``token``; returns when it left."""

    def close_stream(self, token: int) -> None:
        """Say that nothing more will be written to the stream of ``token``."""

    def cancel(self, token: int) -> None:
        """Give up a call; it ends with CANCELLED."""

    def flush(self) -> None:
        """Have what was sent leave now, where the next send or poll may be far: sends close together leave together."""

    def poll(self, timeout_s: float) -> list[Event]:
        """Flush what was sent, wait until something came back, at most ``timeout_s``, and return it (maybe nothing).

        Deadlines are kept here: a call whose time is over ends with DEADLINE_EXCEEDED.
        """

    def close(self) -> None:
        """Cancel what is in flight and close the connections."""
