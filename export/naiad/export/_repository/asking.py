"""Verification of what running servers answer: each version that should be served, on each server."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from naiad.client import Client
from naiad.export._repository import golden as _golden
from naiad.export._repository import reading as _reading
from naiad.export._repository import replay as _replay
from naiad.export._repository.served import ServedVersion
from naiad.export._repository.store import Store
from naiad.export._verify.tolerances import Tolerances
from naiad.export.errors import InvalidModel, VersionNotFound
from naiad.export.report import Tolerance


def verify_served(
    store: Store,
    model: str,
    numbers: Sequence[int],
    client: Client,
    *,
    tolerance: Tolerance | Mapping[str, Any] | None,
    timeout_s: float,
) -> Iterator[ServedVersion]:
    """Yield the outcome of each version on each server of the client."""
    served = _reading.served(store, model)
    if not numbers and not served:
        raise VersionNotFound(f"{model} has no version that should be served: promote one", model=model)
    for number in numbers or served:
        wanted = _wanted(store, model, number)
        if not numbers and number == served[-1]:  # once is enough
            wanted = replace(wanted, alone_with=served)
        if tolerance is not None:
            wanted = replace(wanted, tolerance=Tolerances(given=tolerance).of(wanted.precision))
        for server in _each(client):
            yield _replay.replay(server, wanted, timeout_s=timeout_s)


def _wanted(store: Store, model: str, number: int) -> _replay.Expected:
    manifest = _reading.manifest(store, model, number)
    if manifest is None:
        raise InvalidModel(
            f"{model} version {number} was not published by naiad export: it has no manifest and no golden pairs to "
            "replay",
            model=model,
            version=number,
        )
    with store.files(model, number, (_golden.FILE,)) as directory:
        pairs = _golden.read(directory / _golden.FILE, _datatypes(manifest))
    return _replay.expected(model, number, manifest, pairs)


def _datatypes(manifest: dict[str, Any]) -> dict[str, str]:
    return {tensor["name"]: tensor["dtype"] for kind in ("inputs", "outputs") for tensor in manifest.get(kind, ())}


def _each(client: Client) -> Iterator[Client]:
    client.live()  # resolves the names of the servers
    for server in client.servers:
        yield client.only(server.address)
