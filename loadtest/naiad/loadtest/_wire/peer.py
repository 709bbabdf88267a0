"""Where a wire leads, and what lets it in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.plan import Connection

__all__ = ["MODEL_INFER", "MODEL_STREAM_INFER", "Credentials", "Peer"]

_DEFAULT_PORT: Final = 8001
_SERVICE: Final = "/inference.GRPCInferenceService/"
MODEL_INFER: Final = _SERVICE + "ModelInfer"
MODEL_STREAM_INFER: Final = _SERVICE + "ModelStreamInfer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """PEM text for TLS; the gRPC library takes contents, and a file that is gone is better found before the run."""

    authorities: bytes | None
    certificate: bytes | None
    key: bytes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """One server; ``credentials`` are ``None`` without TLS."""

    host: str
    port: int
    credentials: Credentials | None
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, connection: Connection) -> Peer:
        """Read a connection's settings, and its files.

        Raises:
            InvalidPlan: the URL is none, or a file cannot be read.
        """
        url = connection.url if "://" in connection.url else f"grpc://{connection.url}"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or _DEFAULT_PORT
        except ValueError as exc:
            raise InvalidPlan(f"expected an address like grpc://127.0.0.1:8001: {exc}") from exc
        if parts.scheme not in ("grpc", "grpcs") or not host:
            raise InvalidPlan("expected an address like grpc://127.0.0.1:8001, or grpcs:// with TLS")
        credentials = None
        if parts.scheme == "grpcs":
            credentials = Credentials(
                authorities=_read(connection.ca, "ca"),
                certificate=_read(connection.certificate, "certificate"),
                key=_read(connection.key, "key"),
            )
        return cls(host=host, port=port, credentials=credentials, headers=_headers(connection))

    @property
    def authority(self) -> str:
        """``host:port``, with brackets where the host is an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _headers(connection: Connection) -> tuple[tuple[str, str], ...]:
    for name, value in connection.headers.items():
        fits = name.isascii() and name and name == name.lower() and not name.startswith(("grpc-", ":"))
        if not fits or any(character in f"{name}{value}" for character in "\r\n\0"):
            raise InvalidPlan(f"headers have lower-case names that gRPC itself does not use, found {name!r}")
        if not value.isascii() or not value.isprintable():
            raise InvalidPlan(f"the value of header {name!r} is printable ASCII, found something else")
    return tuple(connection.headers.items())


def _read(path: Path | None, name: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InvalidPlan(f"{name} {str(path)!r} cannot be read: {exc.strerror or exc}", path=str(path)) from exc
