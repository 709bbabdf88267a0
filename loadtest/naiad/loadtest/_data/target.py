"""The served model, as a load test has to know it before the first request."""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from naiad.client import TLS, Client, ClientError, ModelConfig, ModelNotFound, Retry, Timeout
from naiad.loadtest._data.pipeline import Pipeline, pipeline_of
from naiad.loadtest._data.signature import Signature
from naiad.loadtest.plan import Connection, Traffic

__all__ = ["Target", "connect", "describe"]

_ASK_TIMEOUT_S: Final = 5.0
_MOST_SHOWN: Final = 8
_LAYOUTS: Final = {1: "NHWC", 2: "NCHW"}  # ModelInput.Format of model_config.proto
_KINDS: Final = {0: "AUTO", 1: "GPU", 2: "CPU", 3: "MODEL"}  # ModelInstanceGroup.Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What serves the requests."""

    signature: Signature
    server_version: str
    backend: str
    instances: tuple[str, ...] = ()
    """The instance groups, such as ``"2 × CPU"``."""
    pipeline: Pipeline | None = None
    """The models that it calls; ``None`` of a model that calls none."""


def connect(connection: Connection, timeout_s: float = _ASK_TIMEOUT_S) -> Client:
    """Return a client for questions about the server; the load itself leaves through the engine.

    Raises:
        naiad.client.InvalidInput: the URL or a header is none.
    """
    tls = None
    if connection.ca or connection.certificate:
        tls = TLS(
            root_certificates=connection.ca,
            certificate_chain=connection.certificate,
            private_key=connection.key,
        )
    return Client(
        connection.url,
        timeout=Timeout(total_s=timeout_s),
        retry=Retry(attempts=1),
        tls=tls,
        metadata=dict(connection.headers),
        shared_memory=False,
    )


def describe(client: Client, traffic: Traffic, *, servers: Client | None = None) -> Target:
    """Ask the server about the model; ``servers`` stand behind a gateway, and say more than it about what is called.

    Raises:
        naiad.client.ModelNotFound: it does not serve the model; the message names those that it serves.
        naiad.client.ClientError: it does not answer.
    """
    try:
        config = client.model_config(traffic.model, traffic.version)
        metadata = client.model_metadata(traffic.model, traffic.version)
    except ModelNotFound as exc:
        raise _with_served(exc, client, traffic) from exc
    sequences = config.sequence_batching
    return Target(
        signature=Signature(
            metadata=metadata,
            max_batch_size=config.max_batch_size,
            optional=frozenset(tensor.name for tensor in config.input if tensor.optional),
            decoupled=config.model_transaction_policy.decoupled,
            stateful=config.HasField("sequence_batching"),
            controls=frozenset(control.name for control in sequences.control_input),
            layouts={tensor.name: _LAYOUTS[tensor.format] for tensor in config.input if tensor.format in _LAYOUTS},
        ),
        server_version=client.server_metadata().version,
        backend=config.backend or config.platform,
        instances=_instances(config),
        pipeline=pipeline_of(config, (servers or client).model_config),
    )


def _instances(config: ModelConfig) -> tuple[str, ...]:
    return tuple(f"{group.count} × {_KINDS.get(group.kind, group.kind)}" for group in config.instance_group)


def _with_served(error: ModelNotFound, client: Client, traffic: Traffic) -> ModelNotFound:
    """Return the error with the names of what is served, the closest first, where the server tells."""
    served: list[tuple[str, str]] = []
    with suppress(ClientError):  # the repository's index would need a secret, the statistics need none
        served = [(counters.name, counters.version) for counters in client.statistics()]
    if not served:
        return error
    versions = sorted(version for name, version in served if name == traffic.model)
    if versions:
        found = f"version {traffic.version} of '{traffic.model}' is not served; these are: {', '.join(versions)}"
    else:
        names = _closest_first(traffic.model, sorted({name for name, _ in served}))
        found = f"no model '{traffic.model}' is served; these are: {names}"
    found = f"{client.url}: {found}"
    return ModelNotFound(found, model=traffic.model, version=traffic.version, endpoint=client.url, status=error.status)


def _closest_first(wanted: str, names: list[str]) -> str:
    close = difflib.get_close_matches(wanted, names, n=_MOST_SHOWN, cutoff=0.3)
    ordered = [*close, *(name for name in names if name not in close)]
    more = len(ordered) - _MOST_SHOWN
    return ", ".join(ordered[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
