"""The served model, as a load test has to know it before the first request."""

from __future__ import annotations

from dataclasses import dataclass

from naiad.client import Client, Retry, Timeout
from naiad.loadtest.data import Signature
from naiad.loadtest.plan import Traffic

__all__ = ["Target", "connect", "describe"]

_ASK_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What serves the requests."""

    signature: Signature
    server_version: str
    backend: str


def connect(traffic: Traffic, timeout_s: float = _ASK_TIMEOUT_S) -> Client:
    """Return a client for questions about the server; the load itself leaves through the engine."""
    return Client(traffic.url, timeout=Timeout(total_s=timeout_s), retry=Retry(attempts=1))


def describe(client: Client, traffic: Traffic) -> Target:
    """Ask the server about the model.

    Raises:
        naiad.client.ClientError: the server does not answer, or does not serve the model.
    """
    config = client.model_config(traffic.model, traffic.version)
    metadata = client.model_metadata(traffic.model, traffic.version)
    return Target(
        signature=Signature(
            metadata=metadata,
            max_batch_size=config.max_batch_size,
            optional=frozenset(tensor.name for tensor in config.input if tensor.optional),
        ),
        server_version=client.server_metadata().version,
        backend=config.backend or config.platform,
    )
