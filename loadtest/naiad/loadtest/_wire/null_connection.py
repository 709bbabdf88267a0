"""The server's side of an HTTP/2 connection that answers every request alike, with as little work as can be."""

from __future__ import annotations

from typing import Final

from naiad.loadtest._wire import frames
from naiad.loadtest._wire.calls import Call, Outgoing, Prepared
from naiad.loadtest._wire.frames import ProtocolError
from naiad.loadtest._wire.hpack import FieldWriter
from naiad.loadtest._wire.line import RECEIVE_BYTES, Line
from naiad.loadtest._wire.null_requests import Requests
from naiad.loadtest._wire.output import Output
from naiad.loadtest._wire.receiving import MAX_FRAME_BYTES
from naiad.loadtest._wire.requests import RequestHeaders
from naiad.loadtest._wire.sending import Sender

__all__ = ["NullConnection"]

_ROUNDS: Final = 16  # of receiving, before others have their turn
_GREETING: Final = frames.settings(
    {frames.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW, frames.MAX_FRAME_SIZE: MAX_FRAME_BYTES}
) + frames.window_update(0, frames.MAX_WINDOW - frames.FIRST_WINDOW)


def _block(*fields: tuple[str, str]) -> bytes:
    """Encode fields and leave the client's table alone, so that the same bytes answer every request."""
    return FieldWriter(max_table_bytes=0).write(fields)[0]


_HEADERS: Final = _block((":status", "200"), ("content-type", "application/grpc"))
_OK: Final = _block(("grpc-status", "0"))
_UNIMPLEMENTED: Final = _block(
    (":status", "200"),
    ("content-type", "application/grpc"),
    ("grpc-status", "12"),
    ("grpc-message", "the null server answers ModelInfer and ModelStreamInfer only"),
)
_ENDING: Final = frames.END_HEADERS | frames.END_STREAM
_HEADERS_START: Final = frames.start(frames.HEADERS, frames.END_HEADERS, len(_HEADERS))
_OK_START: Final = frames.start(frames.HEADERS, _ENDING, len(_OK))


class NullConnection(Sender):
    """One client. Whatever it does, at worst its connection ends."""

    def __init__(self, line: Line, answer: bytes) -> None:
        super().__init__(Output(line), RequestHeaders("http", "", ()))
        self._line, self._message, self._answer = line, answer, Prepared(answer)
        self._start = frames.start(frames.DATA, 0, min(self._answer.size_bytes, frames.MAX_FRAME_BYTES))
        self._requests = Requests(self)
        self._closing: set[int] = set()  # streams that end when all is sent
        self._greeting = b""
        self.dead = False
        self._output.add((_GREETING,))
        self._output.flush()

    @property
    def blocked(self) -> bool:
        """Whether to wait until the line can be written to."""
        return self._output.blocked

    def close(self) -> None:
        """Close the line."""
        self._line.close()

    def resume(self) -> None:
        """Go on where the line can be written to again."""
        if self._output.resume():
            self.flush()

    def read(self) -> None:
        """Take what came, and answer it."""
        try:
            for _ in range(_ROUNDS):
                if self.dead or not self._receive():
                    break
            self.flush()
        except ProtocolError as exc:
            self._output.add((frames.goaway(frames.MAX_STREAM, exc.code, str(exc)),))
            self._output.flush()
            self.dead = True
        except OSError:
            self.dead = True
        self.dead = self.dead or self._output.error is not None

    def begin(self, call: Call) -> None:
        """Begin to answer a stream."""
        stream = call.number.to_bytes(4, "big")
        self._output.add((_HEADERS_START, stream, _HEADERS))
        call.outgoing = Outgoing(call, "", None)
        call.outgoing.window = self._settings.window_bytes

    def answer(self, call: Call) -> None:
        """Answer a unary request."""
        del self.calls[call.number]
        size, stream = self._answer.size_bytes, call.number.to_bytes(4, "big")
        if size <= self._whole_bytes and size <= self._window:
            self._window -= size
            answer = self._answer.prefixed
            self._output.add((_HEADERS_START, stream, _HEADERS, self._start, stream, answer, _OK_START, stream, _OK))
            return
        self.calls[call.number] = call
        self._output.add((_HEADERS_START, stream, _HEADERS))
        call.outgoing = Outgoing(call, "", None)
        call.outgoing.window = self._settings.window_bytes
        self._closing.add(call.number)
        self.write(call, self._answer.parts(b""))

    def answer_message(self, call: Call, request_id: bytes) -> None:
        """Answer a message of a stream: ``error_message`` is empty, ``infer_response`` repeats the id."""
        response = self._message + request_id
        size = _varint(len(response))
        message = b"\x12" + size + response
        self.write(call, (len(message).to_bytes(5, "big"), message))

    def refuse(self, call: Call) -> None:
        """Answer a request for anything else."""
        self.calls.pop(call.number, None)
        self._output.add((frames.frame(frames.HEADERS, _ENDING, call.number, _UNIMPLEMENTED),))

    def end(self, call: Call) -> None:
        """Hear that nothing more is written to a stream."""
        outgoing = call.outgoing
        if outgoing is not None and outgoing.wants:
            self._closing.add(call.number)
        elif self.calls.pop(call.number, None) is not None:
            self._output.add((_OK_START, call.number.to_bytes(4, "big"), _OK))

    def control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Obey a frame that carries nothing of a request."""
        match kind:
            case frames.SETTINGS if not flags & frames.ACK:
                self._update_settings(payload)
                self._output.add((frames.frame(frames.SETTINGS, frames.ACK, 0),))
            case frames.PING if not flags & frames.ACK:
                self._output.add((frames.frame(frames.PING, frames.ACK, 0, payload[:8].ljust(8, b"\0")),))
            case frames.WINDOW_UPDATE:
                self._update_window(stream, frames.number_of(payload, "WINDOW_UPDATE"))
            case frames.RST_STREAM if (call := self.calls.pop(stream, None)) is not None:
                self._closing.discard(stream)
                self._stop_sending(call)

    def give_leave(self, stream: int, more_bytes: int) -> None:
        """Let the client send more."""
        self._output.add((frames.window_update(stream, more_bytes),))

    def ended_early(self, call: Call) -> None:
        """Never happens: a server may answer before a request is complete, a client may not."""

    def _receive(self) -> bool:
        """Receive once; return whether there may be more."""
        unread = self._requests.unread_bytes
        if unread >= RECEIVE_BYTES:
            size = self._line.discard(unread)
            if size:
                self._requests.skip(size)
            self.dead = size == 0
            return bool(size)
        data = self._line.receive()
        if data:
            self._take(data)
        self.dead = data == b""
        return data is not None and len(data) == RECEIVE_BYTES

    def _take(self, data: bytes) -> None:
        if len(self._greeting) < len(frames.PREFACE):
            missing = len(frames.PREFACE) - len(self._greeting)
            self._greeting += data[:missing]
            data = data[missing:]
            if not frames.PREFACE.startswith(self._greeting):
                raise ProtocolError("expected HTTP/2")
        if data:
            self._requests.feed(data, 0)

    def _cut(self, outgoing: Outgoing) -> list[bytes | memoryview]:
        parts, number = super()._cut(outgoing), outgoing.call.number
        if not outgoing.wants and number in self._closing:
            self._closing.discard(number)
            self.calls.pop(number, None)
            parts.append(frames.frame(frames.HEADERS, _ENDING, number, _OK))
        return parts


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
