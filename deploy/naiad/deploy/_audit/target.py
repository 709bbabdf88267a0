"""What is audited: an address, what the caller may show there, and what else is looked at."""

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from naiad.deploy.errors import InvalidTarget
from naiad.deploy.exposure import is_loopback

_PORTS: Final = {"grpc": 8001, "grpcs": 8001, "http": 8000, "https": 443}
USUAL_PORTS: Final = (8000, 8001, 8002, 9901)
"""Triton's HTTP, gRPC and metrics, and Envoy's administration, where nobody has changed them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A running deployment, and how to talk to it."""

    host: str
    port: int
    secure: bool
    """Whether the URL says TLS."""
    speaks_http: bool
    """Whether the URL says HTTP rather than gRPC; a gateway has both on one port."""
    secret: str | None = None
    """An API key, or the secret of Triton's restricted APIs."""
    root_certificates: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    server_name: str | None = None
    """The name to expect in the certificate, where it is not the host's."""
    timeout_s: float = 5.0
    large_request_mb: float = 65.0
    """Size of the request that a server should refuse; 0 sends none."""
    ports: tuple[int, ...] = USUAL_PORTS
    """Ports of the host that are looked at besides."""

    @property
    def address(self) -> str:
        """Host and port."""
        return join(self.host, self.port)

    @property
    def name(self) -> str:
        """What its certificate must name."""
        return self.server_name or self.host

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


def parse_target(url: str) -> Target:
    """Read `grpc://`, `grpcs://`, `http://` or `https://` with host and port; `grpc://:SECRET@host` carries a secret.

    Raises: `InvalidTarget`.
    """
    scheme, separator, _ = url.partition("://")
    try:
        parts = urlsplit(url if separator else f"grpc://{url}")
        port = parts.port
    except ValueError as exc:
        raise _wrong(url, str(exc)) from exc
    if parts.scheme not in _PORTS:
        raise _wrong(url, f"the scheme {scheme!r}")
    if not parts.hostname or parts.query or parts.path not in ("", "/"):
        raise _wrong(url, "no host" if not parts.hostname else "something behind the address")
    return Target(
        host=parts.hostname,
        port=_PORTS[parts.scheme] if port is None else port,
        secure=parts.scheme in {"grpcs", "https"},
        speaks_http=parts.scheme in {"http", "https"},
        secret=unquote(parts.password or "") or None,
    )


def join(host: str, port: int) -> str:
    """Host and port as one text, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def addresses_of(host: str) -> tuple[str, ...]:
    """The addresses of a host. Raises: `InvalidTarget` if it has none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise InvalidTarget(f"expected a host that has an address, found {host!r}: {exc}") from exc
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_this_machine(host: str) -> bool:
    """Whether an address of `host` is one of this machine's."""
    import psutil

    ours = {entry.address.partition("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries}
    theirs = addresses_of(host)
    return any(address in ours or ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in theirs)


def _wrong(url: str, found: str) -> InvalidTarget:
    shown = url.rpartition("@")[2]  # without a secret
    return InvalidTarget(f"expected a URL like grpcs://gateway:8443 or http://triton:8000, found {shown!r}: {found}")
