"""What lies between client and server: TLS, servers that break, servers that lie. Real gRPC servers in threads."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import trustme

from naiad.client import TLS, Client, InvalidResponse, Retry, ServerUnavailable

LIVE = b"\x08\x01"  # ServerLiveResponse(live=True)


class Server(grpc.GenericRpcHandler):
    """Answers every method with what `answer` returns, and counts the calls."""

    def __init__(self, answer: Callable[[grpc.ServicerContext], bytes]) -> None:
        self.answer, self.num_calls, self._lock = answer, 0, threading.Lock()

    def service(self, details: object) -> grpc.RpcMethodHandler:
        def call(_: bytes, context: grpc.ServicerContext) -> bytes:
            with self._lock:
                self.num_calls += 1
            return self.answer(context)

        return grpc.unary_unary_rpc_method_handler(call)


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    running = []

    def start(handler: Server, credentials: grpc.ServerCredentials | None = None) -> int:
        server = grpc.server(ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((handler,))
        running.append(server)
        address = "127.0.0.1:0"
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        server.start()
        return port

    yield start
    for server in running:
        server.stop(None).wait()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def credentials(authority: trustme.CA, *, mutual: bool = False) -> grpc.ServerCredentials:
    certificate = authority.issue_cert("triton.test")
    pair = (certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())
    roots = authority.cert_pem.bytes() if mutual else None
    return grpc.ssl_server_credentials([pair], roots, mutual)


def test_tls_with_an_own_authority(serve, authority, tmp_path):
    """The right authority and name are let in; a stranger's certificate and a plain connection are not."""
    port = serve(Server(lambda _: LIVE), credentials(authority))
    authority.cert_pem.write_to_path(tmp_path / "own ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with Client(
        f"grpcs://127.0.0.1:{port}", tls=TLS(root_certificates=tmp_path / "own ca.pem", server_name="triton.test")
    ) as known:
        assert known.live()
        assert known.url.startswith("grpcs://")
    stranger = TLS(root_certificates=tmp_path / "other.pem", server_name="triton.test")
    for client in (
        Client(f"grpcs://127.0.0.1:{port}", tls=stranger, retry=Retry(attempts=1)),
        Client(f"grpc://127.0.0.1:{port}", retry=Retry(attempts=1)),
    ):
        with client, pytest.raises(ServerUnavailable):
            client.server_metadata()


def test_mutual_tls(serve, authority, tmp_path):
    """Without a certificate of its own the client is not let in."""
    port = serve(Server(lambda _: LIVE), credentials(authority, mutual=True))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine = authority.issue_cert("client.test")
    mine.private_key_pem.write_to_path(tmp_path / "key.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    roots = {"root_certificates": tmp_path / "ca.pem", "server_name": "triton.test"}
    own = {"certificate_chain": tmp_path / "cert.pem", "private_key": tmp_path / "key.pem"}
    with Client(f"127.0.0.1:{port}", tls=TLS(**roots, **own)) as known:
        assert known.live()
    with Client(f"127.0.0.1:{port}", tls=TLS(**roots)) as anonymous:
        assert not anonymous.live()


def failing_first(times: int, status: grpc.StatusCode) -> Server:
    def answer(context: grpc.ServicerContext) -> bytes:
        if server.num_calls <= times:
            context.abort(status, "not now")
        return LIVE

    server = Server(answer)
    return server


def test_an_unavailable_server_is_asked_again(serve):
    """Two failures are made good within the call."""
    server = failing_first(2, grpc.StatusCode.UNAVAILABLE)
    with Client(f"127.0.0.1:{serve(server)}", retry=Retry(attempts=3, first_pause_s=0.01)) as client:
        client.server_metadata()
    assert server.num_calls == 3


def test_attempts_are_counted_and_other_failures_are_not_repeated(serve):
    """Three attempts are three, and an internal error is one."""
    server = failing_first(99, grpc.StatusCode.UNAVAILABLE)
    with (
        Client(f"127.0.0.1:{serve(server)}", retry=Retry(attempts=3, first_pause_s=0.01)) as client,
        pytest.raises(ServerUnavailable, match="not now"),
    ):
        client.server_metadata()
    assert server.num_calls == 3
    broken = failing_first(99, grpc.StatusCode.INTERNAL)
    with Client(f"127.0.0.1:{serve(broken)}") as client, pytest.raises(Exception, match="not now"):
        client.server_metadata()
    assert broken.num_calls == 1


def test_a_sequence_is_never_sent_twice(serve):
    """A request that may have changed a state is not repeated."""
    server = failing_first(99, grpc.StatusCode.UNAVAILABLE)
    with Client(f"127.0.0.1:{serve(server)}", retry=Retry(attempts=5)) as client, pytest.raises(ServerUnavailable):
        client.infer("m", {"x": [1.0]}, sequence_id=7, sequence_start=True)
    assert server.num_calls == 1


def test_an_answer_that_is_none_is_a_typed_error_and_the_client_stays_usable(serve):
    """Garbage is refused for every method; the next answer is read."""
    server = Server(lambda _: b"\xff\xff\xff garbage" if server.num_calls <= 2 else LIVE)
    with Client(f"127.0.0.1:{serve(server)}") as client:
        with pytest.raises(InvalidResponse):
            client.infer("m", {"x": [1.0]})
        with pytest.raises(InvalidResponse, match="expected a ServerMetadataResponse"):
            client.server_metadata()
        assert client.live()


def test_headers_go_with_every_call(serve):
    """A gateway's identity header arrives."""
    seen: list[str] = []

    def answer(context: grpc.ServicerContext) -> bytes:
        seen.extend(value for key, value in context.invocation_metadata() if key == "x-api-key")
        return LIVE

    with Client(f"127.0.0.1:{serve(Server(answer))}", metadata={"x-api-key": "blue"}) as client:
        assert client.live()
    assert seen == ["blue"]
