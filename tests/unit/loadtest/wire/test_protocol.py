"""Our HTTP/2 against a server of frames: what the standard demands, and what a server should never do."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from time import perf_counter_ns as now_ns

import pytest

from naiad.client.testing import http2
from naiad.loadtest._wire.calls import Prepared
from naiad.loadtest._wire.connection import Connection
from naiad.loadtest._wire.frames import HEADER, PREFACE, settings, window_update
from naiad.loadtest._wire.hpack import FieldReader
from naiad.loadtest._wire.line import Line
from naiad.loadtest._wire.requests import RequestHeaders
from naiad.loadtest._wire.seam import Event

SETTINGS = settings({})
PADDED, WITH_PRIORITY = 0x8, 0x20
Frame = tuple[int, int, int, bytes]


class Ends:
    """Both ends of a connection: ours, and frames on the other side."""

    def __init__(self) -> None:
        ours, self.server = socket.socketpair()
        for end in (ours, self.server):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.events: list[Event] = []
        self.ours = Connection(Line(ours), RequestHeaders("http", "server", ()), self.events, "server")
        self.ours.resume()
        self._seen = b""

    def give(self, *parts: bytes) -> list[Event]:
        """Send what a server sends; return the events of it."""
        for part in parts:
            for at in range(0, len(part), 100_000):
                if not self.ours.dead:
                    self.server.sendall(part[at : at + 100_000])
                    self.ours.read()
        self.ours.flush()
        events, self.events[:] = self.events[:], []
        return events

    def request(self, token: int, message: bytes = b"request", timeout_s: float = 60.0) -> None:
        self.ours.send(Prepared(message), token, timeout_s, b"")
        self.ours.flush()

    def sent(self) -> list[Frame]:
        """The frames that came from the client since the last time."""
        while True:
            try:
                data = self.server.recv(1 << 20)
            except BlockingIOError:
                break
            if not data:
                break
            self._seen += data
            self.ours.resume()
        self._seen = self._seen.removeprefix(PREFACE)
        found, at = [], 0
        while at < len(self._seen):
            head, flags, stream = HEADER.unpack_from(self._seen, at)
            found.append((head & 0xFF, flags, stream, self._seen[at + 9 : at + 9 + (head >> 8)]))
            at += 9 + (head >> 8)
        self._seen = self._seen[at:]
        return found

    def close(self) -> None:
        self.ours.close()
        self.server.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    opened = Ends()
    yield opened
    opened.close()


@pytest.fixture
def ready(ends: Ends) -> Ends:
    """A connection whose server has said its settings."""
    ends.give(SETTINGS)
    ends.sent()
    return ends


def answer(stream: int, message: bytes = b"answer") -> bytes:
    return (
        http2.headers(stream, http2.RESPONSE)
        + http2.data(stream, http2.message(message))
        + http2.headers(stream, http2.OK, end=True)
    )


def ends_with(*fields: tuple[str, str]) -> bytes:
    """An answer of header fields only."""
    return http2.headers(1, [*http2.RESPONSE, *fields], end=True)


HEAD = http2.headers(1, http2.RESPONSE)
TAIL = http2.headers(1, http2.OK, end=True)


def plain(events: list[Event]) -> list[tuple[int, bool, int, str, bytes | None]]:
    """Events without their time."""
    return [
        (event.token, event.ended, event.status, event.details, None if event.message is None else bytes(event.message))
        for event in events
    ]


def test_nothing_is_asked_before_the_servers_settings(ends: Ends) -> None:
    """The client greets; requests follow when the limits are known, and the settings are acknowledged first."""
    ends.request(1)
    greeting = ends.sent()
    assert [kind for kind, *_ in greeting] == [http2.SETTINGS, 0x8]
    ends.give(SETTINGS)
    kinds = [(kind, flags) for kind, flags, *_ in ends.sent()]
    assert kinds == [(http2.SETTINGS, 1), (http2.HEADERS, http2.END_HEADERS), (http2.DATA, http2.END_STREAM)]


def test_a_request_is_what_grpc_says(ready: Ends) -> None:
    """Method, path, timeout and body of requests; from the second on, the fields are a few bytes."""
    ready.request(1, b"one", 1.5)
    ready.request(2, b"two", 1.5)
    reader = FieldReader()
    (_, _, first_stream, first), (*_, body), (_, _, second_stream, second), _ = ready.sent()
    fields = dict(reader.read(first))
    assert fields == dict(reader.read(second))
    assert (first_stream, second_stream) == (1, 3)
    assert len(second) < 12 < len(first)
    assert body == b"\0\0\0\0\3one"
    assert fields[":method"] == "POST"
    assert fields[":path"] == "/inference.GRPCInferenceService/ModelInfer"
    assert fields["te"] == "trailers"
    assert fields["content-type"] == "application/grpc"
    assert fields["grpc-timeout"] in {"1500000u", "1500m"}
    assert [*fields][:3] == [":method", ":scheme", ":path"]


def test_answers_may_be_cut_anywhere(ready: Ends) -> None:
    """The same frames give the same events, however the network cuts them."""
    script = script_of_frames()
    ready.close()
    expected = run_script([script])
    assert [event[2] for event in expected if event[1]] == [0, 0, 0, 13, 5, 0, 14, 13]
    generator = random.Random(3)
    for _ in range(40):
        cuts = sorted(generator.sample(range(1, len(script)), generator.randrange(1, 60)))
        assert run_script([script[a:b] for a, b in zip([0, *cuts], [*cuts, len(script)], strict=True)]) == expected


def test_single_bytes_are_enough(ready: Ends) -> None:
    """A line that gives one byte at a time gives the same answer."""
    ready.request(7)
    events = ready.give(*(bytes((byte,)) for byte in answer(1)))
    assert plain(events) == [(7, True, 0, "", b"answer")]


def test_changed_bytes_end_calls_once_and_raise_nothing() -> None:
    """Whatever a server's bytes are changed to: no exception, and never two ends of one call."""
    script, generator = script_of_frames(), random.Random(11)
    places = [*range(150), *range(len(script) - 700, len(script))]  # between them, messages of random bytes
    reasons = set()
    for _ in range(300):
        changed = bytearray(script)
        for _ in range(generator.randrange(1, 12)):
            changed[generator.choice(places)] = generator.randrange(256)
        ends = Ends()
        events = start_calls(ends, 8)
        events += ends.give(bytes(changed))
        finished = [event.token for event in events if event.ended]
        assert len(finished) == len(set(finished))
        if ends.ours.dead:
            assert len(finished) == 8
            reasons.add(ends.ours.reason.split(":")[1])
        ends.close()
    assert " the server broke the rules of HTTP/2" in reasons


