"""What the server sends: frames, header fields and messages, from bytes that are cut anywhere."""

from __future__ import annotations

from typing import Final, Protocol

from naiad.loadtest._wire import frames
from naiad.loadtest._wire.arrays import Arrays
from naiad.loadtest._wire.calls import PREFIX_BYTES, Call
from naiad.loadtest._wire.frames import ProtocolError
from naiad.loadtest._wire.hpack import FieldReader
from naiad.loadtest._wire.seam import Event
from naiad.loadtest._wire.status import INTERNAL, RESOURCE_EXHAUSTED, Head

__all__ = ["MAX_FRAME_BYTES", "Receiver", "Receiving"]

MAX_FRAME_BYTES: Final = 1 << 20
"""What the server is told; larger frames would save nothing."""
LARGE_BYTES: Final = 65_536
"""From here on, messages are received into their own array and handed out as that."""
_MAX_MESSAGE_BYTES: Final = (1 << 31) - 1
_MAX_ARRAY_BYTES: Final = 64 << 20
"""Reserved at once, at most: a length alone is no reason to fill the memory."""
_MAX_BLOCK_BYTES: Final = 1 << 20
_MAX_HEADS: Final = 1_000
_REFILL_BYTES: Final = 1 << 29  # the windows are nearly four times that
_PLAIN_HEADERS: Final = frames.END_HEADERS
_NOT_PLAIN: Final = frames.PADDED | frames.WITH_PRIORITY | frames.END_HEADERS
_NO_ENDING: Final = (2, "the server ended the call without a gRPC status")

_unpack: Final = frames.HEADER.unpack_from
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


class Receiver:
    """Reads frames; turns those of calls into events and hands on the others."""

    def __init__(self, connection: Receiving, events: list[Event]) -> None:
        self._connection, self._events = connection, events
        self._calls = connection.calls
        self._arrays = Arrays()
        self._fields = FieldReader()
        self._heads: dict[bytes, Head] = {}
        self._heads_at = 0
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
                self._head(flags, stream, heads.get(block) or self._read(block), at_ns)
            else:
                self._other(kind, flags, stream, data[begin:after], at_ns)
        if at < end:
            self._tail = data[at:] if at else data
        if self._received > _REFILL_BYTES:
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

    def _message(self, call: Call, message: bytes | bytearray, at_ns: int) -> None:
        if call.stream:
            call.received += len(message) + PREFIX_BYTES
            if call.received > _REFILL_BYTES:
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

    def _read(self, block: bytes) -> Head:
        """Decode a header block; the same bytes mean the same until the table changes."""
        head = Head.of(self._fields.read(block))
        if self._fields.num_changes != self._heads_at or len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
            if self._fields.num_changes != self._heads_at:
                self._heads_at = self._fields.num_changes
                return head  # this block changed the table: again, it may mean something else
        self._heads[block] = head
        return head

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
            self._head(first_flags, stream, self._read(bytes(block)), at_ns)


def _not_http2(data: bytes) -> ProtocolError | None:
    if data.startswith(b"HTTP/"):
        return ProtocolError("the server speaks HTTP/1: expected its gRPC port")
    return None
