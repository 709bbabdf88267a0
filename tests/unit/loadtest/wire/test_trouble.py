"""Both transports over a line that breaks, stalls and retires connections."""

from __future__ import annotations

import random

import pytest

from naiad.client.testing import Line
from naiad.loadtest._wire.seam import Event, Wire
from wire_helpers import LONG_S, answer_to, command, content, ends_of, events_until, programmed_server, wire_to

pytestmark = pytest.mark.parametrize("transport", ["http2", "grpcio"])
SIZES = (0, 10, 5_000, 70_000, 300_000)


def test_every_call_ends_once_whatever_happens(transport: str) -> None:
    """Requests and streams of all sizes, cancelled, late, refused, on connections that break anywhere or retire."""
    options = [("grpc.max_concurrent_streams", 20)]
    with (
        programmed_server(options=options) as server,
        Line(f"127.0.0.1:{server.port}") as line,
        wire_to(line.url, transport, connections=2) as wire,
    ):
        Chaos(wire, line, random.Random(1)).run()
        line.resume()
        end = answer_to(wire, command(echo="after"))
        while end.status == 14:
            wire.poll(0.05)
            end = answer_to(wire, command(echo="after"))
        assert end.message == b"after"


class Chaos:
    """Calls at random, and what they must come to."""

    def __init__(self, wire: Wire, line: Line, generator: random.Random) -> None:
        self.wire, self.line, self.generator = wire, line, generator
        self.live: dict[int, bytes | None] = {}
        self.statuses: set[int] = set()

    def run(self) -> None:
        for token in range(250):
            self.begin(token)
            if token % 40 == 20:
                self.line.cut_after(self.generator.randrange(1, 400_000))
            if token % 100 == 50:
                self.line.goaway(graceful=token % 200 == 50)
            if token % 100 == 90:
                self.line.cut()
            self.look(self.wire.poll(self.generator.choice([0.0, 0.001])))
        self.look(events_until(self.wire, lambda events: sum(event.ended for event in events) >= len(self.live)))
        assert not self.live
        assert {0, 4, 5, 14} <= self.statuses

    def begin(self, token: int) -> None:
        size, choice = self.generator.choice(SIZES), self.generator.random()
        request = command(self.generator.choice(SIZES), size=size)
        self.live[token] = content(size)
        if choice < 0.6:
            self.wire.send(self.wire.prepare(request), token, LONG_S)
        elif choice < 0.7:
            self.wire.send(self.wire.prepare(command(wait=True)), token, 0.05)
        elif choice < 0.8:
            self.wire.send(self.wire.prepare(command(status=5)), token, LONG_S)
        else:
            self.wire.open_stream(token, LONG_S)
            for _ in range(3):
                self.wire.write(self.wire.prepare(request), token)
            self.wire.close_stream(token)
        if choice > 0.95:
            self.wire.cancel(self.generator.choice([*self.live]))

    def look(self, events: list[Event]) -> None:
        for event in events:
            self.look_at(event)

    def look_at(self, event: Event) -> None:
        assert event.token in self.live
        if event.message is not None and event.status == 0:
            assert bytes(event.message) == self.live[event.token]
        if event.ended:
            self.statuses.add(event.status)
            del self.live[event.token]


def test_a_stalled_line_is_a_matter_of_deadlines(transport: str) -> None:
    """While nothing moves, requests end with their timeouts; afterwards the same connection serves.

    Requests that are larger than what the line holds keep the gRPC library from ending them, so it gets small ones.
    """
    size = 300_000 if transport == "http2" else 0
    with (
        programmed_server() as server,
        Line(f"127.0.0.1:{server.port}") as line,
        wire_to(line.url, transport) as wire,
    ):
        assert answer_to(wire, command()).status == 0
        with line.stalled():
            for token in range(20):
                wire.send(wire.prepare(command(size)), token, 0.2)
            assert {end.status for end in ends_of(wire, 20).values()} == {4}
        assert answer_to(wire, command(echo="on")).message == b"on"
        assert line.num_accepted == 1


def test_a_slow_line_loses_nothing(transport: str) -> None:
    """Large messages over a thin line arrive whole, both ways."""
    with (
        programmed_server() as server,
        Line(f"127.0.0.1:{server.port}") as line,
        wire_to(line.url, transport) as wire,
        line.throttled(4_000_000),
    ):
        for token in range(4):
            wire.send(wire.prepare(command(300_000, size=200_000 + token)), token, LONG_S)
        ends = ends_of(wire, 4)
    assert all(bytes(ends[token].message or b"") == content(200_000 + token) for token in range(4))
