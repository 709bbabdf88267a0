"""Hostile connections: what is no proper TLS or HTTP ends at the gateway."""

import socket
import ssl
from collections.abc import Callable, Iterator

import pytest

from launcher_helpers import eventually
from naiad.deploy.certificates import make_revocations
from recording_upstream import RecordingUpstream
from security_setting import LIMITS, Setting, infer, make_service, make_setting

INFER = "POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\nuser-agent: {agent}\r\nx-api-key: {key}\r\n"


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A gateway that asks for client certificates, but does without."""
    with RecordingUpstream() as upstream:
        setting = make_setting(tmp_path_factory.mktemp("connections"), upstream, make_service())
        with setting.gateway:
            yield setting


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A gateway that insists on client certificates."""
    with RecordingUpstream() as upstream:
        service = make_service(client_certificates="required")
        setting = make_setting(tmp_path_factory.mktemp("strict"), upstream, service)
        with setting.gateway:
            yield setting


@pytest.mark.parametrize("name", ["rogue", "revoked", "expired", "server"])
def test_a_certificate_that_is_not_believed_ends_the_connection(setting: Setting, name: str) -> None:
    """Another authority's, a revoked, an expired one, and one that is not for clients: all are worse than none."""
    certificate = setting.certificates[name]
    before = len(setting.upstream.arrivals)
    headers = [("x-api-key", setting.keys["reader"])]
    assert setting.grpc(f"tls-{name}", "ModelInfer", infer(), headers, certificate) == "grpc 14"
    assert setting.http(f"tls-{name}", "GET /v2", headers, certificate=certificate) == "closed"
    assert setting.upstream.arrivals[before:] == []


def test_no_certificate_where_one_is_required_ends_the_connection(strict: Setting) -> None:
    """A key alone does not help; with a certificate it does."""
    headers = [("x-api-key", strict.keys["reader"])]
    assert strict.grpc("tls-none", "ModelInfer", infer(), headers) == "grpc 14"
    assert strict.http("tls-none", "GET /v2", headers) == "closed"
    assert strict.upstream.arrivals == []
    assert strict.grpc("tls-own", "ModelInfer", infer(), certificate=strict.certificates["reader"]) == "grpc 0"
    strict.logged("tls-own", identity="reader")


def test_a_certificate_and_a_key_of_different_identities_are_refused(setting: Setting) -> None:
    """Whose right would count?"""
    headers = [("x-api-key", setting.keys["boss"])]
    status = setting.grpc("two-identities", "ModelInfer", infer(), headers, setting.certificates["reader"])
    assert status == "grpc 16"
    setting.logged("two-identities", denied="contradicting")


def test_a_certificate_that_is_revoked_while_the_gateway_runs_is_refused(strict: Setting) -> None:
    """The list of revocations is read again when it is replaced."""
    certificate = strict.certificates["watcher"]
    assert strict.grpc("watcher", "ServerLive", certificate=certificate) == "grpc 0"
    staged = strict.directory / "secrets" / ".clients.crl"
    staged.write_bytes(make_revocations(strict.authority, [certificate, strict.certificates["revoked"]]))
    staged.replace(strict.directory / "secrets" / "clients.crl")
    while strict.grpc("watcher", "ServerLive", certificate=certificate) == "grpc 0":
        pass
    assert strict.grpc("watcher", "ServerLive", certificate=certificate) == "grpc 14"


def test_sessions_are_not_resumed_where_certificates_count(strict: Setting) -> None:
    """A resumed session's certificate would not be checked again, even if it is revoked meanwhile."""
    context = ssl.create_default_context(cadata=strict.authority.certificate_pem.decode())
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # its sessions come with the handshake
    own, file = strict.certificates["reader"], strict.directory / "resumed.pem"
    file.write_bytes(own.certificate_pem + own.key_pem)
    context.load_cert_chain(file)
    session = None
    for _ in range(3):
        plain = socket.create_connection(strict.address, timeout=20)
        with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as connection:
            connection.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            assert not connection.session_reused
            session = connection.session


def test_plain_http_at_the_port_of_tls_is_closed(setting: Setting) -> None:
    """Nobody sends a key in the clear by mistake and gets away with it."""
    with socket.create_connection(setting.address, timeout=20) as plain:
        plain.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP")


