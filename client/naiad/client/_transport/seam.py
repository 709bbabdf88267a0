"""The seam between the core, which knows the protocol, and what moves its bytes.

A transport sends one message and returns one, or raises a :class:`ClientError` already translated by
:func:`naiad.client.errors.from_status`. It knows neither tensors nor retries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from naiad.client._routing.attempts import Attempts
from naiad.client._routing.endpoint import Endpoint
from naiad.client.options import TLS

Metadata = tuple[tuple[str, str], ...]

# How Triton expects the secret of a restricted protocol whose key is "admin-key".
ADMIN_HEADER = "triton-grpc-protocol-admin-key"


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """Where a transport connects to, and what it sends with every call."""

    endpoint: Endpoint
    tls: TLS | None = None
    metadata: Metadata = field(default=())


class Transport(Protocol):
    """Moves messages, blocking."""

    def call(self, attempts: Attempts, timeout_s: float) -> bytes:
        """Send the request and return the answer within ``timeout_s``."""
        ...

    def close(self) -> None:
        """Give everything back; calls that wait are cancelled."""
        ...


class AsyncTransport(Protocol):
    """Moves messages in an event loop."""

    async def call(self, attempts: Attempts, timeout_s: float) -> bytes:
        """Send the request and return the answer within ``timeout_s``; cancelling the task cancels it on the server."""
        ...

    async def close(self) -> None:
        """Give everything back; calls that wait are cancelled."""
        ...
