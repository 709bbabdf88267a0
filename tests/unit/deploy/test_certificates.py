"""Certificates: made, checked, exchanged."""

import itertools
import multiprocessing
import os
import signal
import socket
import ssl
import threading
from contextlib import closing

import pytest

from naiad.deploy import InvalidCertificate, OutputNotWritable
from naiad.deploy.certificates import (
    Certificate,
    days_left,
    install_server_certificate,
    make_authority,
    make_client_certificate,
    make_revocations,
    make_server_certificate,
)


@pytest.fixture(scope="module")
def authority():
    return make_authority()


def write(directory, name, certificate):
    (directory / f"{name}.crt").write_bytes(certificate.certificate_pem)
    (directory / f"{name}.key").write_bytes(certificate.key_pem)
    return directory / f"{name}.crt", directory / f"{name}.key"


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Have both ends meet; raises what the client or, after it, the server says."""
    ours, theirs = socket.socketpair()
    failures = []

    def serve():
        try:
            with closing(server.wrap_socket(theirs, server_side=True)) as tls:
                tls.sendall(b"x")
        except OSError as exc:
            failures.append(exc)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with closing(client.wrap_socket(ours, server_hostname=name)) as tls:
            tls.recv(1)
    finally:
        ours.close()
        thread.join()
    if failures:
        raise failures[0]


def contexts(tmp_path, authority, server, client=None):
    for_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for_server.load_cert_chain(*write(tmp_path, "server", server))
    for_client = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    for_client.verify_flags |= ssl.VERIFY_X509_STRICT
    if client is not None:
        for_server.load_verify_locations(cadata=authority.certificate_pem.decode())
        for_server.verify_mode = ssl.CERT_REQUIRED
        for_client.load_cert_chain(*write(tmp_path, "client", client))
    return for_server, for_client


@pytest.mark.parametrize("name", ["gateway.example.com", "127.0.0.1", "::1"])
def test_a_server_is_known_by_each_of_its_names(tmp_path, authority, name):
    """The strictest verification that OpenSSL offers accepts it."""
    server = make_server_certificate(authority, ["gateway.example.com", "127.0.0.1", "::1"])
    shake_hands(*contexts(tmp_path, authority, server), name)


def test_a_server_is_not_known_by_another_name(tmp_path, authority):
    """Nor by another authority."""
    server = make_server_certificate(authority, ["gateway.example.com"])
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(*contexts(tmp_path, authority, server), "other.example.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(*contexts(tmp_path, make_authority(), server), "gateway.example.com")


def test_a_callers_certificate_is_for_calling_only(tmp_path, authority):
    """A caller cannot pose as the server with it."""
    server = make_server_certificate(authority, ["localhost"])
    client = make_client_certificate(authority, ["spiffe://example.com/vision"])
    assert client.names == ("spiffe://example.com/vision",)
    shake_hands(*contexts(tmp_path, authority, server, client), "localhost")
    posing = make_client_certificate(authority, ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(*contexts(tmp_path, authority, posing), "localhost")


def test_a_revoked_certificate_is_refused_by_who_reads_the_list(tmp_path, authority):
    """The list is signed by the authority, and names the certificate by its number."""
    server = make_server_certificate(authority, ["localhost"])
    client = make_client_certificate(authority, ["spiffe://example.com/vision"])
    for revoked in ((), (client,)):
        for_server, for_client = contexts(tmp_path, authority, server, client)
        (tmp_path / "clients.crl").write_bytes(make_revocations(authority, revoked))
        for_server.load_verify_locations(cafile=tmp_path / "clients.crl")
        for_server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        if not revoked:
            shake_hands(for_server, for_client, "localhost")
            continue
        with pytest.raises(ssl.SSLError, match="revoked"):
            shake_hands(for_server, for_client, "localhost")


def test_the_days_that_are_left_are_those_of_the_first_to_end(tmp_path, authority):
    """A chain is as good as its weakest certificate; one that ended is below zero."""
    soon, late = (make_server_certificate(authority, ["a"], days=days) for days in (5, 50))
    path = tmp_path / "tls.crt"
    path.write_bytes(late.certificate_pem + soon.certificate_pem)
    assert 4.99 < days_left(path) < 5
    path.write_bytes(make_server_certificate(authority, ["a"], days=-1).certificate_pem)
    assert -1.1 < days_left(path) < -0.9


def test_a_certificate_does_not_outlive_its_authority():
    """Nobody would believe it then."""
    authority = make_authority(days=10)
    assert make_server_certificate(authority, ["a"], days=90).ends == authority.ends


def test_files_that_are_not_each_others_are_refused(tmp_path, authority):
    """Before anything is changed; the messages hold no key."""
    first, second = (write(tmp_path, name, make_server_certificate(authority, [name])) for name in ("a", "b"))
    assert Certificate.read(*first).names == ("a",)
    with pytest.raises(InvalidCertificate, match="found another one's"):
        Certificate.read(first[0], second[1])
    with pytest.raises(InvalidCertificate, match="expected certificates in PEM form"):
        Certificate.read(first[1], first[1])
    with pytest.raises(InvalidCertificate, match="expected a private key in PEM form"):
        Certificate.read(first[0], first[0])
    with pytest.raises(InvalidCertificate, match="cannot be read: No such file"):
        Certificate.read(tmp_path / "missing", first[1])


@pytest.mark.parametrize("names", [[], [""], ["a b"], ["ä.example.com"]])
def test_a_name_that_is_none_is_refused(authority, names):
    """Before a certificate says it."""
    with pytest.raises(InvalidCertificate):
        make_server_certificate(authority, names)


def test_a_certificate_and_its_key_change_in_one_step(tmp_path, authority):
    """Whoever follows the links at any moment has both of one generation, also where plain files were before."""
    write(tmp_path, "tls", make_server_certificate(authority, ["a"]))
    for name in ("b", "c", "c"):
        install_server_certificate(tmp_path, make_server_certificate(authority, [name]))
        assert Certificate.read(tmp_path / "tls.crt", tmp_path / "tls.key").names == (name,)
    assert (tmp_path / "tls.key").resolve().parent == (tmp_path / "tls.crt").resolve().parent
    assert (tmp_path / "tls.key").stat().st_mode & 0o777 == 0o600
    current = os.readlink(tmp_path / "..tls")
    assert sorted(os.listdir(tmp_path)) == sorted(["..tls", current, "tls.crt", "tls.key"])


def test_the_same_certificate_again_changes_nothing(tmp_path, authority):
    """A script may install whenever it runs."""
    certificate = make_server_certificate(authority, ["a"])
    install_server_certificate(tmp_path, certificate)
    before = os.readlink(tmp_path / "..tls")
    install_server_certificate(tmp_path, certificate)
    assert os.readlink(tmp_path / "..tls") == before
    assert Certificate.read(tmp_path / "tls.crt", tmp_path / "tls.key") == certificate


def test_a_missing_directory_is_reported_with_what_makes_it(tmp_path, authority):
    """It is made by another command."""
    with pytest.raises(OutputNotWritable, match="naiad deploy secrets"):
        install_server_certificate(tmp_path / "secrets", make_server_certificate(authority, ["a"]))


def exchange_for_ever(directory, certificates, ready):
    for certificate in itertools.cycle(certificates):
        install_server_certificate(directory, certificate)
        ready.set()


def test_a_process_that_is_killed_leaves_a_pair_that_fits(tmp_path, authority):
    """Whatever it was doing; the next exchange takes away what it left."""
    certificates = [make_server_certificate(authority, [name]) for name in ("a", "b", "c")]
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        ready = context.Event()
        worker = context.Process(target=exchange_for_ever, args=(tmp_path, certificates, ready))
        worker.start()
        assert ready.wait(10)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        assert Certificate.read(tmp_path / "tls.crt", tmp_path / "tls.key") in certificates
    install_server_certificate(tmp_path, certificates[0])
    assert sum(path.name.startswith("..tls-") for path in tmp_path.iterdir()) == 1
