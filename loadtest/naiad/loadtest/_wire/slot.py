"""One of a wire's connections, which is made anew when it is lost."""

from __future__ import annotations

import socket
import time
from typing import Final

from naiad.loadtest._wire.connection import Connection
from naiad.loadtest._wire.line import Address, BrokenLine, Line, open_line
from naiad.loadtest._wire.peer import Peer
from naiad.loadtest._wire.requests import RequestHeaders
from naiad.loadtest._wire.seam import Event

__all__ = ["Slot"]

_FIRST_PAUSE_S: Final = 0.05
_MAX_PAUSE_S: Final = 1.0
_now_ns: Final = time.perf_counter_ns


class Slot:
    """The present connection, and former ones that end what they have begun.

    After an attempt that failed, nobody connects for a while (0.05 s, doubled up to 1 s); what is to be sent then fails
    at once, as it does with the gRPC library.
    """

    def __init__(self, peer: Peer, events: list[Event]) -> None:
        self._peer, self._events = peer, events
        self._addresses: list[Address] = []
        self._address = 0
        self._pause_s = _FIRST_PAUSE_S
        self._not_before_ns = 0.0
        self.connections: list[Connection] = []
        self.current = self._connect()

    @property
    def connecting(self) -> bool:
        """Whether it is not yet known if there is a connection."""
        return not self.current.established and not self.current.dead

    @property
    def untidy(self) -> bool:
        """Whether there may be something for :meth:`tidy` to do."""
        return self.current.retired or len(self.connections) > 1

    def renewed(self) -> Connection:
        """Return a new connection, or the dead one while none is to be tried."""
        self.tidy()
        if self.current.retired and (not self.current.dead or _now_ns() >= self._not_before_ns):
            self._succeed()
        return self.current

    def tidy(self) -> bool:
        """Take leave of connections that have ended; return whether there is a new one, for what waits for one."""
        renewed = self._look_at_current()
        if self.current.dead:
            self.current.fail_waiting()
        for connection in [*self.connections]:
            if connection.retired and not connection.calls:
                connection.close()
                self.connections.remove(connection)
        return renewed

    def close(self) -> None:
        """Close all."""
        for connection in self.connections:
            connection.close()

    def _look_at_current(self) -> bool:
        current = self.current
        if current.established:
            self._pause_s, self._not_before_ns = _FIRST_PAUSE_S, 0.0
            if current.retired and not current.dead and current.waiting:
                return self._succeed()
        elif current.dead and current in self.connections:
            self._address += 1
            if self._address < len(self._addresses):
                return self._succeed()  # the name has more addresses
            self._address = 0
            self._not_before_ns = _now_ns() + self._pause_s * 1e9
            self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
        return False

    def _succeed(self) -> bool:
        former, self.current = self.current, self._connect()
        self.current.adopt(former.waiting)
        return True

    def _connect(self) -> Connection:
        peer = self._peer
        headers = RequestHeaders("http" if peer.tls is None else "https", peer.authority, peer.headers)
        connection = Connection(self._line(), headers, self._events, peer.authority)
        connection.resume()
        self.connections.append(connection)
        return connection

    def _line(self) -> Line:
        """Open a socket; why it cannot be had shows when the connection looks at it."""
        try:
            if not self._addresses:
                self._addresses = socket.getaddrinfo(self._peer.host, self._peer.port, type=socket.SOCK_STREAM)
            return open_line(self._addresses[self._address], self._peer.host, self._peer.tls)
        except OSError as exc:
            return BrokenLine(exc)