def test_random_bytes_end_the_connection_with_a_reason() -> None:
    """What is no HTTP/2 at all is recognised."""
    generator = random.Random(2)
    for size in [9, 20, 100, 5_000] * 10:
        ends = Ends()
        ends.request(1)
        ends.give(generator.randbytes(size))
        ends.server.close()
        ends.ours.read()
        ends.ours.fail_waiting()
        assert [(event.token, event.status) for event in ends.events] in ([(1, 14)], [])
        assert ends.ours.dead
        assert ends.ours.reason.startswith("server: ")
        ends.ours.close()


def test_a_web_server_is_told_from_a_grpc_server(ends: Ends) -> None:
    """The wrong port is a frequent mistake, so it has its own words."""
    ends.give(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    assert "expected its gRPC port" in ends.ours.reason


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (http2.data(9, b"x"), "never opened"),
        (http2.headers(2, http2.OK), "never opened"),
        (http2.frame(http2.CONTINUATION, 4, 1, b""), "never began"),
        (http2.frame(http2.HEADERS, 0, 1, b"") + http2.frame(http2.PING, 0, 0, bytes(8)), "interrupted"),
        (http2.frame(http2.SETTINGS, 0, 0, b"abc"), "6 bytes"),
        (settings({0x4: 1 << 31}), "window"),
        (settings({0x5: 100}), "frames of 100"),
        (http2.frame(0x5, 4, 1, b""), "pushes"),
        (http2.frame(http2.GOAWAY, 0, 0, b"abc"), "GOAWAY"),
        (http2.frame(http2.RST_STREAM, 0, 1, b"abc"), "RST_STREAM"),
        (window_update(0, 0), "no bytes"),
        (window_update(0, (1 << 31) - 1), "more than a window"),
        (http2.frame(http2.DATA, PADDED, 1, b"\x09abc"), "padding"),
        (http2.frame(http2.DATA, PADDED, 1, b""), "padding"),
        (http2.frame(http2.HEADERS, 4, 1, b"\xbe"), "field 62"),
        (b"\xff\xff\xff\0\0\0\0\0\1", "were allowed"),
        (http2.frame(http2.HEADERS, 0, 1, b"") + http2.frame(http2.CONTINUATION, 0, 1, bytes(400_000)) * 3, "no end"),
    ],
)
def test_what_http2_forbids_ends_the_connection(ready: Ends, frame: bytes, reason: str) -> None:
    """The calls end with UNAVAILABLE and the reason, and the server is told."""
    ready.request(1)
    ready.sent()
    ((token, ended, status, details, _),) = plain(ready.give(frame))
    assert (token, ended, status) == (1, True, 14)
    assert reason in details
    assert ready.ours.dead
    assert [kind for kind, *_ in ready.sent()][-1:] == [http2.GOAWAY]


