"""The sending half of a client's HTTP/2 connection: opens calls and keeps to the server's windows and limits."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from naiad.loadtest._wire import frames
from naiad.loadtest._wire.calls import SMALL_BYTES, Call, Outgoing, Prepared
from naiad.loadtest._wire.frames import ProtocolError, Settings
from naiad.loadtest._wire.output import Output
from naiad.loadtest._wire.requests import MODEL_INFER, MODEL_STREAM_INFER, RequestHeaders

__all__ = ["NEVER_NS", "Sender"]

NEVER_NS: Final = float("inf")
_WRITE_BYTES: Final = 1 << 20  # at a time, so that small requests get in between
_LAST_STREAM: Final = frames.MAX_STREAM - 1_000_000
_now_ns: Final = time.perf_counter_ns


class Sender:
    """Calls and what is sent for them."""

    def __init__(self, output: Output, headers: RequestHeaders) -> None:
        self._output, self._headers = output, headers
        self.calls: dict[int, Call] = {}
        """Those that have a stream."""
        self.waiting: deque[Outgoing] = deque()
        """What has no stream yet."""
        self.due_ns = NEVER_NS
        """No call has to be ended for its time before this."""
        self.next_stream = 1
        self._settings = Settings()
        self._max_calls = 0  # none, before the server has said its settings
        self._window = frames.FIRST_WINDOW
        self._whole_bytes = 0  # what is small, and fits one frame and the window of a new stream
        self._sending: deque[Outgoing] = deque()  # what has a stream, and more to send

    def send(self, prepared: Prepared, token: int, timeout_s: float, suffix: bytes) -> int:
        """Send a unary request; return when it left."""
        size, calls = prepared.size_bytes + len(suffix), self.calls
        if size > self._whole_bytes or size > self._window or self.waiting or len(calls) >= self._max_calls:
            return self._queue(prepared.parts(suffix), token, timeout_s)
        if suffix:
            start = frames.start(frames.DATA, frames.END_STREAM, size)
            body = b"".join(prepared.parts(suffix))
        else:
            start, body = prepared.start, prepared.prefixed
        opening = self._headers.unary.get(timeout_s) or self._headers.get(MODEL_INFER, timeout_s)
        number = self.next_stream
        self.next_stream = number + 2
        self._window -= size
        stream = number.to_bytes(4, "big")
        now_ns = self._output.add((opening.start, stream, opening.block, start, stream, body))
        deadline_ns = now_ns + opening.timeout_ns
        if deadline_ns < self.due_ns:
            self.due_ns = deadline_ns
        calls[number] = call = Call(token, deadline_ns)
        call.number = number
        return now_ns

    def open_stream(self, token: int, timeout_s: float | None) -> Call:
        """Open a stream."""
        call = self._begin(token, MODEL_STREAM_INFER, timeout_s).call
        call.stream = True
        self._pump()
        return call

    def write(self, call: Call, parts: tuple[bytes, ...], *, ends: bool = False) -> int:
        """Send a message on a stream, and maybe its end; return when its first byte left, or would have."""
        now_ns = _now_ns()
        if (outgoing := call.outgoing) is not None:
            if call.number and not outgoing.wants:
                size = sum(map(len, parts))
                if not ends and size <= min(self._window, outgoing.window, self._whole_bytes):
                    self._window -= size
                    outgoing.window -= size
                    start = frames.start(frames.DATA, 0, size)
                    return self._output.add((start, call.number.to_bytes(4, "big"), *parts))
                self._sending.append(outgoing)
            outgoing.add(*parts)
            outgoing.ends = outgoing.ends or ends
            self._pump()
        return now_ns

    def flush(self) -> None:
        """Hand everything to the kernel that it and the server's windows take."""
        if self._output.flush() and (self.waiting or self._sending):
            self._pump()

    @property
    def exhausted(self) -> bool:
        """Whether the numbers for streams come to their end."""
        return self.next_stream > _LAST_STREAM

    def adopt(self, waiting: deque[Outgoing]) -> None:
        """Take over what waits for a stream on a connection that gives none any more."""
        for outgoing in waiting:
            self.due_ns = min(self.due_ns, outgoing.call.deadline_ns)
        self.waiting.extend(waiting)
        waiting.clear()

    def _update_settings(self, payload: bytes) -> None:
        settings = self._settings
        window, table = settings.window_bytes, settings.table_bytes
        settings.update(payload)
        if settings.table_bytes != table and min(settings.table_bytes, table) < frames.FIRST_TABLE_BYTES:
            self._headers.shrink(settings.table_bytes)
        self._max_calls = settings.max_streams
        self._whole_bytes = min(settings.max_frame_bytes, settings.window_bytes, SMALL_BYTES)
        for call in self.calls.values():
            if call.outgoing is not None:
                call.outgoing.window += settings.window_bytes - window

    def _update_window(self, stream: int, more_bytes: int) -> None:
        if not more_bytes:
            raise ProtocolError("WINDOW_UPDATE gives no bytes")
        if stream == 0:
            self._window += more_bytes
            if self._window > frames.MAX_WINDOW:
                raise ProtocolError("WINDOW_UPDATE gives more than a window may have", frames.FLOW_CONTROL_ERROR)
        elif (call := self.calls.get(stream)) is not None and call.outgoing is not None:
            call.outgoing.window += more_bytes

    def _stop_sending(self, call: Call) -> None:
        """Drop what is left to send for a call that has ended."""
        if (outgoing := call.outgoing) is not None:
            if not call.number:
                self.waiting.remove(outgoing)
            outgoing.stop()

    def _queue(self, parts: tuple[bytes, ...], token: int, timeout_s: float) -> int:
        """Send a unary request as far as the server's limits allow, the rest when they do.

        It leaves with its first byte: a server on this machine may take the core away before the last is written.
        """
        now_ns = _now_ns()
        outgoing = self._begin(token, MODEL_INFER, timeout_s)
        outgoing.add(*parts)
        outgoing.ends = True
        self._pump()
        return now_ns

    def _begin(self, token: int, method: str, timeout_s: float | None) -> Outgoing:
        call = Call(token, NEVER_NS if timeout_s is None else _now_ns() + timeout_s * 1e9)
        self.due_ns = min(self.due_ns, call.deadline_ns)
        call.outgoing = outgoing = Outgoing(call, method, timeout_s)
        self.waiting.append(outgoing)
        return outgoing

    def _pump(self) -> None:
        """Open calls that wait, and send what the windows allow, in turn."""
        while True:
            while self.waiting and len(self.calls) < self._max_calls:
                self._open(self.waiting.popleft())
            if not self._output.flush():
                return
            parts = self._next_parts()
            if not parts or not self._output.write(parts):
                return

    def _open(self, outgoing: Outgoing) -> None:
        call, opening = outgoing.call, self._headers.get(outgoing.method, outgoing.timeout_s)
        call.number, self.next_stream = self.next_stream, self.next_stream + 2
        self.calls[call.number] = call
        outgoing.window = self._settings.window_bytes
        self._output.add((opening.start, call.number.to_bytes(4, "big"), opening.block))
        if outgoing.wants:
            self._sending.append(outgoing)

    def _next_parts(self) -> list[bytes | memoryview]:
        """Return frames of what is to be sent, each call's in its turn."""
        parts: list[bytes | memoryview] = []
        for _ in range(len(self._sending)):
            outgoing = self._sending.popleft()
            parts += self._cut(outgoing)
            if outgoing.wants:
                self._sending.append(outgoing)
            if parts:
                break
        return parts

    def _cut(self, outgoing: Outgoing) -> list[bytes | memoryview]:
        before = outgoing.left_bytes
        parts = outgoing.cut(min(self._window, _WRITE_BYTES), self._settings.max_frame_bytes)
        self._window -= before - outgoing.left_bytes
        return parts
