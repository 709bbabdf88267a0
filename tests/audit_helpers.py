"""Deployments for the tests of the audit: careless ones, and what stands in front of them."""

import os
import select
import socket
import ssl
import subprocess
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from launcher_helpers import eventually
from naiad.server._home import find
from naiad.server._ports import choose


@dataclass(frozen=True, kw_only=True)
class Loose:
    """A Triton that somebody started without a thought."""

    pid: int
    http: int
    grpc: int
    metrics: int


@contextmanager
def loose_triton(repository: Path, *arguments: str) -> Iterator[Loose]:
    """The real Triton with explicit model control, nothing restricted, and a secret in its arguments."""
    home = find()
    http, grpc, metrics = choose((0, 0, 0))
    command = [
        home.server, f"--model-repository={repository}", "--model-control-mode=explicit", "--strict-readiness=false",
        "--http-address=127.0.0.1", f"--http-port={http}", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}",
        "--metrics-address=0.0.0.0", f"--metrics-port={metrics}", "--allow-gpu-metrics=false",
        f"--cache-directory={home.caches}", "--http-restricted-api=model-config:key=hunter2", *arguments,
    ]  # fmt: skip
    with (repository.parent / "loose.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
    try:
        eventually(lambda: _listens(grpc) and _listens(http), "Triton listens")
        yield Loose(pid=process.pid, http=http, grpc=grpc, metrics=metrics)
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@dataclass(frozen=True, kw_only=True)
class Files:
    """A certificate and its key on the disk."""

    certificate: Path
    key: Path


def write_certificate(
    folder: Path,
    *,
    days: float = 90,
    bits: int = 2048,
    names: Sequence[str] = ("127.0.0.1",),
    issuer: Files | None = None,
) -> Files:
    """A certificate that ends in so many days; without an issuer it vouches for itself."""
    key = rsa.generate_private_key(65537, bits)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
    signer = serialization.load_pem_private_key(issuer.key.read_bytes(), None) if issuer else key
    issued_by = x509.load_pem_x509_certificate(issuer.certificate.read_bytes()).subject if issuer else name
    now = datetime.now(UTC)
    began, ends = now - timedelta(days=400), now + timedelta(days=days)
    builder = x509.CertificateBuilder(issued_by, name, key.public_key(), x509.random_serial_number(), began, ends)
    builder = builder.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([_name(text) for text in names]), critical=False)
    folder.mkdir(parents=True)
    files = Files(certificate=folder / "tls.crt", key=folder / "tls.key")
    signed = builder.sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    files.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def _name(text: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ip_address(text))
    return x509.DNSName(text)


def careless(context: ssl.SSLContext) -> ssl.SSLContext:
    """Accept what nobody should accept any more."""
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
        context.minimum_version = ssl.TLSVersion.TLSv1
    return context


def server_context(files: Files, *, weak: bool = False, clients: Files | None = None) -> ssl.SSLContext:
    """What a TLS server is made of."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if weak:
        careless(context)
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+AESGCM")
    context.load_cert_chain(files.certificate, files.key)
    if clients:
        context.load_verify_locations(clients.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def tls_proxy(context: ssl.SSLContext, upstream: int, seen: bytearray | None = None) -> Iterator[int]:
    """Ends TLS in front of a port of this machine, as a gateway does; yields its own port.

    What callers sent is appended to `seen`.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()
        thread = threading.Thread(target=_accept, args=(listener, context, upstream, ended, seen))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def _accept(
    listener: socket.socket, context: ssl.SSLContext, upstream: int, ended: threading.Event, seen: bytearray | None
) -> None:
    listener.settimeout(0.05)
    threads = []
    while not ended.is_set():
        with suppress(TimeoutError):
            plain, _ = listener.accept()
            threads.append(threading.Thread(target=_serve, args=(plain, context, upstream, ended, seen)))
            threads[-1].start()
    for thread in threads:
        thread.join()


def _serve(
    plain: socket.socket, context: ssl.SSLContext, upstream: int, ended: threading.Event, seen: bytearray | None
) -> None:
    with plain, suppress(OSError, ValueError):
        plain.settimeout(5)
        with (
            context.wrap_socket(plain, server_side=True) as outer,
            socket.create_connection(("127.0.0.1", upstream), timeout=5) as inner,
        ):
            while not ended.is_set():
                ready: list[Any] = [outer] if outer.pending() else select.select([outer, inner], [], [], 0.05)[0]
                for source in ready:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if source is outer and seen is not None:
                        seen += data
                    (inner if source is outer else outer).sendall(data)