def test_old_tls_is_refused(setting: Setting) -> None:
    """1.2 is the least."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(setting.address, timeout=20) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain)


def _smuggled(text: str) -> bytes:
    inner = "0\r\n\r\nPOST /v2/models/other/infer HTTP/1.1\r\nhost: x\r\n\r\n"
    return f"{text}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n{inner}".encode()


RAW: dict[str, tuple[Callable[[str], bytes], str]] = {
    "length-and-chunks": (_smuggled, "http 400"),
    "two-lengths": (lambda t: f"{t}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}".encode(), "http 400"),
    "list-of-lengths": (lambda t: f"{t}content-length: 2,3\r\n\r\n{{}}".encode(), "http 400"),
    "negative-length": (lambda t: f"{t}content-length: -2\r\n\r\n{{}}".encode(), "http 400"),
    "unknown-encoding": (lambda t: f"{t}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n".encode(), "http 501"),
    "two-encodings": (lambda t: f"{t}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n".encode(), "http 501"),
    "wrong-chunk": (lambda t: f"{t}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n".encode(), "http 400"),
    "line-feed-in-header": (lambda t: f"{t}x: a\nx-b: c\0\r\n\r\n".encode(), "http 400"),
    "space-before-colon": (lambda t: f"{t}transfer-encoding : chunked\r\n\r\n".encode(), "http 400"),
    "no-host": (lambda t: t.replace("host: x\r\n", "").encode() + b"\r\n", "http 400"),
    "http-0.9": (lambda t: b"GET /v2\r\n\r\n", "http 426"),
    "http-1.0": (lambda t: t.replace("HTTP/1.1", "HTTP/1.0").encode() + b"\r\n", "http 426"),
    "connect": (lambda t: t.replace("POST /v2/models/digits/infer", "CONNECT a:80").encode() + b"\r\n", "http 400"),
    "connect-without-key": (lambda t: b"CONNECT 127.0.0.1:8000 HTTP/1.1\r\nhost: 127.0.0.1:8000\r\n\r\n", "http 401"),
    "websocket": (
        lambda t: f"{t.replace('POST', 'GET')}connection: upgrade\r\nupgrade: websocket\r\n\r\n".encode(),
        "http 403",
    ),
    "headers-of-20-kib": (lambda t: f"{t}x: {'y' * 20 * 1024}\r\n\r\n".encode(), "http 431"),
    "url-of-20-kib": (lambda t: t.replace("digits", "d" * 20 * 1024).encode() + b"\r\n", "http 431"),
    "flood-of-headers": (
        lambda t: (t + "".join(f"x{i}: y\r\n" for i in range(1000)) + "\r\n").encode(),
        "http 431",
    ),
    "noise": (lambda t: bytes(range(256)) * 8, "http 400"),
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_not_proper_http_reaches_nothing(setting: Setting, name: str) -> None:
    """Requests that two programs could read in two ways, or that are too much, are refused by the first."""
    make, status = RAW[name]
    before = len(setting.upstream.arrivals)
    assert setting.raw(make(INFER.format(agent=name, key=setting.keys["reader"]))) == status
    assert setting.upstream.arrivals[before:] == []


def test_a_slow_caller_is_cut_off(setting: Setting) -> None:
    """Headers that do not come to an end within the time end the connection (slow loris)."""
    with setting.connect() as connection:
        connection.settimeout(LIMITS.header_timeout_s * 20)
        connection.sendall(b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\nuser-agent: slow-loris\r\n")
        assert connection.recv(100)[:12] in (b"HTTP/1.1 408", b"HTTP/1.1 504")
        own = "{}:{}".format(*connection.getsockname())
    eventually(
        lambda: any(line["client"] == own and line["details"] != "via_upstream" for line in setting.log_lines()),
        "its line",
    )


def test_a_caller_cannot_change_the_gateways_own_settings(setting: Setting) -> None:
    """Envoy's control headers, of which some shorten time-outs or multiply retries, mean nothing from outside."""
    headers = [
        ("x-api-key", setting.keys["reader"]),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-max-retries", "1000"),
        ("x-envoy-original-path", "/metrics"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x_naiad_identity", "boss"),
    ]
    assert setting.grpc("control", "ModelInfer", infer(), headers) == "grpc 0"
    arrived = setting.upstream.arrivals[-1].headers
    assert not {name for name, _ in headers if name != "x-forwarded-for"} & set(arrived)


def test_a_request_that_waits_for_permission_to_send_gets_it_only_once(setting: Setting) -> None:
    """`expect: 100-continue` does not let an unknown caller's body in."""
    head = INFER.format(agent="expect", key="wrong") + "expect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    before = len(setting.upstream.arrivals)
    with setting.connect() as connection:
        connection.sendall(head.encode())
        answer = connection.recv(65536)
        while b" 401 " not in answer:
            more = connection.recv(65536)
            assert more, answer
            answer += more
    setting.logged("expect", denied="unknown-key")
    assert setting.upstream.arrivals[before:] == []
