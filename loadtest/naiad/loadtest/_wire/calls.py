"""A call in flight, and what is sent for it."""

from __future__ import annotations

from collections import deque
from typing import Final

from naiad.loadtest._wire import frames

__all__ = ["PREFIX_BYTES", "SMALL_BYTES", "Call", "Outgoing", "Prepared"]

PREFIX_BYTES: Final = 5
"""Before each gRPC message: whether it is compressed (never), and four bytes of its length."""
SMALL_BYTES: Final = 65_536
"""Up to here a message is copied, so that it leaves with others; larger ones leave from where they are."""


class Prepared:
    """A serialised request with all that goes before it on the line, but for the number of its stream."""

    __slots__ = ("message", "prefix", "prefixed", "size_bytes", "start")

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.prefix = len(message).to_bytes(PREFIX_BYTES, "big")
        self.size_bytes = PREFIX_BYTES + len(message)
        self.prefixed, self.start = b"", b""
        """In one piece with the prefix, and the beginning of the frame: of small ones, which leave together."""
        if self.size_bytes <= SMALL_BYTES:
            self.prefixed = self.prefix + message
            self.start = frames.start(frames.DATA, frames.END_STREAM, self.size_bytes)

    def parts(self, suffix: bytes) -> tuple[bytes, ...]:
        """Return the framed message with a suffix, in pieces, so that nothing large is copied."""
        if not suffix:
            return self.prefix, self.message
        return (len(self.message) + len(suffix)).to_bytes(PREFIX_BYTES, "big"), self.message, suffix


class Call:
    """One call. What most calls never need has its default in the class, because calls are made so often."""

    number = 0
    """Of its stream; 0 as long as it has none."""
    stream = False
    """Whether its messages are events of their own."""
    message: bytes | bytearray | None = None
    """The answer of a unary call."""
    problem: tuple[int, str] | None = None
    """Status and details, where the answer was bad before its end."""
    prefix = b""
    """The first bytes of a message's five before it."""
    partial: bytearray | None = None
    """A message that is not here in full."""
    size_bytes = 0
    """Of ``partial`` when it is."""
    filled = 0
    """How many bytes of ``partial`` are here."""
    received = 0
    """Bytes of messages since the last leave to send more; of streams only."""
    outgoing: Outgoing | None = None
    """What is still to be sent."""

    def __init__(self, token: int, deadline_ns: float) -> None:
        self.token = token
        self.deadline_ns = deadline_ns


class Outgoing:
    """What is to be sent for a call and could not leave at once."""

    def __init__(self, call: Call, method: str, timeout_s: float | None) -> None:
        self.call = call
        self.method, self.timeout_s = method, timeout_s
        self.window = 0
        """How many bytes the stream may take."""
        self.left_bytes = 0
        self.ends = False
        """Whether nothing comes after what is here."""
        self.over = False
        """Whether the end was sent, or the call has ended."""
        self._parts: deque[memoryview] = deque()

    def add(self, *parts: bytes) -> None:
        """Append to what is to be sent."""
        for part in parts:
            self._parts.append(memoryview(part))
            self.left_bytes += len(part)

    def stop(self) -> None:
        """Drop what was not sent, because the call has ended."""
        self._parts.clear()
        self.left_bytes = 0
        self.over = True
        self.call.outgoing = None

    @property
    def wants(self) -> bool:
        """Whether there is something to send, with or without leave."""
        return not self.over and (self.left_bytes > 0 or self.ends)

    def cut(self, limit_bytes: int, max_frame_bytes: int) -> list[bytes | memoryview]:
        """Return frames of up to ``limit_bytes`` (and the stream's window) in all, as pieces that are no copies."""
        out: list[bytes | memoryview] = []
        limit_bytes = min(limit_bytes, self.window)
        while self.left_bytes and limit_bytes > 0:
            size = min(self.left_bytes, limit_bytes, max_frame_bytes)
            limit_bytes -= size
            self.window -= size
            self.left_bytes -= size
            self.over = self.ends and not self.left_bytes
            out.append(frames.HEADER.pack(size << 8 | frames.DATA, self.over, self.call.number))
            self._take(size, out)
        if self.ends and not self.left_bytes and not self.over:
            self.over = True
            out.append(frames.frame(frames.DATA, frames.END_STREAM, self.call.number))
        if self.over:
            self.call.outgoing = None
        return out

    def _take(self, size: int, out: list[bytes | memoryview]) -> None:
        while size:
            part = self._parts[0]
            if len(part) <= size:
                out.append(self._parts.popleft())
                size -= len(part)
            else:
                out.append(part[:size])
                self._parts[0] = part[size:]
                size = 0
