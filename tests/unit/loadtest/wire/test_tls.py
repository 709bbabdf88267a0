"""Both transports over TLS, with certificates of an authority made for the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from naiad.loadtest import InvalidPlan
from naiad.loadtest._wire.opening import open_wire
from naiad.loadtest.plan import Connection
from wire_helpers import Programmed, answer_to, command, content, ends_of, programmed_server, wire_to


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The authority's certificate, and a client's."""
    folder = tmp_path_factory.mktemp("tls files")
    client = authority.issue_cert("client@example.org")
    paths = {name: folder / f"{name}.pem" for name in ("ca", "certificate", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    client.cert_chain_pems[0].write_to_path(paths["certificate"])
    client.private_key_pem.write_to_path(paths["key"])
    return paths


@pytest.fixture(scope="module", params=[False, True], ids=["tls", "mutual tls"])
def secure(request: Any, authority: trustme.CA) -> Any:
    """A server that may ask for the client's certificate."""
    own = authority.issue_cert("127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes() if request.param else None,
        require_client_auth=request.param,
    )
    with programmed_server(credentials=credentials) as server:
        server.mutual = request.param
        yield server


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_requests_pass_over_tls(secure: Programmed, files: dict[str, Path], transport: str) -> None:
    """Small and large messages and streams, both ways, on several connections."""
    with wire_to(secure.url, transport, 2, **files) as wire:
        wire.send(wire.prepare(command(5_000_000, size=5_000_000)), 0, 30.0)
        for token in range(1, 50):
            wire.send(wire.prepare(command(size=token)), token, 30.0)
        wire.open_stream(50, None)
        wire.write(wire.prepare(command(echo="hello")), 50)
        wire.close_stream(50)
        ends = ends_of(wire, 51)
    assert {end.status for end in ends.values()} == {0}
    assert bytes(ends[0].message or b"") == content(5_000_000)
    assert all(ends[token].message == content(token) for token in range(1, 50))


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_a_server_of_another_authority_is_not_trusted(secure: Programmed, tmp_path: Path, transport: str) -> None:
    """Where the certificate cannot be verified, requests end with UNAVAILABLE."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with wire_to(secure.url, transport, ca=tmp_path / "other.pem") as wire:
        end = answer_to(wire, command())
    assert end.status == 14
    assert "certificate" in end.details.lower() or "handshake" in end.details.lower()


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_a_certificate_that_is_asked_for_is_missed(secure: Programmed, files: dict[str, Path], transport: str) -> None:
    """Without a certificate of its own the client does not get into a server that wants one."""
    with wire_to(secure.url, transport, ca=files["ca"]) as wire:
        assert answer_to(wire, command()).status == (14 if secure.mutual else 0)


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_tls_to_a_server_without_it_is_an_event(files: dict[str, Path], transport: str) -> None:
    """The wrong scheme ends in UNAVAILABLE, not in a wait."""
    with programmed_server() as plain, wire_to(plain.url.replace("grpc:", "grpcs:"), transport, ca=files["ca"]) as wire:
        assert answer_to(wire, command()).status == 14


def test_no_tls_to_a_server_with_it_is_an_event(secure: Programmed) -> None:
    """The other wrong scheme, too."""
    with wire_to(secure.url.replace("grpcs:", "grpc:")) as wire:
        assert answer_to(wire, command()).status == 14


@pytest.mark.parametrize("name", ["ca", "certificate", "key"])
@pytest.mark.parametrize("what", ["missing", "no certificate"])
def test_a_file_that_is_none_is_named(files: dict[str, Path], tmp_path: Path, name: str, what: str) -> None:
    """Before anything is sent, a file that cannot be read, or is not what it should be, is an error."""
    wrong = tmp_path / "wrong.pem"
    if what == "no certificate":
        wrong.write_text("nothing")
    with pytest.raises(InvalidPlan, match=r"wrong\.pem.*cannot be read|PEM files"):
        open_wire(Connection(url="grpcs://127.0.0.1:1", **{**files, name: wrong}))


@pytest.mark.parametrize(
    "headers", [{"x y": "a"}, {"": "a"}, {"grpc-timeout": "1S"}, {":path": "/"}, {"x": "ä"}, {"x": "a" * 9_000}]
)
def test_headers_that_cannot_be_sent_are_refused(headers: dict[str, str]) -> None:
    """What would break the protocol, or every server refuses, is an error before anything is sent."""
    with pytest.raises(InvalidPlan, match="header"):
        open_wire(Connection(headers=headers))
