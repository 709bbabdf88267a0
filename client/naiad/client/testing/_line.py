"""A TCP line between a client and a server, which can be cut, stalled, throttled and refused."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, Literal, Self

from naiad.client._routing.endpoint import parse_endpoint
from naiad.client.errors import InvalidInput
from naiad.client.testing import http2
from naiad.client.testing._faults import Trouble
from naiad.client.testing._frames import Frames, FramesToClient, FramesToServer, Marks

if TYPE_CHECKING:
    from types import TracebackType

Direction = Literal["to_client", "to_server"]
_DIRECTIONS: Final[tuple[Direction, ...]] = ("to_client", "to_server")
_CHUNK_BYTES: Final = 1 << 18
_CONNECT_S: Final = 10.0
_TICK_S: Final = 0.02  # how finely a throttled line lets bytes through
_LAST_STREAM: Final = 2**31 - 1  # "all that you have begun"
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what is not sent, and resets


class Way:
    """One direction of a line: what holds for it on every connection."""

    def __init__(self) -> None:
        self.stalled = False
        self.bytes_per_s: float | None = None
        self.num_bytes = 0
        self.lock = threading.Lock()


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

    def __init__(self, target: str, *, port: int = 0, marks: Marks | None = None) -> None:
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
        if marks is None:
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

    # What happens once.

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

    # What lasts.

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


class Cut(Trouble):
    """A break that waits for enough bytes."""

    def __init__(self, direction: Direction, size_bytes: int, times: int | None) -> None:
        super().__init__(f"cut after {size_bytes} bytes {direction}", times=times)
        self.direction = direction
        self.size_bytes = size_bytes


class Connection:
    """A client's connection and the one to the server that belongs to it, moved by one thread."""

    def __init__(
        self,
        client: socket.socket,
        target: tuple[str, int],
        ways: dict[Direction, Way],
        marks: Marks | None,
        gone: Callable[[Connection], None],
    ) -> None:
        self._client, self._target, self._ways, self._gone = client, target, ways, gone
        self._to_server = FramesToServer()
        self._frames: dict[Direction, Frames] = {"to_client": FramesToClient(marks), "to_server": self._to_server}
        self._cuts: list[tuple[Cut, list[int]]] = []
        self._broken = False
        self._goaway: Literal["graceful", "abrupt"] | None = None
        self._lock = threading.Lock()
        self._bell, self._ear = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="naiad-line-connection", daemon=True)
        self.server_side_port = 0

    def start(self) -> None:
        """Begin to move bytes."""
        self._thread.start()

    def join(self) -> None:
        """Wait until it is closed."""
        if self._thread is not threading.current_thread():
            self._thread.join(10.0)

    def wake(self) -> None:
        """Look again at what the line wants."""
        with contextlib.suppress(OSError):
            self._bell.send(b"!")

    def cut(self) -> None:
        """Break both sides at once."""
        self._broken = True
        self.wake()

    def arm(self, cut: Cut) -> None:
        """Break when that many bytes more went one way."""
        with self._lock:
            self._cuts.append((cut, [cut.size_bytes]))

    def goaway(self, *, graceful: bool) -> bool:
        """Say GOAWAY between two frames; ``False`` if this is no HTTP/2 as far as one can see."""
        if self._frames["to_client"].readable is not True:
            return False
        self._goaway = "graceful" if graceful else "abrupt"
        self.wake()
        return True

    def _run(self) -> None:
        server = None
        try:
            server = socket.create_connection(self._target, _CONNECT_S)
            self.server_side_port = server.getsockname()[1]
            self._move(server)
        except OSError:
            self._broken = True  # whatever happened to one side happens to the other
        finally:
            self._gone(self)
            for side in (self._client, server):
                if side is not None:
                    if self._broken:
                        with contextlib.suppress(OSError):
                            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    side.close()
            self._bell.close()
            self._ear.close()

    def _move(self, server: socket.socket) -> None:
        pipes: dict[Direction, Pipe] = {
            "to_server": Pipe(self._client, server, self._ways["to_server"]),
            "to_client": Pipe(server, self._client, self._ways["to_client"]),
        }
        for side in (self._client, server, self._ear):
            side.setblocking(False)
        for side in (self._client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not all(pipe.finished for pipe in pipes.values()):
            for direction, pipe in pipes.items():
                pipe.take()
                self._transform(pipe, direction)
                pipe.give()
                self._broken |= pipe.cut_off
            if self._broken:
                return
            self._wait(pipes.values())

    def _transform(self, pipe: Pipe, direction: Direction) -> None:
        fresh = pipe.fresh()
        frames = self._frames[direction]
        if direction == "to_client" and self._goaway and frames.between_frames:
            pipe.add(http2.goaway(_LAST_STREAM if self._goaway == "graceful" else self._to_server.close()))
            self._goaway = None
        if fresh:
            data = frames.feed(fresh)
            size = self._size_until_cut(len(data), direction)
            pipe.add(data[:size], last=size < len(data) or frames.cut)

    def _size_until_cut(self, size: int, direction: Direction) -> int:
        with self._lock:
            for cut, left in self._cuts:
                if cut.direction != direction or not cut.active:
                    continue
                if size > left[0] and cut.strike():
                    return left[0]
                left[0] -= size
        return size

    def _wait(self, pipes: Iterable[Pipe]) -> None:
        poll = select.poll()
        poll.register(self._ear, select.POLLIN)
        events: dict[int, int] = {}
        pause_s: float | None = None
        for pipe in pipes:
            for side, event in pipe.waits_for():
                events[side] = events.get(side, 0) | event
            pause_s = pipe.pause_s if pause_s is None else pause_s
        for side, event in events.items():
            poll.register(side, event)
        for side, _ in poll.poll(None if pause_s is None else pause_s * 1000):
            if side == self._ear.fileno():
                with contextlib.suppress(BlockingIOError):
                    self._ear.recv(4096)


class Pipe:
    """The bytes on their way from one socket to another."""

    def __init__(self, source: socket.socket, sink: socket.socket, way: Way) -> None:
        self._source, self._sink, self._way = source, sink, way
        self._taken = b""
        self._pending = bytearray()
        self._at_end = self._last = self.finished = False
        self._allowance, self._refilled = 0.0, time.monotonic()

    @property
    def cut_off(self) -> bool:
        """Whether the last bytes before a cut are gone."""
        return self._last and not self._pending

    @property
    def pause_s(self) -> float | None:
        """How long a throttled pipe waits before it moves the next bytes."""
        return _TICK_S if self._way.bytes_per_s is not None and self._pending else None

    def take(self) -> None:
        """Read what is there, unless enough waits already."""
        if not self._takes:
            return
        try:
            self._taken = self._source.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        self._at_end = not self._taken

    def fresh(self) -> bytes:
        """Return what was read last, once."""
        taken, self._taken = self._taken, b""
        return taken

    def add(self, data: bytes, *, last: bool = False) -> None:
        """Send this next, and nothing after it with ``last``."""
        self._pending += data
        self._last = last

    def give(self) -> None:
        """Send what may be sent now."""
        if self._way.stalled or self.finished:
            return
        size = min(len(self._pending), self._allowed())
        if size:
            with contextlib.suppress(BlockingIOError), memoryview(self._pending) as view:
                with self._way.lock:  # who has got the bytes finds them counted
                    size = self._sink.send(view[:size])
                    self._way.num_bytes += size
                self._allowance -= size
                view.release()
                del self._pending[:size]
        if self._at_end and not self._pending:
            self.finished = True
            self._sink.shutdown(socket.SHUT_WR)

    def waits_for(self) -> Iterator[tuple[int, int]]:
        """Give the sockets, and what must happen there, before anything can move."""
        if self._way.stalled:
            return
        if self._takes:
            yield self._source.fileno(), select.POLLIN
        if self._pending and self._way.bytes_per_s is None:
            yield self._sink.fileno(), select.POLLOUT

    @property
    def _takes(self) -> bool:
        return not (self._at_end or self._last or self._way.stalled or len(self._pending) >= _CHUNK_BYTES)

    def _allowed(self) -> int:
        rate = self._way.bytes_per_s
        now = time.monotonic()
        if rate is None:
            self._refilled = now
            return len(self._pending)
        self._allowance = min(self._allowance + rate * (now - self._refilled), max(rate * _TICK_S * 2, 1.0))
        self._refilled = now
        return int(self._allowance)


def _address(target: str) -> tuple[str, int]:
    host, _, port = parse_endpoint(target).target.rpartition(":")
    return host.strip("[]"), int(port)
