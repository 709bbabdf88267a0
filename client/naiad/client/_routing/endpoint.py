"""Addresses: what a URL says about where to call and how."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from naiad.client.errors import InvalidInput

DEFAULT_PORT = 8001  # Triton's gRPC port


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """One server: ``target`` is ``host:port`` as gRPC takes it."""

    target: str
    secure: bool = False
    admin_secret: str | None = None


def parse_endpoint(url: str) -> Endpoint:
    """Read ``grpc://host:port``, ``grpcs://host:port`` (TLS) or ``host:port``.

    ``grpc://:SECRET@host:port`` carries the admin secret.

    Raises:
        InvalidInput: the URL is none of these.
    """
    parts = urlsplit(url if "://" in url else f"grpc://{url}")
    if parts.scheme not in {"grpc", "grpcs"} or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise _bad(url, "")
    if "," in parts.netloc:
        raise _bad(url, "several addresses in one URL are not supported")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise _bad(url, str(exc)) from exc
    if not host:
        raise _bad(url, "the host is missing")
    bracketed = f"[{host}]" if ":" in host else host
    secret = unquote(parts.password) if parts.password else None
    return Endpoint(target=f"{bracketed}:{port or DEFAULT_PORT}", secure=parts.scheme == "grpcs", admin_secret=secret)


def _bad(url: str, reason: str) -> InvalidInput:
    shown = url.rsplit("@", 1)[-1]
    return InvalidInput(
        "expected an address like grpc://localhost:8001 (grpcs:// with TLS), "
        f"found {shown!r}{': ' + reason if reason else ''}"
    )