def test_deadlines_are_kept_wherever_a_request_is(ends: Ends) -> None:
    """In flight, half sent, or waiting for a connection: a request ends when its time is over, and no other does."""
    ends.request(1, timeout_s=10.0)
    ends.request(2, timeout_s=20.0)
    ends.ours.expire(now_ns() + 1_000_000_000)
    assert ends.events == []
    ends.give(SETTINGS)
    ends.request(3, bytes(200_000), timeout_s=10.0)
    ends.request(4, timeout_s=10.0)
    ends.ours.expire(now_ns() + 11_000_000_000)
    assert [(event.token, event.status) for event in ends.give()] == [(1, 4), (3, 4), (4, 4)]
    assert [stream for kind, _, stream, _ in ends.sent() if kind == http2.RST_STREAM] == [1, 5, 7]
    ends.ours.expire(now_ns() + 21_000_000_000)
    assert [(event.token, event.status) for event in ends.give()] == [(2, 4)]


def test_a_connection_that_does_not_come_about_is_given_up(ends: Ends) -> None:
    """A server that takes the connection and says nothing is as bad as none."""
    ends.request(1)
    ends.ours.expire(now_ns() + 6_000_000_000)
    assert ends.ours.dead
    ends.ours.fail_waiting()
    assert [(event.token, event.status) for event in ends.events] == [(1, 14)]
    assert "no HTTP/2 connection within" in ends.events[0].details


def test_settings_come_first(ends: Ends) -> None:
    """A server that begins with anything else is none."""
    ends.give(http2.frame(http2.PING, 0, 0, bytes(8)))
    assert "does not begin with SETTINGS" in ends.ours.reason


def test_a_ping_is_answered(ready: Ends) -> None:
    """With its own bytes, once."""
    ready.give(http2.frame(http2.PING, 0, 0, b"12345678"), http2.frame(http2.PING, 1, 0, b"ignored!"))
    assert ready.sent() == [(http2.PING, 1, 0, b"12345678")]


def test_unknown_frames_mean_nothing(ready: Ends) -> None:
    """Extensions of HTTP/2 pass by."""
    ready.request(1)
    events = ready.give(http2.frame(0x77, 0xFF, 1, b"?"), http2.frame(0x2, 0, 1, bytes(5)), answer(1))
    assert plain(events) == [(1, True, 0, "", b"answer")]


