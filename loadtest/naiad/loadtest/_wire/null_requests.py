"""What a client sends to a null server, read with the same code that reads a server's answers."""

from __future__ import annotations

from typing import Final, Protocol

from naiad.loadtest._wire import frames
from naiad.loadtest._wire.assembling import Receiving
from naiad.loadtest._wire.calls import Call
from naiad.loadtest._wire.frames import ProtocolError
from naiad.loadtest._wire.receiving import Receiver
from naiad.loadtest._wire.requests import MODEL_INFER, MODEL_STREAM_INFER
from naiad.loadtest._wire.status import Head

__all__ = ["Requests", "Serving"]

_WITH_LENGTH: Final = 2
_ID_TAG: Final = 3 << 3 | _WITH_LENGTH
_SIZES: Final = {1: 8, 5: 4}  # of fields by wire type


class Serving(Receiving, Protocol):
    """What answers requests."""

    def begin(self, call: Call) -> None:
        """Begin to answer a stream."""

    def answer(self, call: Call) -> None:
        """Answer a unary request, which is here in full."""

    def answer_message(self, call: Call, request_id: bytes) -> None:
        """Answer a message of a stream; ``request_id`` is the field as it stood in it."""

    def end(self, call: Call) -> None:
        """Take the end of a stream."""

    def refuse(self, call: Call) -> None:
        """Answer a request for something else."""


class Requests(Receiver):
    """Reads requests. Those of unary calls are not looked into."""

    def __init__(self, connection: Serving) -> None:
        super().__init__(connection, [])
        self._server = connection

    @property
    def unread_bytes(self) -> int:
        """How many of the next bytes are of no interest: the body of a unary request."""
        return 0 if self._left_call is not None and self._left_call.stream else self._left

    def skip(self, num_bytes: int) -> None:
        """Go on after so many bytes of them."""
        self._left -= num_bytes
        if not self._left:
            self._data_over(0)

    def _head(self, flags: int, stream: int, head: Head, at_ns: int) -> None:
        call = self._calls.get(stream)
        if call is None:
            call = self._open(stream, head.path)
        if call is not None and flags & frames.END_STREAM:
            self._end(call, head.ending, at_ns)

    def _open(self, stream: int, path: str) -> Call | None:
        connection = self._server
        if not stream & 1:
            raise ProtocolError(f"a client opens streams with odd numbers, found {stream}")
        if stream < connection.next_stream:
            return None  # the rest of a call that has ended
        connection.next_stream = stream + 2
        call = self._calls[stream] = Call(0, 0.0)
        call.number, call.stream = stream, path == MODEL_STREAM_INFER
        if call.stream:
            connection.begin(call)
        elif path != MODEL_INFER:
            connection.refuse(call)
            return None
        return call

    def _end(self, call: Call, ending: tuple[int, str], at_ns: int) -> None:
        if call.number in self._calls:
            if call.stream:
                self._server.end(call)
            else:
                self._server.answer(call)

    def _absorb(self, call: Call, piece: memoryview, at_ns: int) -> None:
        if call.stream:
            super()._absorb(call, piece, at_ns)

    def _message(self, call: Call, message: bytes | bytearray, at_ns: int) -> None:
        if call.stream:
            self._server.answer_message(call, _request_id(message))


def _request_id(message: bytes | bytearray) -> bytes:
    """Return the field ``id`` of a ModelInferRequest as it stands in it, which is as a response has it, too."""
    at, found = 0, b""
    while at < len(message):
        begin = at
        tag, at = _varint(message, at)
        if tag & 7 == _WITH_LENGTH:
            size, at = _varint(message, at)
            at += size
        elif tag & 7 == 0:
            _, at = _varint(message, at)
        else:
            at += _SIZES.get(tag & 7, len(message))
        if tag == _ID_TAG:
            found = bytes(message[begin:at])
    return found


def _varint(message: bytes | bytearray, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    return value, at
