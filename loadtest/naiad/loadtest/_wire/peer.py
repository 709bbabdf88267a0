"""Where a wire leads, and what lets it in."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from naiad.loadtest._data.codec import endpoint_of, headers_of
from naiad.loadtest._wire.requests import MAX_HEADERS_BYTES
from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.plan import Connection

__all__ = ["Peer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """One server; ``tls`` is ``None`` where the line is open."""

    host: str
    port: int
    headers: tuple[tuple[str, str], ...] = ()
    tls: ssl.SSLContext | None = None
    connection: Connection

    @classmethod
    def of(cls, connection: Connection) -> Peer:
        """Read a connection's settings, and its files.

        Raises:
            naiad.client.InvalidInput: the URL is none.
            InvalidPlan: a header is none, or a file cannot be read.
        """
        endpoint = endpoint_of(connection.url)
        host, _, port = endpoint.target.rpartition(":")
        headers = tuple(headers_of(connection))
        for name, value in headers:
            _check_header(name, value)
        if (size := sum(len(name) + len(value) for name, value in headers)) > MAX_HEADERS_BYTES:
            raise InvalidPlan(f"headers have at most {MAX_HEADERS_BYTES} bytes together, found {size}")
        tls = _tls(connection) if endpoint.secure else None
        return cls(host=host.strip("[]"), port=int(port), headers=headers, tls=tls, connection=connection)

    @property
    def authority(self) -> str:
        """``host:port``, with brackets where the host is an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _tls(connection: Connection) -> ssl.SSLContext:
    for name, path in (("ca", connection.ca), ("certificate", connection.certificate), ("key", connection.key)):
        if path is not None:
            _check_readable(name, path)
    try:
        context = ssl.create_default_context(cafile=connection.ca)
        if connection.certificate is not None:
            # with a password at hand, an encrypted key is an error, and no question on the terminal
            context.load_cert_chain(connection.certificate, connection.key, password="")
    except ssl.SSLError as exc:
        raise InvalidPlan(f"expected PEM files of certificates and of an unencrypted key for TLS: {exc}") from exc
    context.set_alpn_protocols(["h2"])
    return context


def _check_readable(name: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as exc:
        raise InvalidPlan(f"{name} {str(path)!r} cannot be read: {exc.strerror or exc}", path=str(path)) from exc


def _check_header(name: str, value: str) -> None:
    if not name or not name.isascii() or name != name.lower() or name.startswith((":", "grpc-")):
        raise InvalidPlan(f"headers have lower-case names that gRPC does not use itself, found {name!r}")
    if not all(character.isascii() and character.isprintable() and character != " " for character in name):
        raise InvalidPlan(f"headers have names of printable ASCII without spaces, found {name!r}")
    if not value.isascii() or not value.isprintable():
        raise InvalidPlan(f"the value of header {name!r} is printable ASCII, found something else")
