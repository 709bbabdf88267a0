"""What the server sends: frames, header fields and messages, from bytes that are cut anywhere."""

from __future__ import annotations

from typing import Final

from naiad.loadtest._wire import frames
from naiad.loadtest._wire.assembling import LARGE_BYTES, REFILL_BYTES, Assembler, Receiving
from naiad.loadtest._wire.calls import Call
from naiad.loadtest._wire.frames import ProtocolError
from naiad.loadtest._wire.heads import Heads
from naiad.loadtest._wire.seam import Event
from naiad.loadtest._wire.status import INTERNAL, UNKNOWN, Head

__all__ = ["MAX_FRAME_BYTES", "Receiver"]

MAX_FRAME_BYTES: Final = 1 << 20
"""What the server is told; larger frames would save nothing."""
_MAX_BLOCK_BYTES: Final = 1 << 20
_PLAIN_HEADERS: Final = frames.END_HEADERS
_NOT_PLAIN: Final = frames.PADDED | frames.WITH_PRIORITY | frames.END_HEADERS
_NO_ENDING: Final = (UNKNOWN, "the server ended the call without a gRPC status")

_unpack: Final = frames.HEADER.unpack_from
_new_event: Final = tuple.__new__


class Receiver(Assembler):
    """Reads frames; turns those of calls into events and hands on the others."""

    def __init__(self, connection: Receiving, events: list[Event]) -> None:
        super().__init__(connection, events)
        self._calls = connection.calls
        self._heads = Heads()
        self._tail = b""
        self._left = 0
        """Bytes of a DATA frame that are still to come."""
        self._left_call: Call | None = None
        self._left_ends = False
        self._block: tuple[int, int, bytearray] | None = None
        """Flags, stream and beginning of a header block that goes on in another frame."""
        self._received = 0  # in DATA frames, since the last leave to send more

    def feed(self, data: bytes, at_ns: int) -> None:
        """Read what came.

        Raises:
            ProtocolError: it is no HTTP/2, or not what a server may send.
        """
        at = 0
        if self._left:
            at = self._go_on(data, at_ns)
        elif self._tail:
            data = self._tail + data
            self._tail = b""
        end = len(data)
        calls, heads = self._calls, self._heads
        while end - at >= 9:
            head, flags, stream = _unpack(data, at)
            begin = at + 9
            after = begin + (head >> 8)
            kind = head & 0xFF
            if after > end:
                at = self._cut_off(kind, flags, stream, data, at, after, at_ns)
                break
            at = after
            if kind == 0 and not flags & 8:  # DATA, not padded
                size = after - begin
                self._received += size
                call = calls.get(stream) or self._find(stream)
                if call is None:
                    continue
                if (
                    data[begin : begin + 5] == (size - 5 if size > 5 else 0).to_bytes(5, "big")
                    and call.partial is None
                    and not call.prefix
                    and size >= 5
                ):
                    self._message(call, data[begin + 5 : after], at_ns)
                else:
                    self._absorb(call, memoryview(data)[begin:after], at_ns)
                if flags & 1:
                    self._end(call, _NO_ENDING, at_ns)
            elif kind == 1 and flags & _NOT_PLAIN == _PLAIN_HEADERS:
                block = data[begin:after]
                self._head(flags, stream, heads[block], at_ns)
            else:
                self._other(kind, flags, stream, data[begin:after], at_ns)
        if at < end:
            self._tail = data[at:] if at else data
        if self._received > REFILL_BYTES:
            self._connection.give_leave(0, self._received)
            self._received = 0

    def target(self) -> memoryview | None:
        """Return where the next bytes may be received to directly, if they belong to a large message."""
        call = self._left_call
        if call is None or self._left < LARGE_BYTES or call.partial is None or call.number not in self._calls:
            return None
        room = len(call.partial) - call.filled
        return memoryview(call.partial)[call.filled : call.filled + min(room, self._left)] if room else None

    def filled(self, num_bytes: int, at_ns: int) -> None:
        """Take over what was received into :meth:`target`."""
        call = self._left_call
        assert call is not None
        call.filled += num_bytes
        self._left -= num_bytes
        self._complete(call, at_ns)
        if not self._left:
            self._data_over(at_ns)

    def _go_on(self, data: bytes, at_ns: int) -> int:
        size = min(self._left, len(data))
        self._left -= size
        call = self._left_call
        if call is not None and call.number in self._calls:  # else it ended meanwhile, from here
            self._absorb(call, memoryview(data)[:size], at_ns)
        if not self._left:
            self._data_over(at_ns)
        return size

    def _data_over(self, at_ns: int) -> None:
        call, self._left_call = self._left_call, None
        if self._left_ends and call is not None:
            self._end(call, _NO_ENDING, at_ns)

    def _cut_off(self, kind: int, flags: int, stream: int, data: bytes, at: int, after: int, at_ns: int) -> int:
        """Begin with a frame that is not here in full; return what was read of it."""
        begin, end = at + 9, len(data)
        if after - begin > MAX_FRAME_BYTES:
            raise _not_http2(data) or ProtocolError(
                f"a frame has {after - begin} bytes, {MAX_FRAME_BYTES} were allowed", frames.FRAME_SIZE_ERROR
            )
        if kind != frames.DATA or flags & frames.PADDED:
            return at
        self._received += after - begin
        self._left, self._left_ends = after - end, bool(flags & frames.END_STREAM)
        self._left_call = call = self._calls.get(stream) or self._find(stream)
        if call is not None:
            self._absorb(call, memoryview(data)[begin:end], at_ns)
        return end

    def _find(self, stream: int) -> Call | None:
        """Return the call of a stream, ``None`` for one that has ended."""
        stream &= frames.MAX_STREAM
        if not stream & 1 or stream >= self._connection.next_stream:
            raise ProtocolError(f"a frame belongs to stream {stream}, which was never opened")
        return self._calls.get(stream)

    def _head(self, flags: int, stream: int, head: Head, at_ns: int) -> None:
        call = self._calls.get(stream) or self._find(stream)
        if call is None:
            return
        if flags & frames.END_STREAM:
            self._end(call, head.ending, at_ns)
        elif head.problem is not None and not head.interim:
            call.problem = call.problem or head.problem

    def _end(self, call: Call, ending: tuple[int, str], at_ns: int) -> None:
        if self._calls.pop(call.number, None) is None:
            return
        status, details = call.problem or ending
        message = None
        if not status:
            if call.partial is not None or call.prefix:
                status, details = INTERNAL, "the server ended the call within a message"
            elif not call.stream:
                message = call.message
                if message is None:
                    status, details = INTERNAL, "the server ended the call well, but without an answer"
        if call.outgoing is not None:
            self._connection.ended_early(call)
        self._events.append(_new_event(Event, (call.token, at_ns, True, status, details, message)))

    def _other(self, kind: int, flags: int, stream: int, payload: bytes, at_ns: int) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise ProtocolError("a header block is interrupted by another frame")
        if kind == frames.DATA:
            self._received += len(payload)
            if (call := self._find(stream)) is not None:
                self._absorb(call, memoryview(frames.unpad(flags & frames.PADDED, payload)), at_ns)
                if flags & frames.END_STREAM:
                    self._end(call, _NO_ENDING, at_ns)
        elif kind == frames.HEADERS:
            self._find(stream)
            self._block = flags, stream, bytearray(frames.unpad(flags, payload))
            self._block_over(flags, at_ns)
        elif kind == frames.CONTINUATION:
            if self._block is None or self._block[1] != stream:
                raise ProtocolError("a header block goes on that never began")
            self._block[2].extend(payload)
            self._block_over(flags, at_ns)
        else:
            self._connection.control(kind, flags, stream, payload)

    def _block_over(self, flags: int, at_ns: int) -> None:
        assert self._block is not None
        first_flags, stream, block = self._block
        if len(block) > _MAX_BLOCK_BYTES:
            raise ProtocolError("a header block has no end")
        if flags & frames.END_HEADERS:
            self._block = None
            self._head(first_flags, stream, self._heads[bytes(block)], at_ns)


def _not_http2(data: bytes) -> ProtocolError | None:
    if data.startswith(b"HTTP/"):
        return ProtocolError("the server speaks HTTP/1: expected its gRPC port")
    return None
