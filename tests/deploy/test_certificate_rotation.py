"""The gateway's certificate changes while callers come."""

import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from launcher_helpers import eventually
from naiad.deploy import Endpoint, Identity, Rights, Service
from naiad.deploy._envoy.admin import Admin
from naiad.deploy.certificates import Certificate
from naiad.deploy.gateway import Gateway
from naiad.deploy.secrets import make_secrets, renew_certificate

SERVICE = Service(identities=(Identity(name="vision", rights=Rights(infer=("*",))),))
NOBODY = {"main": (Endpoint(name="main-0", host="127.0.0.1", grpc_port=1, http_port=2),)}


@pytest.fixture
def places(tmp_path):
    make_secrets(SERVICE, tmp_path / "secrets", authority=tmp_path / "authority")
    return tmp_path / "secrets", tmp_path / "authority"


class Caller:
    """Somebody who trusts the authority, and opens a connection for each look at the certificate."""

    def __init__(self, url: str, authority: Path) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname, parts.port)
        self.tls = ssl.create_default_context(cafile=str(authority / "authority.crt"))

    def serial_number(self) -> int:
        with (
            socket.create_connection(self.address, timeout=10) as plain,
            self.tls.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return int(secure.getpeercert()["serialNumber"], 16)


def served_by(certificate: Certificate) -> int:
    return certificate.leaf.serial_number


def test_every_caller_gets_the_old_certificate_or_the_new_one(places):
    """Envoy takes each renewal at once, in one step: none of its attempts to read both files fails."""
    secrets, authority = places
    failures, num_calls, over = [], 0, threading.Event()
    with Gateway(SERVICE, endpoints=NOBODY, secrets=secrets) as gateway:
        caller = Caller(gateway.grpc_url, authority)

        def call():
            nonlocal num_calls
            while not over.is_set():
                try:
                    caller.serial_number()
                    num_calls += 1
                except OSError as exc:
                    failures.append(exc)

        thread = threading.Thread(target=call)
        thread.start()
        try:
            for _ in range(20):
                new = renew_certificate(secrets, authority=authority)
                eventually(lambda new=new: caller.serial_number() == served_by(new), "the new certificate is served")
        finally:
            over.set()
            thread.join()
        told = Admin(gateway.admin_socket).stats("key_rotation_failed|ssl_context_update_by_sds")
    assert failures == []
    assert num_calls > 0
    assert [value for name, value in told.items() if name.endswith("key_rotation_failed")] == [0]
    assert [value >= 20 for name, value in told.items() if name.endswith("update_by_sds")] == [True]


def test_a_connection_that_stands_survives_a_renewal(places):
    """It goes on with the certificate that it began with."""
    secrets, authority = places
    with Gateway(SERVICE, endpoints=NOBODY, secrets=secrets) as gateway:
        caller = Caller(gateway.grpc_url, authority)
        with (
            socket.create_connection(caller.address, timeout=10) as plain,
            caller.tls.wrap_socket(plain, server_hostname="localhost") as standing,
        ):
            for _ in range(3):
                standing.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
                assert standing.recv(1 << 16).startswith(b"HTTP/1.1 401 ")
                new = renew_certificate(secrets, authority=authority)
                eventually(lambda new=new: caller.serial_number() == served_by(new), "the new certificate is served")
