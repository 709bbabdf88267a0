"""What lies between client and server: TLS, servers that break, servers that lie."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import trustme

from naiad.client import TLS, Client, InferenceFailed, InvalidResponse, Retry, ServerUnavailable
from naiad.client.testing import FakeTriton, Line, ServerTLS

X = {"x": np.ones((1, 3), np.float32)}
MODELS = {"m": lambda x: {"y": x}}


@pytest.fixture
def fake() -> Iterator[FakeTriton]:
    with FakeTriton(MODELS) as server:
        yield server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def serve(authority) -> Iterator[Callable[..., FakeTriton]]:
    """Make servers with a certificate for triton.test; `mutual` ones want one of their callers too."""
    with ExitStack() as running:

        def make(*, mutual: bool = False) -> FakeTriton:
            certificate = authority.issue_cert("triton.test")
            tls = ServerTLS(
                certificate_chain=certificate.cert_chain_pems[0].bytes(),
                private_key=certificate.private_key_pem.bytes(),
                client_authorities=authority.cert_pem.bytes() if mutual else None,
            )
            return running.enter_context(FakeTriton(MODELS, tls=tls))

        yield make


@pytest.fixture
def roots(authority, tmp_path) -> Path:
    authority.cert_pem.write_to_path(tmp_path / "own ca.pem")
    return tmp_path / "own ca.pem"


def test_tls_with_an_own_authority(serve, roots, tmp_path):
    """The right authority and name are let in; a stranger's certificate and a plain connection are not."""
    server = serve()
    with Client(server.url, tls=TLS(root_certificates=roots, server_name="triton.test")) as known:
        assert known.live()
        assert known.url.startswith("grpcs://")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    stranger = TLS(root_certificates=tmp_path / "other.pem", server_name="triton.test")
    for client in (
        Client(server.url, tls=stranger, retry=Retry(attempts=1)),
        Client(f"grpc://{server.grpc_address}", retry=Retry(attempts=1)),
    ):
        with client, pytest.raises(ServerUnavailable):
            client.server_metadata()
    assert {request.method for request in server.requests} == {"ServerLive"}


def test_mutual_tls(serve, authority, roots, tmp_path):
    """Without a certificate of its own the client is not let in."""
    server = serve(mutual=True)
    mine = authority.issue_cert("client.test")
    mine.private_key_pem.write_to_path(tmp_path / "key.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    expected = {"root_certificates": roots, "server_name": "triton.test"}
    own = {"certificate_chain": tmp_path / "cert.pem", "private_key": tmp_path / "key.pem"}
    with Client(server.url, tls=TLS(**expected, **own)) as known:
        assert known.live()
    with Client(server.url, tls=TLS(**expected)) as anonymous:
        assert not anonymous.live()


def test_an_unavailable_server_is_asked_again(fake):
    """Two failures are made good within the call."""
    fake.fail(times=2, method="ServerMetadata")
    with Client(fake.url, retry=Retry(attempts=3, first_pause_s=0.01)) as client:
        client.server_metadata()
    assert len(fake.requests) == 3


def test_attempts_are_counted_and_other_failures_are_not_repeated(fake):
    """Three attempts are three, and an internal error is one."""
    with Client(fake.url, retry=Retry(attempts=3, first_pause_s=0.01)) as client:
        with fake.fail(method="ServerMetadata") as away, pytest.raises(ServerUnavailable, match="failed on purpose"):
            client.server_metadata()
        with (
            fake.fail(method="ServerMetadata", status="INTERNAL") as broken,
            pytest.raises(InferenceFailed, match="failed on purpose"),
        ):
            client.server_metadata()
    assert (away.num_struck, broken.num_struck) == (3, 1)


def test_a_sequence_is_never_sent_twice(fake):
    """A request that may have changed a state is not repeated."""
    fake.fail()
    with Client(fake.url, retry=Retry(attempts=5)) as client, pytest.raises(ServerUnavailable):
        client.infer("m", X, sequence_id=7, sequence_start=True)
    assert len(fake.calls()) == 1


def test_an_answer_that_is_none_is_a_typed_error_and_the_client_stays_usable(fake):
    """Garbage is refused for every method; the next answer is read."""
    fake.answer_bytes(b"\xff\xff\xff garbage", times=2, method=None)
    with Client(fake.url) as client:
        with pytest.raises(InvalidResponse):
            client.infer("m", X)
        with pytest.raises(InvalidResponse, match="expected a ServerMetadataResponse"):
            client.server_metadata()
        assert client.live()


def test_headers_go_with_every_call(fake):
    """A gateway's identity header arrives."""
    with Client(fake.url, metadata={"x-api-key": "blue"}) as client:
        assert client.live()
        client.infer("m", X)
    assert [request.metadata["x-api-key"] for request in fake.requests] == ["blue", "blue"]


def test_the_real_triton_behind_a_line_that_breaks(address):
    """Stalled, cut and told to go: each call fails in its own way or not at all, and the client goes on."""
    with Line(address) as line, Client(line.url) as client:
        assert client.infer("scale", X)["y"].tolist() == [[3, 3, 3]]
        line.goaway()
        while line.num_accepted < 2:
            assert client.infer("scale", X)["y"].tolist() == [[3, 3, 3]]
        with line.stalled("to_client"), pytest.raises(TimeoutError):
            client.infer("scale", X, timeout_s=0.5)
        assert client.infer("scale", X)["y"].tolist() == [[3, 3, 3]]
        line.cut_after(20)
        with pytest.raises(ServerUnavailable, match="may have run"):
            while True:
                client.infer("scale", X)
        with line.refused():
            line.cut()
            assert not client.live()
        client.wait_ready(20)
        assert client.infer("scale", X)["y"].tolist() == [[3, 3, 3]]
