"""What both clients are made from, checked once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from naiad.client._device.devices import Devices
from naiad.client._observe import Observer
from naiad.client._routing.endpoint import Directory, Endpoint, Servers, directory_of
from naiad.client._routing.pool import Connected, Peer
from naiad.client._transport.seam import ADMIN_HEADER, Connection, Headers
from naiad.client.errors import ClientError, InvalidInput
from naiad.client.options import TLS, Balancing, CudaMemory, Hedge, Limits, Retry, SharedMemory, Timeout

DEFAULT_URL = "grpc://localhost:8001"
TransportT = TypeVar("TransportT", bound=Connected)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """A client's options after validation."""

    directory: Directory
    timeout: Timeout
    retry: Retry
    balancing: Balancing
    hedge: Hedge | None
    limits: Limits
    tls: TLS | None
    admin_secret: str | None
    headers: Headers
    observers: tuple[Observer, ...]
    shared_memory: SharedMemory | None
    devices: Devices | None
    """The GPUs, where tensors on them are to reach servers through their memory."""

    @classmethod
    def of(
        cls,
        url: Servers,
        *,
        timeout: Timeout | float,
        retry: Retry,
        balancing: Balancing,
        hedge: Hedge | None,
        limits: Limits,
        tls: TLS | None,
        admin_secret: str | None,
        metadata: Mapping[str, str] | None,
        observers: Sequence[Observer],
        shared_memory: SharedMemory | bool | str,
        cuda_memory: CudaMemory | bool | str,
    ) -> Settings:
        """Check the arguments of a client.

        Raises:
            InvalidInput: an address, a time-out or a header is not one.
        """
        headers = dict(metadata or {})
        if admin_secret:
            headers[ADMIN_HEADER] = admin_secret
        return cls(
            directory=directory_of(url),
            timeout=timeout if isinstance(timeout, Timeout) else Timeout(total_s=timeout),
            retry=retry,
            balancing=balancing,
            hedge=hedge,
            limits=limits,
            tls=tls,
            admin_secret=admin_secret,
            headers=tuple(_checked(headers).items()),
            observers=tuple(observers),
            shared_memory=SharedMemory.of(shared_memory),
            devices=Devices.of(cuda_memory),
        )

    def peer(self, endpoint: Endpoint, connect: Callable[[Connection], TransportT]) -> Peer[TransportT]:
        """Make what stands for one server."""
        headers = self.headers
        if endpoint.admin_secret and not self.admin_secret:
            headers = (*headers, *_checked({ADMIN_HEADER: endpoint.admin_secret}).items())
        connection = Connection(endpoint=endpoint, tls=self.tls, max_response_bytes=self.limits.max_response_bytes)
        scheme = "grpcs" if endpoint.secure or self.tls else "grpc"
        return Peer(endpoint, f"{scheme}://{endpoint.target}", connect(connection), headers)


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


def with_others(errors: list[ClientError], num_done: int) -> ClientError:
    """Return the first of the errors of several servers, with a note on the others."""
    first = errors[0]
    for other in errors[1:]:
        first.add_note(f"also {other.endpoint}: {other}")
    if num_done:
        first.add_note(f"{num_done} of {num_done + len(errors)} servers did it")
    return first
