"""What both clients are made from, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from naiad.client._routing.endpoint import parse_endpoint
from naiad.client._transport.seam import ADMIN_HEADER, Connection
from naiad.client.errors import InvalidInput
from naiad.client.options import TLS, Retry, Timeout

DEFAULT_URL = "grpc://localhost:8001"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """A client's options after validation; ``shown`` is the endpoint as errors name it, without secrets."""

    connection: Connection
    timeout: Timeout
    retry: Retry
    shown: str

    @classmethod
    def of(
        cls,
        url: str,
        *,
        timeout: Timeout | float,
        retry: Retry,
        tls: TLS | None,
        admin_secret: str | None,
        metadata: Mapping[str, str] | None,
    ) -> Settings:
        """Check the arguments of a client.

        Raises:
            InvalidInput: the URL, a time-out or a header is not one.
        """
        endpoint = parse_endpoint(url)
        secret = admin_secret or endpoint.admin_secret
        headers = dict(metadata or {})
        if secret:
            headers[ADMIN_HEADER] = secret
        return cls(
            connection=Connection(endpoint=endpoint, tls=tls, metadata=tuple(_checked(headers).items())),
            timeout=timeout if isinstance(timeout, Timeout) else Timeout(total_s=timeout),
            retry=retry,
            shown=f"{'grpcs' if endpoint.secure or tls else 'grpc'}://{endpoint.target}",
        )


def _checked(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if name != name.lower() or not name.isascii() or not isinstance(value, str) or not value.isprintable():
            raise InvalidInput(f"metadata is lower-case ASCII names to printable text, found {name!r}")
    return headers


def version_text(version: str | int | None) -> str | None:
    """Return a version as the protocol writes it.

    Raises:
        InvalidInput: it is neither a whole number above 0 nor its text.
    """
    if version is None or version == "":
        return None
    text = str(version)
    if isinstance(version, bool) or not (text.isascii() and text.isdigit()):
        raise InvalidInput(f"a version is a whole number like 3, found {version!r}")
    return text
