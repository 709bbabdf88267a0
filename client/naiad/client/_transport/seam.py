"""The seam between the core, which knows the protocol, and what moves its bytes.

A transport belongs to one server. It sends messages and returns messages, or raises :class:`RpcFailed`; it knows
neither tensors nor retries, and translates nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from naiad.client._routing.endpoint import Endpoint
from naiad.client.options import TLS

Headers = tuple[tuple[str, str], ...]

# How Triton expects the secret of a restricted protocol whose key is "admin-key".
ADMIN_HEADER = "triton-grpc-protocol-admin-key"


class RpcFailed(Exception):
    """A call ended with another gRPC status than OK: its name (``"UNAVAILABLE"``) and its text."""

    def __init__(self, status: str, details: str) -> None:
        super().__init__(f"{status}: {details}")
        self.status = status
        self.details = details


class TransportClosed(Exception):
    """The transport was used after ``close()``, or closed while a call waited."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """Where a transport connects to, and what it accepts from there."""

    endpoint: Endpoint
    tls: TLS | None = None
    max_response_bytes: int = -1


class PendingCall(Protocol):
    """A call whose answer nobody waits for yet."""

    def result(self) -> bytes:
        """Wait for the answer, at most as long as the call's time-out."""
        ...

    def done(self) -> bool:
        """Whether ``result()`` returns or raises at once."""
        ...

    def cancel(self) -> None:
        """End the call here and on the server."""
        ...

    def when_done(self, function: Callable[[], None]) -> None:
        """Call ``function`` once, from any thread, when the call has ended; at once if it has."""
        ...


class StreamCall(Protocol):
    """The answers of a stream, read one by one."""

    def __next__(self) -> bytes:
        """Wait for the next message."""
        ...

    def cancel(self) -> None:
        """End the stream here and on the server."""
        ...

    def when_done(self, function: Callable[[], None]) -> None:
        """Call ``function`` once, from any thread, when the stream has ended; at once if it has."""
        ...


class Transport(Protocol):
    """Moves messages, blocking; may be shared by threads."""

    def call(self, method: str, message: bytes, timeout_s: float, headers: Headers) -> bytes:
        """Send a message and return the answer within ``timeout_s``."""
        ...

    def begin(self, method: str, message: bytes, timeout_s: float, headers: Headers) -> PendingCall:
        """Send a message without waiting for the answer."""
        ...

    def stream(self, method: str, messages: Iterable[bytes], timeout_s: float | None, headers: Headers) -> StreamCall:
        """Open a stream in both directions; ``messages`` are sent, then the sending half is closed."""
        ...

    def close(self) -> None:
        """Give everything back; calls that wait are cancelled."""
        ...

    def forget(self) -> None:
        """Let go without touching the connection: it belongs to the process that this one was forked from."""
        ...


class AsyncStreamCall(Protocol):
    """The answers of a stream, read one by one in an event loop."""

    async def __anext__(self) -> bytes:
        """Wait for the next message."""
        ...

    def cancel(self) -> None:
        """End the stream here and on the server."""
        ...


class AsyncTransport(Protocol):
    """Moves messages in an event loop."""

    async def call(self, method: str, message: bytes, timeout_s: float, headers: Headers) -> bytes:
        """Send a message and return the answer; cancelling the task cancels the call on the server."""
        ...

    def stream(
        self, method: str, messages: Iterable[bytes], timeout_s: float | None, headers: Headers
    ) -> AsyncStreamCall:
        """Open a stream in both directions; ``messages`` are sent, then the sending half is closed."""
        ...

    async def close(self) -> None:
        """Give everything back; calls that wait are cancelled."""
        ...

    def forget(self) -> None:
        """Let go without touching the connection: it belongs to the process that this one was forked from."""
        ...
