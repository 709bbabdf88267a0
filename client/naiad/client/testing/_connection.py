"""One connection over a line: two sockets, and the bytes between them."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

from naiad.client.testing import http2
from naiad.client.testing._faults import Trouble
from naiad.client.testing._frames import Frames, FramesToClient, FramesToServer, Marks

Direction = Literal["to_client", "to_server"]
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
