"""Addresses: what a URL says about where to call and how, and names that stand for several servers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from naiad.client.errors import InvalidInput, ServerUnavailable

DEFAULT_PORT = 8001  # Triton's gRPC port
Servers = str | Sequence[str] | Callable[[], Iterable[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """One server: ``target`` is ``host:port`` as gRPC takes it.

    ``name`` is what its certificate says where that is not the target's host: an address found through DNS.
    """

    target: str
    secure: bool = False
    admin_secret: str | None = None
    name: str | None = None

    @property
    def shown(self) -> str:
        """The address as errors and logs name it, without secrets."""
        return f"{'grpcs' if self.secure else 'grpc'}://{self.target}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Directory:
    """Where the addresses of the servers come from; ``lookup`` may wait for the network."""

    shown: str
    lookup: Callable[[], tuple[Endpoint, ...]]
    changes: bool
    """Whether a later look-up may find others."""


def parse_endpoint(url: str) -> Endpoint:
    """Read ``grpc://host:port``, ``grpcs://host:port`` (TLS) or ``host:port``.

    ``grpc://:SECRET@host:port`` carries the admin secret.

    Raises:
        InvalidInput: the URL is none of these.
    """
    endpoints = _parse(url)
    if len(endpoints) > 1:
        raise _bad(url, "one address is wanted here")
    return endpoints[0]


def directory_of(servers: Servers) -> Directory:
    """Read what a client was given as its servers.

    ``grpc://a:8001,b:8001`` and a list name several; ``dns:///name:port`` (``dnss:///`` with TLS) stands for
    all addresses of a name; a function returns the URLs of the moment.

    Raises:
        InvalidInput: an address is none, or there is not even one.
    """
    if isinstance(servers, str):
        scheme, _, name = servers.partition(":///")
        if scheme in {"dns", "dnss"} and name:
            return _dns(scheme, name)
        return _fixed(_parse(servers))
    if callable(servers):
        return _asked(servers)
    if not isinstance(servers, Iterable):
        raise InvalidInput(f"expected addresses like grpc://localhost:8001, found {type(servers).__name__}")
    return _fixed(_parse_all(servers))


def _asked(function: Callable[[], Iterable[str]]) -> Directory:
    shown = getattr(function, "__name__", "servers()")

    def lookup() -> tuple[Endpoint, ...]:
        try:
            urls = [*function()]
        except Exception as exc:
            raise ServerUnavailable(
                f"the function '{shown}', which names the servers, failed: {exc!r}", endpoint=shown, unprocessed=True
            ) from exc
        return _parse_all(urls)

    return Directory(shown=shown, lookup=lookup, changes=True)


def _fixed(endpoints: tuple[Endpoint, ...]) -> Directory:
    shown = f"{endpoints[0].shown}{''.join(f',{endpoint.target}' for endpoint in endpoints[1:])}"
    return Directory(shown=shown, lookup=lambda: endpoints, changes=False)


def _parse_all(urls: Iterable[str]) -> tuple[Endpoint, ...]:
    if isinstance(urls, str):
        urls = [urls]
    found = dict.fromkeys(endpoint for url in urls for endpoint in _parse(url))
    if not found:
        raise InvalidInput("expected the address of at least one server, found none")
    return tuple(found)


def _dns(scheme: str, name: str) -> Directory:
    pattern = parse_endpoint(f"{'grpcs' if scheme == 'dnss' else 'grpc'}://{name}")
    host, _, port = pattern.target.rpartition(":")
    host = host.strip("[]")

    def lookup() -> tuple[Endpoint, ...]:
        try:
            found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError as exc:
            raise ServerUnavailable(
                f"the name '{host}' has no address ({exc.strerror or exc}): check the name, or this machine's DNS",
                endpoint=f"{scheme}:///{pattern.target}",
                unprocessed=True,
            ) from exc
        addresses = dict.fromkeys(str(address[4][0]) for address in found)
        return tuple(
            replace(pattern, target=f"[{address}]:{port}" if ":" in address else f"{address}:{port}", name=host)
            for address in addresses
        )

    return Directory(shown=f"{scheme}:///{pattern.target}", lookup=lookup, changes=True)


def _parse(url: str) -> tuple[Endpoint, ...]:
    if not isinstance(url, str):
        raise InvalidInput(f"expected an address like grpc://localhost:8001, found {type(url).__name__}")
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "grpc", url
    if "/" in rest:
        rest, _, tail = rest.partition("/")
        if tail:
            raise _bad(url, "a path has no meaning here")
    if scheme not in {"grpc", "grpcs"}:
        raise _bad(url, f"the scheme '{scheme}' is unknown")
    return tuple(dict.fromkeys(_one(f"{scheme}://{part}", url) for part in rest.split(",")))


def _one(url: str, whole: str) -> Endpoint:
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise _bad(whole, "a query has no meaning here")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise _bad(whole, str(exc)) from exc
    if not host:
        raise _bad(whole, "the host is missing")
    bracketed = f"[{host}]" if ":" in host else host
    secret = unquote(parts.password) if parts.password else None
    return Endpoint(target=f"{bracketed}:{port or DEFAULT_PORT}", secure=parts.scheme == "grpcs", admin_secret=secret)


def _bad(url: str, reason: str) -> InvalidInput:
    shown = ",".join(part.rsplit("@", 1)[-1] for part in url.split(","))
    return InvalidInput(
        "expected an address like grpc://localhost:8001 (grpcs:// with TLS, several with commas, dns:///name:port), "
        f"found {shown!r}: {reason}"
    )
