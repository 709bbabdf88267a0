"""Our own HTTP/2 as a wire: one thread, sockets that never wait, and as little work for each request as can be."""

from __future__ import annotations

import time
from typing import Final

from naiad.loadtest._wire.calls import Call, Prepared
from naiad.loadtest._wire.connection import Connection
from naiad.loadtest._wire.peer import Peer
from naiad.loadtest._wire.seam import Event
from naiad.loadtest._wire.sending import NEVER_NS
from naiad.loadtest._wire.slot import Slot
from naiad.loadtest._wire.waiting import sleep_precisely, wait

__all__ = ["Http2Wire"]

_READY_S: Final = 10.0
_now_ns: Final = time.perf_counter_ns


class Http2Wire:
    """One or more connections, used in turn. The constructor waits until they stand, or cannot be had."""

    def __init__(self, peer: Peer, connections: int) -> None:
        self._events: list[Event] = []
        self._slots = [Slot(peer, self._events) for _ in range(connections)]
        self._turn = 0
        self._streams: dict[int, tuple[Connection, Call]] = {}
        sleep_precisely()
        until_ns = _now_ns() + _READY_S * 1e9
        while any(slot.connecting for slot in self._slots) and _now_ns() < until_ns:
            self._step(0.1)

    def prepare(self, message: bytes) -> Prepared:
        """Frame a request."""
        return Prepared(message)

    def send(self, prepared: Prepared, token: int, timeout_s: float, suffix: bytes = b"") -> int:
        """Send a unary request."""
        return self._next().send(prepared, token, timeout_s, suffix)

    def open_stream(self, token: int, timeout_s: float | None) -> None:
        """Open a stream."""
        connection = self._next()
        self._streams[token] = connection, connection.open_stream(token, timeout_s)

    def write(self, prepared: Prepared, token: int, suffix: bytes = b"") -> int:
        """Write to a stream; nothing happens where it has ended."""
        if (found := self._streams.get(token)) is None:
            return _now_ns()
        connection, call = found
        return connection.write(call, prepared.parts(suffix))

    def close_stream(self, token: int) -> None:
        """End the sending half of a stream."""
        if (found := self._streams.get(token)) is not None:
            connection, call = found
            connection.write(call, (), ends=True)

    def cancel(self, token: int) -> None:
        """Give up a call."""
        for slot in self._slots:
            for connection in slot.connections:
                connection.cancel(token)

    def flush(self) -> None:
        """Hand to the kernel what was sent."""
        for slot in self._slots:
            slot.current.flush()

    def poll(self, timeout_s: float) -> list[Event]:
        """Flush, wait, and return what came back."""
        until_ns = _now_ns() + timeout_s * 1e9
        self._step(timeout_s)
        while not self._events and (left_ns := until_ns - _now_ns()) > 0:
            self._step(left_ns / 1e9)  # what came was not for a call
        events = self._events[:]
        self._events.clear()
        if self._streams:
            for event in events:
                if event.ended:
                    self._streams.pop(event.token, None)
        return events

    def close(self) -> None:
        """Close the connections."""
        for slot in self._slots:
            slot.close()

    def _next(self) -> Connection:
        slots = self._slots
        turn = self._turn + 1
        self._turn = turn = 0 if turn >= len(slots) else turn
        slot = slots[turn]
        return slot.renewed() if slot.current.retired else slot.current

    def _step(self, timeout_s: float) -> None:
        """Send what is due, wait for sockets and deadlines, and receive."""
        readers, writers, due_ns = {}, [], NEVER_NS
        for slot in self._slots:
            for connection in slot.connections:
                connection.flush()
            while slot.untidy and slot.tidy():
                pass  # the new connection may have come to nothing already
            for connection in slot.connections:
                if connection.dead:
                    continue
                readers[connection.fd] = connection
                if connection.wants_write:
                    writers.append(connection.fd)
                if connection.due_ns < due_ns:
                    due_ns = connection.due_ns
        if self._events:
            timeout_s = 0.0
        elif due_ns != NEVER_NS:
            timeout_s = min(timeout_s, (due_ns - _now_ns()) / 1e9)
        readable, writable = wait(readers, writers, timeout_s)
        for number in writable:
            readers[number].resume()
        for number in readable:
            readers[number].read()
        now_ns = _now_ns()
        if now_ns >= due_ns:
            for connection in readers.values():
                connection.expire(now_ns)
        for slot in self._slots:
            if slot.untidy:
                slot.tidy()
