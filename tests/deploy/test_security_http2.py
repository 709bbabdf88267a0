"""HTTP/2 that no library would send: what could become another request behind the gateway does not get there."""

import socket
import ssl
from collections.abc import Callable, Iterator

import pytest

from raw_http2 import CONTINUATION, END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS, block, exchange, frame, request
from recording_upstream import RecordingUpstream
from security_setting import Setting, infer, make_service, make_setting

Headers = list[tuple[bytes, bytes]]
SMUGGLED = b"POST /v2/models/other/infer HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A gateway that nobody changes."""
    with RecordingUpstream() as upstream:
        setting = make_setting(tmp_path_factory.mktemp("http2"), upstream, make_service())
        with setting.gateway:
            yield setting


def connect(setting: Setting) -> socket.socket:
    """A connection that speaks HTTP/2."""
    context = ssl.create_default_context(cadata=setting.authority.certificate_pem.decode())
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(socket.create_connection(setting.address, timeout=20), server_hostname="127.0.0.1")


def sound(setting: Setting) -> Headers:
    """A proper inference's headers."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"naiad.test"),
        (b":path", b"/v2/models/digits/infer"),
        (b"x-api-key", setting.keys["reader"].encode()),
    ]


def test_a_proper_request_passes(setting: Setting) -> None:
    """So that the others fail for what is wrong with them."""
    before = len(setting.upstream.arrivals)
    with connect(setting) as connection:
        assert exchange(connection, request(sound(setting), b"{}")) == "200"
    assert [arrival.body for arrival in setting.upstream.arrivals[before:]] == [b"{}"]


def _path(headers: Headers, path: bytes) -> Headers:
    return [(name, path if name == b":path" else value) for name, value in headers]


WRONG: dict[str, Callable[[Headers], bytes]] = {
    "length-too-short": lambda h: request([*h, (b"content-length", b"0")], SMUGGLED),
    "length-too-long": lambda h: request([*h, (b"content-length", b"999")], b"{}"),
    "two-lengths": lambda h: request([*h, (b"content-length", b"2"), (b"content-length", b"51")], b"{}"),
    "chunks": lambda h: request([*h, (b"transfer-encoding", b"chunked")], b"0\r\n\r\n" + SMUGGLED),
    "line-break-in-value": lambda h: request([*h, (b"x", b"y\r\ncontent-length: 0\r\n\r\n" + SMUGGLED)], b"{}"),
    "line-break-in-name": lambda h: request([*h, (b"x\r\ncontent-length", b"0")], b"{}"),
    "line-break-in-path": lambda h: request(_path(h, b"/v2 HTTP/1.1\r\nhost: x\r\n\r\n" + SMUGGLED), b"{}"),
    "space-in-path": lambda h: request(_path(h, b"/v2/models/digits/infer HTTP/1.1"), b"{}"),
    "zero-in-path": lambda h: request(_path(h, b"/v2/models/digits\0/infer"), b"{}"),
    "two-paths": lambda h: request([*h[:4], (b":path", b"/v2/models/other/infer"), *h[4:]], b"{}"),
    "two-methods": lambda h: request([(b":method", b"GET"), *h], b"{}"),
    "no-path": lambda h: request([each for each in h if each[0] != b":path"], b"{}"),
    "no-method": lambda h: request(h[1:], b"{}"),
    "path-after-headers": lambda h: request([*h[:3], *h[4:], h[3]], b"{}"),
    "unknown-pseudo-header": lambda h: request([*h[:4], (b":identity", b"boss"), *h[4:]], b"{}"),
    "capitals-in-name": lambda h: request([*h, (b"X-Naiad-Identity", b"boss")], b"{}"),
    "connection-header": lambda h: request([*h, (b"connection", b"x-api-key")], b"{}"),
    "websocket": lambda h: request([(b":method", b"CONNECT"), (b":protocol", b"websocket"), *h[1:]], b"{}"),
    "large-header": lambda h: request([*h, *((name, b"y" * 8000) for name in (b"x", b"y", b"z"))], b"{}"),
    "many-headers": lambda h: request([*h, *((b"x%d" % i, b"y") for i in range(900))], b"{}"),
    "flood-of-continuations": lambda h: (
        frame(HEADERS, block(h), stream=1) + frame(CONTINUATION, block([(b"x", b"y" * 1000)]), stream=1) * 200
    ),
    "empty-continuations": lambda h: frame(HEADERS, block(h), stream=1) + frame(CONTINUATION, stream=1) * 20_000,
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_proper_http2_reaches_nothing(setting: Setting, name: str) -> None:
    """It is answered with an error or ended, and no second request comes out behind the gateway."""
    before = len(setting.upstream.arrivals)
    with connect(setting) as connection:
        answer = exchange(connection, WRONG[name](sound(setting)))
    assert answer in ("reset", "closed", "400", "404", "another status"), answer
    assert setting.upstream.arrivals[before:] == []


FLOODS: dict[str, Callable[[Headers], bytes]] = {
    "rapid-reset": lambda h: b"".join(
        frame(HEADERS, block(h), flags=END_HEADERS, stream=stream) + frame(RST_STREAM, b"\0\0\0\x08", stream=stream)
        for stream in range(1, 20_001, 2)
    ),
    "settings": lambda h: frame(SETTINGS, b"\0\x03\0\0\0\x64") * 20_000,
    "pings": lambda h: frame(PING, bytes(8)) * 20_000,
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_does_not_stop_the_others(setting: Setting, name: str) -> None:
    """Meanwhile and afterwards others are served, and nothing of the flood arrives."""
    before = len(setting.upstream.arrivals)
    key = [("x-api-key", setting.keys["reader"])]
    with connect(setting) as connection:
        connection.settimeout(5)
        exchange(connection, FLOODS[name](sound(setting)))
        assert setting.grpc(f"meanwhile-{name}", "ModelInfer", infer(), key) == "grpc 0"
    assert setting.gateway.restarts == 0
    assert len(setting.upstream.arrivals) - before == 1
