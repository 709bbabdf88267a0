"""Both transports, against a real gRPC server that does what the requests say."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import grpc
import psutil
import pytest

from naiad.loadtest._wire.null import NullServer
from naiad.loadtest._wire.seam import Wire
from wire_helpers import (
    LONG_S,
    Programmed,
    answer_to,
    command,
    content,
    ends_of,
    events_until,
    programmed_server,
    wire_to,
)

pytestmark = pytest.mark.parametrize("transport", ["http2", "grpcio"])
DETAILS = "schlägt fehl: 100 % – 日本\n\x7f%41"


@pytest.fixture(scope="module")
def server() -> Any:
    with programmed_server() as running:
        yield running


@pytest.fixture
def wire(server: Programmed, transport: str) -> Any:
    with wire_to(server.url, transport) as opened:
        yield opened


def test_each_answer_belongs_to_its_request(wire: Wire) -> None:
    """Many requests in flight get their own answers, and time stamps in their order."""
    left = {number: wire.send(wire.prepare(command(echo=f"<{number}>")), number, LONG_S) for number in range(500)}
    ends = ends_of(wire, 500)
    assert {number: end.message for number, end in ends.items()} == {n: f"<{n}>".encode() for n in range(500)}
    assert all(left[number] < end.at_ns and end.status == 0 for number, end in ends.items())


def test_a_suffix_is_part_of_the_message(wire: Wire) -> None:
    """What differs from sending to sending is appended to the prepared request."""
    prepared = wire.prepare(b'{"echo": "')
    wire.send(prepared, 1, LONG_S, b'first"}')
    wire.send(prepared, 2, LONG_S, b'second"}')
    assert {token: end.message for token, end in ends_of(wire, 2).items()} == {1: b"first", 2: b"second"}


def test_every_status_comes_with_its_details(wire: Wire) -> None:
    """All codes that a server can end a call with arrive, and details in any language."""
    codes = [code.value[0] for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    for code in codes:
        wire.send(wire.prepare(command(status=code, details=DETAILS)), code, LONG_S)
    ends = ends_of(wire, len(codes))
    assert {token: (end.status, end.details) for token, end in ends.items()} == {c: (c, DETAILS) for c in codes}


@pytest.mark.parametrize(("request_bytes", "answer_bytes"), [(40_000_000, 3), (3, 40_000_000), (70_000, 65_536)])
def test_large_messages_pass_unchanged(wire: Wire, server: Programmed, request_bytes: int, answer_bytes: int) -> None:
    """Large requests and answers pass, whole, with small ones between them."""
    request = command(request_bytes, size=answer_bytes)
    wire.send(wire.prepare(request), 1, LONG_S)
    wire.send(wire.prepare(command(echo="small")), 2, LONG_S)
    ends = ends_of(wire, 2)
    assert bytes(ends[1].message or b"") == content(answer_bytes)
    assert ends[2].message == b"small"
    assert len(request) in {call.size_bytes for call in server.calls}


def test_several_large_requests_share_a_connection(wire: Wire) -> None:
    """Large messages in flight at once do not mix."""
    for token in range(6):
        wire.send(wire.prepare(command(1_000_000 * (token + 1), size=900_000 * (token + 1))), token, LONG_S)
    ends = ends_of(wire, 6)
    assert all(bytes(ends[token].message or b"") == content(900_000 * (token + 1)) for token in range(6))


def test_answers_that_are_kept_are_not_written_over(wire: Wire) -> None:
    """An answer stays what it was while later ones arrive, however large."""
    kept = [answer_to(wire, command(size=200_000)).message for _ in range(3)]
    for _ in range(5):
        other = answer_to(wire, command(echo="x" * 200_000)).message
    assert [bytes(message or b"") for message in kept] == [content(200_000)] * 3
    assert bytes(other or b"") == b"x" * 200_000


def test_what_was_sent_leaves_with_a_flush(server: Programmed, wire: Wire) -> None:
    """No poll is needed for a request to reach the server."""
    before = len(server.calls)
    wire.send(wire.prepare(command()), 1, LONG_S)
    wire.flush()
    for _ in range(5_000):
        if len(server.calls) > before:
            break
        time.sleep(0.01)
    assert len(server.calls) == before + 1
    assert ends_of(wire, 1)[1].status == 0


def test_a_call_ends_with_its_deadline(wire: Wire, server: Programmed) -> None:
    """The server knows the deadline, is told when the call is given up, and other calls are not touched."""
    wire.send(wire.prepare(command(wait=True)), 1, 1.0)
    wire.send(wire.prepare(command(echo="other")), 2, LONG_S)
    ends = ends_of(wire, 2)
    assert (ends[1].status, ends[1].message) == (4, None)
    assert ends[2].message == b"other"
    waiting = next(call for call in server.calls if (call.time_remaining_s or LONG_S) < 5)
    assert waiting.cancelled.wait(LONG_S)


def test_a_deadline_that_passed_leaves_the_line_usable(wire: Wire) -> None:
    """Answers that come too late are dropped."""
    for token in range(50):
        wire.send(wire.prepare(command(size=2_000)), token, 0.0001)
    assert {end.status for end in ends_of(wire, 50).values()} <= {0, 4}
    assert answer_to(wire, command(echo="after")).message == b"after"


def test_a_cancelled_call_ends_here_and_there(server: Programmed, wire: Wire) -> None:
    """Cancelling ends the call with CANCELLED, and the server hears of it."""
    before = len(server.calls)
    wire.send(wire.prepare(command(wait=True)), 5, LONG_S)
    events_until(wire, lambda _: len(server.calls) > before)
    wire.cancel(5)
    assert ends_of(wire, 1)[5].status == 1
    assert server.calls[-1].cancelled.wait(LONG_S)
    wire.cancel(5)  # it has ended: nothing happens
    assert answer_to(wire, command(echo="after")).message == b"after"


def test_headers_come_with_every_request(server: Programmed, transport: str) -> None:
    """An API key reaches the server with unary calls and streams."""
    with wire_to(server.url, transport, headers={"x-api-key": "secret", "x-empty": ""}) as wire:
        for _ in range(3):
            assert answer_to(wire, command()).status == 0
        wire.open_stream(7, LONG_S)
        wire.close_stream(7)
        assert ends_of(wire, 1)[7].status == 0
    keys = [(call.metadata.get("x-api-key"), call.metadata.get("x-empty")) for call in server.calls[-4:]]
    assert keys == [("secret", "")] * 4


def test_different_timeouts_reach_the_server(server: Programmed, transport: str) -> None:
    """Each request has its own deadline, however many there are."""
    timeouts = [100.0 * number for number in range(1, 60)] + [100_000.0]
    with wire_to(server.url, transport) as wire:
        for timeout_s in timeouts:
            assert answer_to(wire, command(), timeout_s).status == 0
    for timeout_s, call in zip(timeouts, server.calls[-len(timeouts) :], strict=True):
        assert call.time_remaining_s is not None
        assert timeout_s - call.time_remaining_s < LONG_S
        assert call.time_remaining_s <= 1.01 * timeout_s


def test_a_stream_carries_messages_both_ways(wire: Wire) -> None:
    """Requests of a stream are answered in order, any number of times each, and the end comes last."""
    wire.open_stream(3, LONG_S)
    wire.write(wire.prepare(command(echo="a", times=2)), 3)
    wire.write(wire.prepare(b'{"echo": '), 3, b'"b"}')
    first = events_until(wire, lambda events: len(events) >= 3)
    wire.write(wire.prepare(command(200_000, size=300_000)), 3)
    wire.close_stream(3)
    rest = events_until(wire, lambda events: any(event.ended for event in events))
    assert [(event.message, event.ended) for event in first] == [(b"a", False), (b"a", False), (b"b", False)]
    assert [bytes(event.message or b"") for event in rest] == [content(300_000), b""]
    assert rest[-1].status == 0


def test_streams_run_side_by_side(wire: Wire) -> None:
    """Many streams share a connection, and each ends once."""
    for token in range(20):
        wire.open_stream(token, None)
    for number in range(10):
        for token in range(20):
            wire.write(wire.prepare(command(echo=f"{token}/{number}")), token)
    for token in range(20):
        wire.close_stream(token)
    events = events_until(wire, lambda events: sum(event.ended for event in events) == 20)
    for token in range(20):
        messages = [event.message for event in events if event.token == token and not event.ended]
        assert messages == [f"{token}/{number}".encode() for number in range(10)]


def test_a_stream_ends_as_the_server_ends_it(wire: Wire) -> None:
    """An error ends the stream, and what is written afterwards goes nowhere."""
    wire.open_stream(3, LONG_S)
    wire.write(wire.prepare(command(status=9, details=DETAILS)), 3)
    end = ends_of(wire, 1)[3]
    assert (end.status, end.details) == (9, DETAILS)
    wire.write(wire.prepare(command()), 3)
    wire.close_stream(3)
    wire.cancel(3)
    assert answer_to(wire, command(echo="after")).message == b"after"


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_stream_can_be_given_up(wire: Wire, how: str) -> None:
    """A stream's deadline is that of the whole stream; cancelling ends it, too."""
    wire.open_stream(3, 0.3 if how == "deadline" else None)
    wire.write(wire.prepare(command(wait=True)), 3)
    if how == "cancel":
        wire.cancel(3)
    assert ends_of(wire, 1)[3].status == {"deadline": 4, "cancel": 1}[how]