def test_a_servers_windows_are_kept_to(ready: Ends) -> None:
    """Not a byte more than the stream's and the connection's window leaves, and all of it in the end."""
    message = random.Random(1).randbytes(150_000)
    ready.give(settings({0x4: 10}), window_update(0, 200_000))
    ready.request(1, message)
    ready.request(2, b"tiny!")
    frames = ready.sent()
    assert [len(payload) for kind, *_, payload in frames if kind == http2.DATA] == [10, 10]
    got = b"".join(payload for kind, _, stream, payload in frames if kind == http2.DATA and stream == 1)
    for more in (7, 1, 50_000, 99_987):
        ready.give(window_update(1, more))
        new = [(flags, payload) for kind, flags, _, payload in ready.sent() if kind == http2.DATA]
        assert sum(len(payload) for _, payload in new) == min(more, len(message) + 5 - len(got))
        assert all(len(payload) <= http2.MAX_FRAME_BYTES for _, payload in new)
        got += b"".join(payload for _, payload in new)
    assert got == http2.message(message)
    assert new[-1][0] == http2.END_STREAM


def test_a_large_request_leaves_with_its_first_byte(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens until the last byte is written (a server on this machine takes our core) is no delay of ours."""
    ends.give(SETTINGS, window_update(0, 1 << 20))
    written = []
    send_parts = Line.send_parts

    def slow(line: Line, parts: list[memoryview]) -> int:
        written.append(now_ns())
        return send_parts(line, parts)

    monkeypatch.setattr(Line, "send_parts", slow)
    left_ns = ends.ours.send(Prepared(b"x" * 200_000), 1, 60.0, b"")
    assert written
    assert left_ns <= written[0]


def test_the_connections_window_is_shared(ready: Ends) -> None:
    """Beyond the connection's window nothing leaves, on any stream; small requests get their turn."""
    ready.give(settings({0x4: 1 << 30}))
    ready.request(1, bytes(100_000))
    ready.request(2, bytes(1_000))
    assert sum(len(payload) for kind, *_, payload in ready.sent() if kind == http2.DATA) == 65_535
    ready.give(window_update(0, 3_000))
    ready.give(window_update(0, 100_000))
    by_stream: dict[int, int] = {}
    for kind, _, stream, payload in ready.sent():
        if kind == http2.DATA:
            by_stream[stream] = by_stream.get(stream, 0) + len(payload)
    assert by_stream == {1: 100_005 - 65_535, 3: 1_005}


def test_a_window_that_shrinks_can_be_negative(ready: Ends) -> None:
    """A server may take back leave that it gave; what is sent then waits until the balance is positive."""
    ready.give(settings({0x4: 100}))
    ready.request(1, bytes(195))
    ready.give(settings({0x4: 40}), window_update(1, 60))
    assert sum(len(payload) for kind, *_, payload in ready.sent() if kind == http2.DATA) == 100
    ready.give(window_update(1, 100))
    assert sum(len(payload) for kind, *_, payload in ready.sent() if kind == http2.DATA) == 100


def test_a_small_table_of_the_server_is_kept_to(ends: Ends) -> None:
    """Header fields do not refer to a table that the server does not keep, from its settings on."""
    ends.give(settings({0x1: 0}))
    reader = FieldReader(0)
    for token in (1, 2):
        ends.request(token)
    ends.give(settings({0x1: 4096}))
    ends.request(3)
    blocks = [payload for kind, *_, payload in ends.sent() if kind == http2.HEADERS]
    paths = [dict(reader.read(block))[":path"] for block in blocks[:2]]
    paths.append(dict(FieldReader(4096).read(blocks[2]))[":path"])
    assert paths == ["/inference.GRPCInferenceService/ModelInfer"] * 3


def test_goaway_divides_what_was_begun_from_what_was_not(ready: Ends) -> None:
    """Calls up to the last stream are answered; later ones end, and new ones wait for another connection."""
    for token in range(3):
        ready.request(token)
    events = ready.give(http2.goaway(3, 0))
    assert [(event.token, event.status) for event in events] == [(2, 14)]
    assert "before it began" in events[0].details
    assert ready.ours.retired
    assert not ready.ours.dead
    ready.request(4)
    assert len(ready.ours.waiting) == 1
    assert plain(ready.give(answer(1), answer(3))) == [(0, True, 0, "", b"answer"), (1, True, 0, "", b"answer")]


def test_the_reason_of_a_goaway_is_told(ready: Ends) -> None:
    """Where the server says why it ends the connection, the failed calls say it, too."""
    ready.request(1)
    ready.server.sendall(http2.goaway(1, 0xB, b"too_many_pings"))
    ready.server.close()
    ready.ours.read()
    ready.ours.read()
    assert "too_many_pings" in ready.events[0].details


@pytest.mark.parametrize(
    ("code", "status"), [(0x0, 13), (0x2, 13), (0x7, 14), (0x8, 1), (0xB, 8), (0xC, 7), (0xD, 2), (0x99, 2)]
)
def test_a_reset_stream_has_its_status(ready: Ends, code: int, status: int) -> None:
    """The codes of RST_STREAM are translated as the gRPC protocol says."""
    ready.request(1)
    ((token, ended, found, details, _),) = plain(ready.give(http2.rst_stream(1, code)))
    assert (token, ended, found) == (1, True, status)
    assert "reset" in details
    assert ready.give(http2.rst_stream(1, code), answer(1)) == []


@pytest.mark.parametrize(
    ("status", "expected"), [("400", 13), ("401", 16), ("403", 7), ("404", 12), ("429", 14), ("503", 14), ("418", 2)]
)
@pytest.mark.parametrize("body", [b"", b"<html>no</html>"])
def test_an_http_status_is_translated(ready: Ends, status: str, expected: int, body: bytes) -> None:
    """A proxy that answers by itself ends the call as the gRPC protocol says."""
    ready.request(1)
    fields = ((":status", status), ("content-type", "text/html"))
    frames = http2.headers(1, fields, end=not body) + (http2.data(1, body, end=True) if body else b"")
    ((_, _, found, details, _),) = plain(ready.give(frames))
    assert found == expected
    assert status in details


@pytest.mark.parametrize(
    ("frames", "status", "details"),
    [
        (ends_with(("grpc-status", "5"), ("grpc-message", "%E6%97%A5 100%")), 5, "日 100%"),
        (ends_with(("grpc-status", "many")), 2, ""),
        (HEAD + TAIL, 13, "without an answer"),
        (HEAD + http2.data(1, b"", end=True), 2, "without a gRPC status"),
        (HEAD + http2.data(1, b"\1\0\0\0\1x") + TAIL, 13, "compressed"),
        (http2.headers(1, [*http2.RESPONSE, ("grpc-encoding", "gzip")]) + answer(1), 13, "compressed (gzip)"),
        (HEAD + http2.data(1, b"\0\0\0\0\5abc") + TAIL, 13, "within a message"),
        (HEAD + http2.data(1, http2.message(b"a") * 2) + TAIL, 13, "several answers"),
        (HEAD + http2.data(1, b"\0\xff\xff\xff\xff") + TAIL, 8, "more than any message"),
        (http2.headers(1, [(":status", "103")]) + answer(1), 0, ""),
        (http2.headers(1, [(":status", "200"), ("content-type", "text/plain")]) + TAIL, 2, "application/grpc"),
    ],
)
def test_how_a_call_ended_is_told(ready: Ends, frames: bytes, status: int, details: str) -> None:
    """Each way of ending has its status and its words, also those that no proper server chooses."""
    ready.request(1)
    ((_, ended, found, text, _),) = plain(ready.give(frames))
    assert (ended, found) == (True, status)
    assert details in text


def test_a_server_may_answer_before_it_has_read_all(ready: Ends) -> None:
    """An early refusal ends the call, and the rest of the request is not sent."""
    ready.request(1, bytes(200_000))
    ready.sent()
    refusal = http2.headers(1, [*http2.RESPONSE, ("grpc-status", "8"), ("grpc-message", "too large")], end=True)
    ((_, _, status, details, _),) = plain(ready.give(refusal))
    assert (status, details) == (8, "too large")
    ready.give(window_update(1, 100_000), window_update(0, 100_000))
    assert [(kind, stream) for kind, _, stream, _ in ready.sent()] == [(http2.RST_STREAM, 1)]


def test_nothing_comes_of_a_stream_after_its_end(ready: Ends) -> None:
    """A large message whose stream is given up while it arrives is dropped, and the next answer is read."""
    call = ready.ours.open_stream(1, None)
    ready.request(2)
    message = http2.frame(http2.DATA, 0, 1, http2.message(bytes(300_000)))
    ready.give(settings({0x5: 1 << 20}), http2.headers(1, http2.RESPONSE), message[:100_000])
    ready.ours.end(call, 1, "enough")
    events = plain(ready.give(message[100_000:], answer(3)))
    assert events == [(1, True, 1, "enough", None), (2, True, 0, "", b"answer")]


def test_a_large_announcement_does_not_fill_the_memory(ready: Ends) -> None:
    """A length alone reserves no gigabytes."""
    ready.request(1)
    ready.give(http2.headers(1, http2.RESPONSE), http2.data(1, struct.pack(">BI", 0, (1 << 31) - 1) + b"x"))
    partial = ready.ours.calls[1].partial
    assert partial is not None
    assert len(partial) < 1 << 27


def test_numbers_of_streams_come_to_an_end(ready: Ends) -> None:
    """A connection that has used up its numbers takes no new calls."""
    ready.ours.next_stream = (1 << 31) - 3
    ready.ours.flush()
    assert ready.ours.retired


def test_frames_with_padding_and_priority_are_read(ready: Ends) -> None:
    """Padding is cut off, wherever it stands."""
    ready.request(1)
    head = http2.field_block(http2.RESPONSE)
    body = http2.message(b"answer")
    events = ready.give(
        http2.frame(http2.HEADERS, http2.END_HEADERS | PADDED | WITH_PRIORITY, 1, b"\3" + bytes(5) + head + bytes(3)),
        http2.frame(http2.DATA, PADDED, 1, b"\2" + body[:4] + bytes(2)),
        http2.frame(http2.DATA, PADDED, 1, b"\0" + body[4:]),
        http2.headers(1, http2.OK, end=True),
    )
    assert plain(events) == [(1, True, 0, "", b"answer")]


def script_of_frames() -> bytes:
    """A server's frames for eight calls, with everything that is allowed in them."""
    large = random.Random(4).randbytes(100_000)
    block = http2.field_block(http2.OK)
    return b"".join(
        [
            SETTINGS,
            answer(1),
            http2.headers(3, http2.RESPONSE),
            http2.headers(5, http2.RESPONSE),
            http2.data(3, http2.message(large)[:50_000]),
            http2.data(5, http2.message(large)),
            http2.frame(http2.PING, 0, 0, bytes(8)),
            http2.frame(http2.DATA, 0, 3, http2.message(large)[50_000:50_003]),
            http2.frame(http2.DATA, PADDED, 3, b"\5" + http2.message(large)[50_003:60_000] + bytes(5)),
            http2.data(3, http2.message(large)[60_000:]),
            http2.frame(http2.HEADERS, http2.END_STREAM, 3, block[:4]),
            http2.frame(http2.CONTINUATION, http2.END_HEADERS, 3, block[4:]),
            http2.headers(5, http2.OK, end=True),
            http2.headers(7, http2.RESPONSE) + http2.headers(7, http2.OK, end=True),
            settings({0x3: 100, 0x4: 1 << 20, 0x5: 1 << 15}),
            http2.headers(9, [*http2.RESPONSE, ("grpc-status", "5"), ("grpc-message", "no%20model")], end=True),
            http2.frame(http2.HEADERS, http2.END_HEADERS, 11, b"\x88\x5f\x10application/grpc"),
            http2.data(11, http2.message(b"")),
            http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, 11, b"\x40\x0bgrpc-status\x010"),
            http2.rst_stream(13, 0x7),
            http2.headers(15, http2.RESPONSE),
            http2.data(15, http2.message(b"a") * 3),
            http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, 15, b"\xbe"),
        ]
    )


def start_calls(ends: Ends, number: int) -> list[Event]:
    for token in range(number):
        ends.request(token)
    return ends.give(SETTINGS)


def run_script(pieces: list[bytes]) -> list[tuple[int, bool, int, str, bytes | None]]:
    """Give the pieces to a fresh connection with eight calls; return the events, in order."""
    ends = Ends()
    events = start_calls(ends, 8)
    for piece in pieces:
        events += ends.give(piece)
    ends.close()
    return plain(events)
