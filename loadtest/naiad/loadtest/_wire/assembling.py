"""Messages of calls, put together from the pieces that frames carry."""

from __future__ import annotations

from typing import Final, Protocol

from naiad.loadtest._wire.arrays import Arrays
from naiad.loadtest._wire.calls import PREFIX_BYTES, Call
from naiad.loadtest._wire.seam import Event
from naiad.loadtest._wire.status import INTERNAL, RESOURCE_EXHAUSTED

__all__ = ["LARGE_BYTES", "REFILL_BYTES", "Assembler", "Receiving"]

LARGE_BYTES: Final = 65_536
"""From here on, messages are received into their own array and handed out as that."""
REFILL_BYTES: Final = 1 << 29
"""Received, after which the server gets leave to send more; the windows are nearly four times that."""
_MAX_MESSAGE_BYTES: Final = (1 << 31) - 1
_MAX_ARRAY_BYTES: Final = 64 << 20
"""Reserved at once, at most: a length alone is no reason to fill the memory."""
_new_event: Final = tuple.__new__


class Receiving(Protocol):
    """What a receiver needs of its connection."""

    calls: dict[int, Call]
    next_stream: int
    """The first number that no call has had yet."""

    def control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Take a frame that carries nothing of an answer."""

    def ended_early(self, call: Call) -> None:
        """Hear of a call that the server ended before all was sent."""

    def give_leave(self, stream: int, more_bytes: int) -> None:
        """Let the server send more; stream 0 is the connection."""


class Assembler:
    """Takes what came for calls, and gives messages."""

    def __init__(self, connection: Receiving, events: list[Event]) -> None:
        self._connection, self._events = connection, events
        self._arrays = Arrays()

    def _message(self, call: Call, message: bytes | bytearray, at_ns: int) -> None:
        if call.stream:
            call.received += len(message) + PREFIX_BYTES
            if call.received > REFILL_BYTES:
                self._connection.give_leave(call.number, call.received)
                call.received = 0
            self._events.append(_new_event(Event, (call.token, at_ns, False, 0, "", message)))
        elif call.message is None:
            call.message = message
        else:
            call.problem = INTERNAL, "the server gave several answers to one request"

    def _absorb(self, call: Call, piece: memoryview, at_ns: int) -> None:
        """Take a piece of a call's messages, which may end anywhere."""
        while piece and call.problem is None:
            if call.partial is None:
                taken = piece[: PREFIX_BYTES - len(call.prefix)]
                call.prefix += taken
                if len(call.prefix) == PREFIX_BYTES:
                    self._begin_message(call)
            else:
                room = len(call.partial) - call.filled
                taken = piece[:room]
                call.partial[call.filled : call.filled + len(taken)] = taken
                call.filled += len(taken)
            piece = piece[len(taken) :]
            if call.partial is not None:
                self._complete(call, at_ns)

    def _begin_message(self, call: Call) -> None:
        compressed, size = call.prefix[0], int.from_bytes(call.prefix[1:], "big")
        call.prefix = b""
        if compressed:
            call.problem = INTERNAL, "the answer is compressed, which was not asked for"
        elif size > _MAX_MESSAGE_BYTES:
            call.problem = RESOURCE_EXHAUSTED, f"the answer has {size} bytes, which is more than any message may have"
        else:
            call.partial, call.size_bytes, call.filled = self._arrays.take(min(size, _MAX_ARRAY_BYTES)), size, 0

    def _complete(self, call: Call, at_ns: int) -> None:
        """Hand a message out when it is here in full."""
        partial = call.partial
        assert partial is not None
        if call.filled == call.size_bytes:
            call.partial = None
            if call.filled >= LARGE_BYTES:
                self._arrays.keep(partial)
                self._message(call, partial, at_ns)
            else:
                self._message(call, bytes(partial), at_ns)
        elif call.filled == len(partial):
            partial.extend(bytes(min(call.size_bytes - call.filled, _MAX_ARRAY_BYTES)))
