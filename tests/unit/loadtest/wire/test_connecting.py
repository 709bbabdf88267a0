"""How our HTTP/2 finds its server, and what it does where there is none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from naiad.client import InvalidInput
from naiad.client.testing import http2
from naiad.loadtest._wire.frames import settings
from wire_helpers import LONG_S, answer_to, command, ends_of, programmed_server, wire_to


@contextmanager
def server_of(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that talks as told with each client, one after another; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    talk(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"grpc://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_all_addresses_of_a_name_are_tried() -> None:
    """A server that listens on one of the name's addresses only is found."""
    with programmed_server() as server, wire_to(f"grpc://localhost:{server.port}") as wire:
        assert answer_to(wire, command(echo="here")).message == b"here"


def test_a_name_without_address_is_an_event() -> None:
    """The requests end with UNAVAILABLE, and say what is wrong with the name."""
    with wire_to("grpc://no-such-host.invalid:8001", connections=3) as wire:
        for token in range(6):
            wire.send(wire.prepare(b""), token, LONG_S)
        ends = ends_of(wire, 6)
    assert {end.status for end in ends.values()} == {14}
    assert all("cannot connect" in end.details for end in ends.values())


def test_an_address_that_is_none_is_an_error() -> None:
    """What can be seen without the network is no event."""
    with pytest.raises(InvalidInput, match="expected an address"), wire_to("ftp://server"):
        pass


def test_a_server_that_hangs_up_is_an_event() -> None:
    """A connection that is accepted and closed ends the requests, and the next ones try again."""
    with server_of(lambda client: None) as url, wire_to(url) as wire:
        for _ in range(3):
            assert answer_to(wire, b"").status == 14


def test_a_web_server_is_named_as_such() -> None:
    """Triton's HTTP port answers in HTTP/1, which the failure says."""

    def talk(client: socket.socket) -> None:
        client.recv(1_000)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with server_of(talk) as url, wire_to(url) as wire:
        assert "expected its gRPC port" in answer_to(wire, b"").details


def test_what_waits_moves_to_the_next_connection() -> None:
    """A server that retires a connection at once: requests that were not sent yet go to its successor."""
    turns = iter(range(100))

    def talk(client: socket.socket) -> None:
        if next(turns) == 0:
            client.sendall(settings({0x3: 0}))  # no calls at all, for now
            client.recv(1_000)
            client.sendall(http2.goaway(0))
        else:
            client.sendall(settings({}))
            while http2.message(b"request") not in client.recv(10_000):
                pass
            head, tail = http2.headers(1, http2.RESPONSE), http2.headers(1, http2.OK, end=True)
            client.sendall(head + http2.data(1, http2.message(b"answer")) + tail)

    with server_of(talk) as url, wire_to(url) as wire:
        assert answer_to(wire, b"request").message == b"answer"


def test_a_server_that_hangs_up_is_not_asked_all_the_time() -> None:
    """Requests fail at once while there is nobody, and only now and then a connection is tried for them."""
    accepted: list[socket.socket] = []
    num_failed = 0
    with server_of(accepted.append) as url, wire_to(url) as wire:
        while len(accepted) < 4:
            assert answer_to(wire, b"").status == 14
            num_failed += 1
    assert num_failed > 12
