"""The line, in front of servers that know nothing of it."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from naiad.client import Client, DeadlineExceeded, InvalidInput, Retry, ServerUnavailable
from naiad.client.testing import FakeModel, FakeTriton, Line

X = {"x": np.ones((1, 3), np.float32)}


class Echo:
    """A server that sends back what it gets, connection by connection."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self.echo, args=(connection,), daemon=True).start()

    def echo(self, connection: socket.socket) -> None:
        try:
            while data := connection.recv(1 << 16):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        if self.listener.fileno() >= 0:
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def line(echo) -> Iterator[Line]:
    with Line(echo.address) as line:
        yield line


def connect(line: Line) -> socket.socket:
    host, _, port = line.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.settimeout(10)
    return connection


def read(connection: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size and (part := connection.recv(size - len(parts))):
        parts += part
    return parts


def test_bytes_pass_both_ways_and_are_counted(line):
    """What is no HTTP/2 passes untouched, and ends when one side ends."""
    data = np.random.default_rng(0).bytes(3_000_000)
    with connect(line) as connection, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(connection.sendall, data)
        assert read(connection, len(data)) == data
        sending.result()
        assert (line.num_bytes("to_server"), line.num_bytes("to_client")) == (len(data), len(data))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert line.num_accepted == 1


def test_a_cut_resets_what_is_open(line):
    """The next connection works."""
    with connect(line) as connection:
        connection.sendall(b"a")
        assert connection.recv(1) == b"a"
        line.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connect(line) as connection:
        connection.sendall(b"b")
        assert connection.recv(1) == b"b"


@pytest.mark.parametrize("direction", ["to_client", "to_server"])
def test_a_cut_after_some_bytes_lets_just_these_through(line, direction):
    """Both ways, on a connection that is open and on the next one, as often as asked."""
    with connect(line) as connection:
        connection.sendall(b"a")
        assert connection.recv(1) == b"a"
        cut = line.cut_after(10, direction=direction, times=2)
        connection.sendall(b"0123456789abcdef")
        with pytest.raises(ConnectionResetError):
            read(connection, 100)
    with connect(line) as connection:
        connection.sendall(b"x" * 10)
        assert read(connection, 10) == b"x" * 10
        connection.sendall(b"y")
        with pytest.raises(ConnectionResetError):
            read(connection, 1)
    assert (cut.num_struck, cut.active) == (2, False)
    with connect(line) as connection:
        connection.sendall(b"x" * 50)
        assert read(connection, 50) == b"x" * 50


def test_what_is_stalled_comes_later(line):
    """Nothing moves, and nothing is lost; one way alone can be stalled."""
    with connect(line) as connection:
        with line.stalled("to_client"):
            connection.sendall(b"abc")
            while line.num_bytes("to_server") < 3:
                pass
            connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.recv(3)
        connection.settimeout(10)
        assert read(connection, 3) == b"abc"
        line.stalled()
        line.resume()
        connection.sendall(b"d")
        assert connection.recv(1) == b"d"


def test_a_throttled_line_delivers_everything(line):
    """However slowly; and at once when it is over."""
    data = bytes(range(256)) * 400
    with connect(line) as connection:
        with line.throttled(2_000_000):
            connection.sendall(data)
            assert read(connection, len(data)) == data
        connection.sendall(data)
        assert read(connection, len(data)) == data
        with line.throttled(10.0, "to_client"):
            connection.sendall(b"x" * 1000)
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                while True:
                    assert len(connection.recv(1000)) < 100
        connection.settimeout(10)
        assert connection.recv(1)


def test_new_connections_are_refused_for_a_while(line):
    """Open ones stay, and the port is the same afterwards."""
    with connect(line) as connection:
        connection.sendall(b"a")
        assert connection.recv(1) == b"a"
        with line.refused():
            with pytest.raises(ConnectionRefusedError):
                connect(line)
            connection.sendall(b"a")
            assert connection.recv(1) == b"a"
            assert "refusing" in repr(line)
        with connect(line) as other:
            other.sendall(b"b")
            assert other.recv(1) == b"b"


def test_a_server_that_is_not_there_breaks_the_connection(line, echo):
    """As if the line were not."""
    echo.close()
    with pytest.raises(ConnectionResetError), connect(line) as connection:
        connection.recv(1)


def test_a_closed_line_leaves_nothing():
    """No thread, no connection, no port; closing twice does nothing."""
    before = set(threading.enumerate())
    server = Echo()
    line = Line(server.address)
    with connect(line) as connection:
        connection.sendall(b"a")
        assert connection.recv(1) == b"a"
        line.close()
        line.close()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(line)
    server.close()
    assert {thread for thread in set(threading.enumerate()) - before if "naiad" in thread.name} == set()


def test_a_client_calls_through_it():
    """Calls fail with the line and work with it; a secret in the target's address does not get into its own."""
    with (
        FakeTriton({"m": lambda x: {"y": x}}) as fake,
        Line(fake.url.replace("//", "//:secret@")) as line,
        Client(line.url, retry=Retry(attempts=1)) as client,
    ):
        assert "secret" not in line.url + repr(line)
        assert client.infer("m", X)["y"].shape == (1, 3)
        with line.stalled(), pytest.raises(DeadlineExceeded):
            client.infer("m", X, timeout_s=0.3)
        assert client.infer("m", X)["y"].shape == (1, 3)
        line.cut_after(100)
        with pytest.raises(ServerUnavailable):
            while True:
                client.infer("m", X)


def test_a_goaway_is_said_on_any_http2_connection():
    """The server behind the line knows nothing of it, and every call is answered."""
    with FakeTriton({"m": FakeModel(lambda x: {"y": x}, inputs={"x": "FP32[-1,3]"})}) as fake, Line(fake.url) as line:
        with Client(line.url) as client:
            for _ in range(20):
                client.infer("m", X)
                line.goaway()
            while line.num_accepted < 2:
                client.infer("m", X)
        with connect(line) as connection:
            connection.sendall(b"no HTTP/2 at all, and nothing that looks like it\r\n")
            assert connection.recv(100)


def test_a_goaway_needs_http2(line):
    """Bytes of another protocol cannot carry one."""
    with connect(line) as connection:
        connection.sendall(b"x" * 100)
        assert read(connection, 100) == b"x" * 100
        with pytest.raises(InvalidInput, match="plain HTTP/2, found none"):
            line.goaway()


@pytest.mark.parametrize("target", ["nowhere:port", "http://127.0.0.1:1", "a:1,b:2"])
def test_a_wrong_target_is_refused(target):
    """Before anything listens."""
    with pytest.raises(InvalidInput):
        Line(target)
