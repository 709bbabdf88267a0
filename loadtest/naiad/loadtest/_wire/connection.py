"""One HTTP/2 connection of a client: from its first packet to its end. It never waits and never raises."""

from __future__ import annotations

import struct
import time
from typing import Final

from naiad.loadtest._wire import frames
from naiad.loadtest._wire.calls import Call
from naiad.loadtest._wire.frames import ProtocolError
from naiad.loadtest._wire.line import RECEIVE_BYTES, Line
from naiad.loadtest._wire.output import Output
from naiad.loadtest._wire.receiving import MAX_FRAME_BYTES, Receiver
from naiad.loadtest._wire.requests import RequestHeaders
from naiad.loadtest._wire.seam import Event
from naiad.loadtest._wire.sending import NEVER_NS, Sender
from naiad.loadtest._wire.status import CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, status_of_reset

__all__ = ["Connection"]

CONNECT_S: Final = 5.0
_ROUNDS: Final = 16  # of receiving, before others have their turn
_SCAN_NS: Final = 200  # between two looks at all deadlines, for each call in flight
_GREETING: Final = (
    frames.PREFACE
    + frames.settings(
        {
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW,
            frames.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
        }
    )
    + frames.window_update(0, frames.MAX_WINDOW - frames.FIRST_WINDOW)
)
_CLOSED: Final = "the server closed the connection"
_now_ns: Final = time.perf_counter_ns


