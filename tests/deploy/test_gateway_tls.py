"""TLS at the gateway: versions, client certificates, revocation, and certificates that are replaced under load."""

import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest

from gateway_helpers import infer_message, log_lines, open_service, outcomes
from launcher_helpers import eventually
from naiad.deploy._files import write_all
from naiad.deploy.certificates import (
    Certificate,
    install_server_certificate,
    make_authority,
    make_client_certificate,
    make_revocations,
    make_server_certificate,
)
from naiad.deploy.gateway import Gateway
from recording_upstream import RecordingUpstream

NAMES = ("localhost", "127.0.0.1")
NUM_REQUESTS = 1000
ROTATIONS = 4


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A gateway with TLS, and what its certificates were made with."""

    gateway: Gateway
    authority: Certificate
    secrets: Path
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        url = urlsplit(self.gateway.http_url)
        assert url.hostname
        assert url.port
        return url.hostname, url.port


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory, upstream: RecordingUpstream) -> Iterator[Setting]:
    """Without client certificates; tests that need them `reload`."""
    folder = tmp_path_factory.mktemp("tls")
    secrets = folder / "secrets"
    secrets.mkdir()
    authority = make_authority("For tests", days=1)
    install_server_certificate(secrets, make_server_certificate(authority, NAMES, days=1))
    (secrets / "clients.crt").write_bytes(authority.certificate_pem)
    (secrets / "clients.crl").write_bytes(make_revocations(authority, days=1))
    (secrets / "api-keys").touch()
    log = folder / "access.log"
    with Gateway(
        open_service(tls=True), endpoints={"main": [upstream.endpoint()]}, secrets=secrets, access_log=log
    ) as gateway:
        yield Setting(gateway=gateway, authority=authority, secrets=secrets, log=log)


def client_context(setting: Setting, **fields: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=setting.authority.certificate_pem.decode())
    for name, value in fields.items():
        setattr(context, name, value)
    return context


def handshake(setting: Setting, context: ssl.SSLContext) -> tuple[str, bytes]:
    """The TLS version, and the server's certificate; also reads a byte, as TLS 1.3 refuses clients after that."""
    with (
        socket.create_connection(setting.address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        secured.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert secured.recv(1) == b"H"
        return secured.version() or "", secured.getpeercert(binary_form=True) or b""


def with_certificate(context: ssl.SSLContext, certificate: Certificate, folder: Path) -> ssl.SSLContext:
    (folder / "client.crt").write_bytes(certificate.certificate_pem)
    (folder / "client.key").write_bytes(certificate.key_pem)
    context.load_cert_chain(folder / "client.crt", folder / "client.key")
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(setting: Setting, version: ssl.TLSVersion) -> None:
    """Both versions that are still safe."""
    context = client_context(setting, minimum_version=version, maximum_version=version)
    assert handshake(setting, context)[0] == version.name.replace("_", ".", 1).replace("_", ".")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_older_versions_are_refused_and_logged(setting: Setting) -> None:
    """A handshake that fails has a line in the same log as the requests."""
    context = client_context(setting, minimum_version=ssl.TLSVersion.TLSv1_1, maximum_version=ssl.TLSVersion.TLSv1_1)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, OSError)):
        handshake(setting, context)
    eventually(lambda: any(line.get("tls_failure") for line in log_lines(setting.log)), "a line about TLS", 20)


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_both_protocols_are_negotiated(setting: Setting, protocol: str) -> None:
    """gRPC needs h2, REST clients speak HTTP/1.1; one port serves both."""
    context = client_context(setting)
    context.set_alpn_protocols([protocol])
    with (
        socket.create_connection(setting.address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        assert secured.selected_alpn_protocol() == protocol


def test_a_certificate_is_required_where_the_service_says_so(setting: Setting, tmp_path: Path) -> None:
    """None and a stranger's are refused in the handshake, one of the authority is taken; its fingerprint is logged."""
    stranger = make_client_certificate(make_authority("Somebody else", days=1), ["spiffe://evil"], days=1)
    known = make_client_certificate(setting.authority, ["spiffe://known"], days=1)
    setting.gateway.reload(open_service(tls=True, client_certificates="required"))
    try:
        for context in (client_context(setting), with_certificate(client_context(setting), stranger, tmp_path)):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                handshake(setting, context)
        handshake(setting, with_certificate(client_context(setting), known, tmp_path))
    finally:
        setting.gateway.reload(open_service(tls=True))


def test_an_optional_certificate_must_be_good_if_it_is_there(setting: Setting, tmp_path: Path) -> None:
    """Nobody needs one, but a stranger's is refused."""
    stranger = make_client_certificate(make_authority("Somebody else", days=1), ["spiffe://evil"], days=1)
    setting.gateway.reload(open_service(tls=True, client_certificates="optional"))
    try:
        handshake(setting, client_context(setting))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(setting, with_certificate(client_context(setting), stranger, tmp_path))
    finally:
        setting.gateway.reload(open_service(tls=True))


def test_a_revoked_certificate_is_refused_without_a_restart(setting: Setting, tmp_path: Path) -> None:
    """The list is read anew when it is replaced."""
    known = make_client_certificate(setting.authority, ["spiffe://leaver"], days=1)
    context = with_certificate(client_context(setting), known, tmp_path)
    setting.gateway.reload(open_service(tls=True, client_certificates="required", revocations=True))
    try:
        handshake(setting, context)
        write_all(setting.secrets, {"clients.crl": make_revocations(setting.authority, [known], days=1).decode()})
        eventually(lambda: is_refused(lambda: handshake(setting, context)), "the revoked certificate is refused", 20)
    finally:
        setting.gateway.reload(open_service(tls=True))


def is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (ssl.SSLError, ConnectionError):
        return True
    return False


@pytest.mark.timeout(120)
def test_certificates_are_replaced_under_load_without_a_failed_request(setting: Setting) -> None:
    """Connections come and go while the certificate changes several times; at the end the last one is served."""
    made = [make_server_certificate(setting.authority, NAMES, days=1) for _ in range(ROTATIONS)]

    def rotate() -> None:
        for certificate in made:
            install_server_certificate(setting.secrets, certificate)
            eventually(lambda: served(setting) == der(certificate), "the new certificate is served", 20)  # noqa: B023

    def trust() -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(setting.authority.certificate_pem)

    found = outcomes(
        setting.gateway.grpc_url,
        infer_message(),
        NUM_REQUESTS,
        midway=rotate,
        credentials=trust,
        per_channel=20,
    )
    assert found == {"OK": NUM_REQUESTS}
    assert served(setting) == der(made[-1])


def served(setting: Setting) -> bytes:
    return handshake(setting, client_context(setting))[1]


def der(certificate: Certificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.certificate_pem.decode())