def test_connections_are_used_in_turn(server: Programmed, transport: str) -> None:
    """Several connections share the requests."""
    with wire_to(server.url, transport, connections=3) as wire:
        for token in range(30):
            wire.send(wire.prepare(command()), token, LONG_S)
        ends_of(wire, 30)
    assert len({call.peer for call in server.calls[-30:]}) == 3


def test_a_server_that_is_not_there_is_an_event(transport: str) -> None:
    """Nothing is raised where nobody listens; each request ends with UNAVAILABLE."""
    with programmed_server() as gone:
        url = gone.url
    with wire_to(url, transport) as wire:
        for token in range(3):
            wire.send(wire.prepare(command()), token, LONG_S)
        wire.open_stream(9, LONG_S)
        assert {end.status for end in ends_of(wire, 4).values()} == {14}


def test_a_server_may_come_later(transport: str) -> None:
    """A wire that found nobody connects as soon as somebody is there, and again after a restart."""
    with programmed_server() as first:
        port = first.port
    with wire_to(first.url, transport) as wire:
        assert answer_to(wire, command()).status == 14
        for _ in range(2):
            with programmed_server(port=port):
                ends = [answer_to(wire, command(echo="back")) for _ in range(1)]
                while ends[-1].status == 14:
                    wire.poll(0.05)
                    ends.append(answer_to(wire, command(echo="back")))
                assert ends[-1].message == b"back"
            end = answer_to(wire, command())
            assert end.status == 14