class Connection(Sender):
    """Calls on one socket. What comes back, and how calls end, is appended to ``events``."""

    def __init__(self, line: Line, headers: RequestHeaders, events: list[Event], name: str) -> None:
        super().__init__(Output(line), headers)
        self._line, self._events, self._name = line, events, name
        self.fd = line.fileno()
        self.connected = self.established = False
        """Established is it when the server has said its settings."""
        self.retired = self.dead = False
        """Retired, it takes no new calls, because the server or the numbers of streams say so, or it is dead."""
        self.reason = ""
        """Why it is dead."""
        self.due_ns = self._connect_until_ns = _now_ns() + CONNECT_S * 1e9
        self._receiver = Receiver(self, events)
        self._farewell = ""

    @property
    def wants_write(self) -> bool:
        """Whether to wait until the line can be written to."""
        return self._output.blocked if self.connected else self._line.wants_write

    def flush(self) -> None:
        """Hand everything to the kernel that it and the server's windows take."""
        super().flush()
        if self._output.error is not None and not self.dead:
            self.read()  # the server's last words, if there are any
            self.lose(f"the connection broke: {_text_of(self._output.error)}")
        self.retired = self.retired or self.exhausted

    def resume(self) -> None:
        """Go on where the line can be written to again."""
        if not self.connected:
            self._connect()
        elif self._output.resume():
            self.flush()

    def read(self) -> None:
        """Take what came."""
        if not self.connected:
            self._connect()
        try:
            for _ in range(_ROUNDS):
                if self.dead or not self.connected or not self._receive():
                    break
        except ProtocolError as exc:
            self._output.add((frames.goaway(0, exc.code, str(exc)),))
            self._output.flush()
            self.lose(f"the server broke the rules of HTTP/2: {exc}")
        except OSError as exc:
            self.lose(f"the connection broke: {_text_of(exc)}")

    def expire(self, now_ns: int) -> None:
        """End what has no time left."""
        if now_ns < self.due_ns:
            return
        if not self.established and now_ns >= self._connect_until_ns:
            self.lose(f"no HTTP/2 connection within {CONNECT_S:g} s")
        calls = self._all_calls()
        due_ns = NEVER_NS if self.established or self.dead else self._connect_until_ns
        for call in calls:
            if call.deadline_ns <= now_ns:
                self.end(call, DEADLINE_EXCEEDED, "no answer within the request's timeout")
            else:
                due_ns = min(due_ns, call.deadline_ns)
        self.due_ns = max(due_ns, now_ns + _SCAN_NS * len(calls))

    def cancel(self, token: int) -> None:
        """End a call with CANCELLED, if it has not ended."""
        for call in self._all_calls():
            if call.token == token:
                self.end(call, CANCELLED, "cancelled by the load test")
                return

    def end(self, call: Call, status: int, details: str) -> None:
        """End a call from here."""
        if self.calls.pop(call.number, None) is not None:
            self._output.add((frames.rst_stream(call.number, frames.CANCEL),))
        self._stop_sending(call)
        self._emit(call, status, details)

    def lose(self, reason: str) -> None:
        """End the connection, and the calls on it. Those that wait for a stream are left to the caller."""
        if self.dead:
            return
        self.dead = self.retired = True
        self.reason = f"{self._name}: {self._farewell or reason}"
        self._line.close()
        self._max_calls = 0
        calls = [*self.calls.values()]
        self.calls.clear()
        self._sending.clear()
        for call in calls:
            self._emit(call, UNAVAILABLE, self.reason)

    def fail_waiting(self) -> None:
        """End what waits for a stream, because there will be none."""
        for outgoing in [*self.waiting]:
            self.end(outgoing.call, UNAVAILABLE, self.reason)

    def close(self) -> None:
        """Say goodbye; what is in flight ends without events."""
        if self.connected and not self.dead:
            resets = (frames.rst_stream(number, frames.CANCEL) for number in self.calls)
            self._output.add((*resets, frames.goaway(0, frames.NO_ERROR)))
            self._output.flush()
        self.dead = self.retired = True
        self._line.close()

    def control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Obey a frame that carries nothing of an answer."""
        if not self.established and kind != frames.SETTINGS:
            raise ProtocolError("the server does not begin with SETTINGS")
        match kind:
            case frames.SETTINGS if not flags & frames.ACK:
                self._update_settings(payload)
                self._max_calls = 0 if self.retired else self._max_calls
                self._output.add((frames.frame(frames.SETTINGS, frames.ACK, 0),))
                self.established = True
            case frames.PING if not flags & frames.ACK:
                self._output.add((frames.frame(frames.PING, frames.ACK, 0, payload[:8].ljust(8, b"\0")),))
            case frames.WINDOW_UPDATE:
                self._update_window(stream, frames.number_of(payload, "WINDOW_UPDATE"))
            case frames.RST_STREAM:
                self._reset(stream, frames.number_of(payload, "RST_STREAM"))
            case frames.GOAWAY:
                self._leave(payload)
            case frames.PUSH_PROMISE:
                raise ProtocolError("the server pushes, which it was told not to")

    def ended_early(self, call: Call) -> None:
        """Stop sending for a call that the server has ended."""
        self._output.add((frames.rst_stream(call.number, frames.NO_ERROR),))
        self._stop_sending(call)

    def give_leave(self, stream: int, more_bytes: int) -> None:
        """Let the server send more."""
        self._output.add((frames.window_update(stream, more_bytes),))

    def _connect(self) -> None:
        try:
            if not self._line.advance():
                return
        except OSError as exc:
            self.lose(f"cannot connect: {_text_of(exc)}")
            return
        self.connected = True
        self._output.add((_GREETING,))
        self.flush()

    def _receive(self) -> bool:
        """Receive once; return whether there may be more."""
        receiver = self._receiver
        if (target := receiver.target()) is not None:
            with target:
                size = self._line.receive_into(target)
                full = size == len(target)
            if size:
                receiver.filled(size, _now_ns())
                return full or self._line.hides_bytes
            more = None if size is None else b""
        else:
            more = self._line.receive()
            if more:
                receiver.feed(more, _now_ns())
                return len(more) == RECEIVE_BYTES or self._line.hides_bytes or receiver.target() is not None
        if more is not None:
            self.lose(_CLOSED)
        return False

    def _all_calls(self) -> list[Call]:
        return [*self.calls.values(), *(outgoing.call for outgoing in self.waiting)]

    def _emit(self, call: Call, status: int, details: str) -> None:
        self._events.append(Event(call.token, _now_ns(), True, status, details))

    def _reset(self, stream: int, code: int) -> None:
        if (call := self.calls.pop(stream, None)) is not None:
            self._stop_sending(call)
            status, details = call.problem or status_of_reset(code)
            self._emit(call, status, details)

    def _leave(self, payload: bytes) -> None:
        """Open no new calls; those that the server has not begun end, the others go on."""
        if len(payload) < 8:
            raise ProtocolError(f"GOAWAY has at least 8 bytes, found {len(payload)}", frames.FRAME_SIZE_ERROR)
        last, code = struct.unpack_from(">II", payload)
        self.retired, self._max_calls = True, 0
        text = payload[8:].decode("utf-8", "replace")
        self._farewell = f"{_CLOSED} (error {code}: {text or 'no reason given'})" if code else _CLOSED
        for number in [number for number in self.calls if number > last & frames.MAX_STREAM]:
            call = self.calls.pop(number)
            self._stop_sending(call)
            self._emit(call, UNAVAILABLE, f"{self._name}: {self._farewell} before it began with this request")


def _text_of(exc: OSError) -> str:
    return exc.strerror or str(exc)
