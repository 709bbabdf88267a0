"""A TCP line between a client and a server, which can be cut, stalled, throttled and refused."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Final, Self

from naiad.client._routing.endpoint import parse_endpoint
from naiad.client.errors import InvalidInput
from naiad.client.testing._connection import Connection, Cut, Direction, Way
from naiad.client.testing._faults import Trouble
from naiad.client.testing._frames import Marks

if TYPE_CHECKING:
    from types import TracebackType

_DIRECTIONS: Final[tuple[Direction, ...]] = ("to_client", "to_server")


class Line:
    """Listens on a port of its own at 127.0.0.1 and passes everything on to ``target``, until it is told otherwise.

    It works in front of any server, the real Triton too::

        with Line(triton.grpc_address) as line, Client(line.url) as client:
            with line.stalled():
                ...                                     # nothing moves
            line.cut_after(1000, direction="to_client") # the next answer breaks off
            line.goaway()                               # HTTP/2: no new calls on these connections, please

    What is called ``stalled``, ``throttled`` and ``refused`` lasts until the block, or ``resume()``; ``cut`` and
    ``goaway`` happen once. It may be used by threads.

    Args:
        target: host and port, or a ``grpc://`` URL.
        port: the port to listen on; 0 for a free one.

    Raises:
        InvalidInput: the target is none.
    """

    def __init__(self, target: str, *, port: int = 0) -> None:
        self._set_up(target, port, None)

    @classmethod
    def _replacing(cls, target: str, port: int, marks: Marks) -> Self:
        """Make the line of a server whose answers may be marks."""
        line = cls.__new__(cls)
        line._set_up(target, port, marks)
        return line

    def _set_up(self, target: str, port: int, marks: Marks | None) -> None:
        self._target = _address(target)
        self._port = port
        self._marks = marks
        self._ways: dict[Direction, Way] = {direction: Way() for direction in _DIRECTIONS}
        self._cuts: list[Cut] = []
        self._connections: set[Connection] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._accepting: threading.Thread | None = None
        self.num_accepted: int = 0
        """How many connections there have been."""
        self.listen()

    @property
    def address(self) -> str:
        """Host and port, as tritonclient takes them."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """The address for :class:`naiad.client.Client`; a secret of the target's URL is not in it."""
        return f"grpc://{self.address}"

    @property
    def num_connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def num_bytes(self, direction: Direction) -> int:
        """Return how many bytes went that way over all connections so far."""
        way = self._way(direction)
        with way.lock:
            return way.num_bytes

    def cut(self) -> None:
        """Break every open connection; both ends see a reset. New connections are taken."""
        for connection in self._open():
            connection.cut()

    def cut_after(self, size_bytes: int, *, direction: Direction = "to_client", times: int | None = 1) -> Trouble:
        """Let that many bytes more go one way over a connection, then break it; the next ``times`` connections."""
        self._way(direction)
        if isinstance(size_bytes, bool) or not isinstance(size_bytes, int) or size_bytes < 0:
            raise InvalidInput(f"size_bytes is a whole number, 0 or more, found {size_bytes!r}")
        cut = Cut(direction, size_bytes, times)
        with self._lock:
            self._cuts = [known for known in self._cuts if known.active] + [cut]
        for connection in self._open():
            connection.arm(cut)
        return cut

    def goaway(self, *, graceful: bool = True) -> None:
        """Say on every open connection that it takes no new calls, as a server does that wants to be rid of it.

        Calls in flight go on, and with ``graceful`` those too that the client begins before it has read this. Otherwise
        these are dropped, and the client is told so: they were not and will not be processed.

        Raises:
            InvalidInput: no open connection carries HTTP/2 that can be read (TLS cannot).
        """
        told = [connection for connection in self._open() if connection.goaway(graceful=graceful)]
        if not told:
            raise InvalidInput("a GOAWAY needs an open connection that carries plain HTTP/2, found none")

    def stalled(self, direction: Direction | None = None) -> Trouble:
        """Move nothing, one way or both, on new connections too; nothing is lost."""
        ways = self._some(direction)

        def set_to(value: bool) -> None:
            for way in ways:
                way.stalled = value
            self._wake()

        set_to(True)
        return Trouble(f"stalled {direction or 'both ways'}", lambda: set_to(False))

    def throttled(self, bytes_per_s: float, direction: Direction | None = None) -> Trouble:
        """Move at most that many bytes in a second over each connection."""
        if isinstance(bytes_per_s, bool) or not isinstance(bytes_per_s, (int, float)) or not bytes_per_s > 0:
            raise InvalidInput(f"bytes_per_s is a number above 0, found {bytes_per_s!r}")
        ways = self._some(direction)

        def set_to(value: float | None) -> None:
            for way in ways:
                way.bytes_per_s = value
            self._wake()

        set_to(bytes_per_s)
        return Trouble(f"throttled to {bytes_per_s:g} bytes/s {direction or 'both ways'}", lambda: set_to(None))

    def refused(self) -> Trouble:
        """Refuse new connections; those that are open stay."""
        self.stop_listening()
        return Trouble("refusing connections", self.listen)

    def resume(self) -> None:
        """End everything that lasts, and cuts that have not happened yet."""
        for way in self._ways.values():
            way.stalled, way.bytes_per_s = False, None
        with self._lock:
            cuts, self._cuts = self._cuts, []
        for cut in cuts:
            cut.end()
        self._wake()
        self.listen()

    def listen(self) -> None:
        """Take connections on the line's port again; without effect if it does.

        Raises:
            OSError: the port was taken by somebody else in between.
        """
        with self._lock:
            if self._listener is not None:
                return
            listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
            self._port = listener.getsockname()[1]
            self._listener = listener
            self._accepting = threading.Thread(target=self._accept, args=(listener,), name="naiad-line", daemon=True)
            self._accepting.start()

    def stop_listening(self) -> None:
        """Refuse new connections until :meth:`listen`."""
        with self._lock:
            listener, self._listener = self._listener, None
            accepting = self._accepting
        if listener is None or accepting is None:
            return
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        accepting.join()
        listener.close()

    def close(self) -> None:
        """Break everything and give the port back. Closing twice does nothing."""
        self.stop_listening()
        for connection in self._open():
            connection.cut()
        for connection in self._open():
            connection.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._listener else ", refusing"
        host, port = self._target
        return f"<Line {self.address} → {host}:{port}, {self.num_connections} open{state}>"

    def lead_to(self, target: str) -> None:
        """Lead new connections to another server."""
        self._target = _address(target)

    def _connection_from(self, peer: str) -> Connection | None:
        """Return the connection that the server knows as ``ipv4:127.0.0.1:PORT``."""
        port = int(peer.rpartition(":")[2])
        return next((connection for connection in self._open() if connection.server_side_port == port), None)

    def _open(self) -> list[Connection]:
        with self._lock:
            return list(self._connections)

    def _wake(self) -> None:
        for connection in self._open():
            connection.wake()

    def _way(self, direction: Direction) -> Way:
        if direction not in _DIRECTIONS:
            raise InvalidInput(f"expected one of the directions {', '.join(_DIRECTIONS)}, found {direction!r}")
        return self._ways[direction]

    def _some(self, direction: Direction | None) -> list[Way]:
        return list(self._ways.values()) if direction is None else [self._way(direction)]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.num_accepted += 1
            connection = Connection(client, self._target, self._ways, self._marks, self._gone)
            with self._lock:
                self._connections.add(connection)
                cuts = [cut for cut in self._cuts if cut.active]
            for cut in cuts:
                connection.arm(cut)
            connection.start()

    def _gone(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)


def _address(target: str) -> tuple[str, int]:
    host, _, port = parse_endpoint(target).target.rpartition(":")
    return host.strip("[]"), int(port)