def test_a_killed_server_ends_what_is_in_flight(transport: str) -> None:
    """Requests and streams in flight end with UNAVAILABLE and a reason when the server's process dies."""
    with NullServer(b"") as null, wire_to(null.url, transport) as wire:
        assert answer_to(wire, b"").status == 0
        os.kill(null.pid, signal.SIGSTOP)
        for token in range(5):
            wire.send(wire.prepare(b""), token, LONG_S)
        wire.open_stream(5, None)
        assert wire.poll(0.0) == []
        os.kill(null.pid, signal.SIGKILL)
        ends = ends_of(wire, 6)
    assert {end.status for end in ends.values()} == {14}
    assert all(end.details for end in ends.values())


def test_connections_that_the_server_retires_are_replaced(transport: str) -> None:
    """A server that sends GOAWAY to old connections goes on being used; what it had begun is answered."""
    options = [("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 60_000)]
    with programmed_server(options=options) as server, wire_to(server.url, transport) as wire:
        statuses = set()
        while len({call.peer for call in server.calls}) < 4:
            end = answer_to(wire, command(echo="x"))
            unseen = "before it began" in end.details or "GOAWAY received" in end.details  # in our words, in gRPC's
            assert end.status == 0 or (end.status == 14 and unseen), end
            statuses.add(end.status)
        assert 0 in statuses
        events_until(wire, lambda _: len(connections_to(server.port)) < 3)  # former ones are closed


def connections_to(port: int) -> list[Any]:
    return [line for line in psutil.Process().net_connections("tcp") if line.raddr and line.raddr.port == port]


def test_no_more_calls_at_once_than_the_server_wants(transport: str) -> None:
    """Requests beyond the server's limit wait for their turn; deadlines and cancelling reach them there."""
    with (
        programmed_server(options=[("grpc.max_concurrent_streams", 3)]) as server,
        wire_to(server.url, transport) as wire,
    ):
        for token in range(3):
            wire.send(wire.prepare(command(wait=True, echo="slow")), token, LONG_S)
        wire.send(wire.prepare(command()), 3, 0.3)
        wire.send(wire.prepare(command()), 4, LONG_S)
        wire.cancel(4)
        for token in range(5, 40):
            wire.send(wire.prepare(command(echo="fast")), token, LONG_S)
        early = ends_of(wire, 2)
        assert {token: end.status for token, end in early.items()} == {3: 4, 4: 1}
        events_until(wire, lambda _: len(server.calls) >= 3)
        assert len(server.calls) == 3
        server.release.set()
        ends = ends_of(wire, 38)
        assert set(ends) == {0, 1, 2, *range(5, 40)}
        assert {ends[token].message for token in range(3)} == {b"slow"}
        refused = [
            end.details for end in ends.values() if end.status
        ]  # by this server, when calls end and begin at once
        assert len(refused) < 35
        assert all("RST_STREAM" in details or "REFUSED_STREAM" in details for details in refused)


def test_closing_with_calls_in_flight_returns(server: Programmed, transport: str) -> None:
    """Closing does not wait for answers, and the server hears that nobody does."""
    before = len(server.calls)
    with wire_to(server.url, transport) as wire:
        wire.send(wire.prepare(command(wait=True)), 1, LONG_S)
        wire.open_stream(2, None)
        events_until(wire, lambda _: len(server.calls) > before + 1)
    assert all(call.cancelled.wait(LONG_S) for call in server.calls[before:])
