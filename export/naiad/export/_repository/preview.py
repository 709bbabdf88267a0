"""What a promotion or a rollback would change for clients, before it does."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from naiad.export._repository import reading as _reading
from naiad.export._repository.store import Store
from naiad.export.errors import InvalidModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What would be served, and what clients would notice."""

    model: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    notices: tuple[str, ...]
    """One sentence each."""


def preview(store: Store, model: str, after: tuple[int, ...]) -> Preview:
    """Compare what is served with what would be."""
    before, after = _reading.served(store, model), tuple(sorted(set(after)))
    for number in after:
        _reading.require_version(store, model, number)
    manifests = {number: _manifest(store, model, number) for number in {*before[-1:], *after[-1:]}}
    return Preview(model=model, before=before, after=after, notices=tuple(notices(before, after, manifests)))


def _manifest(store: Store, model: str, number: int) -> Mapping[str, Any]:
    try:
        return _reading.manifest(store, model, number) or {}
    except InvalidModel:  # a broken version must be possible to roll back from
        return {}


def notices(
    before: tuple[int, ...], after: tuple[int, ...], manifests: Mapping[int, Mapping[str, Any]]
) -> Iterator[str]:
    """Yield one sentence for each thing that a client would notice; Triton answers with the highest version it serves.

    Source: Triton's model repository documentation, "Model Versions" and "Version Policy".
    """
    if before == after:
        yield "nothing changes"
        return
    old, new = before[-1:], after[-1:]
    if old != new:
        instead = f" instead of {old[0]}" if old else ""
        yield f"requests that name no version are answered by version {new[0]}{instead}"
    gone = tuple(number for number in before if number not in after)
    if gone:
        yield f"requests that name version {_reading.listed(gone)} are refused from then on"
    added = tuple(number for number in after if number not in before and number not in new)
    if added:
        yield f"requests may name version {_reading.listed(added)}"
    if old and old != new:
        yield from _differences(old[0], new[0], manifests)


def _differences(old: int, new: int, manifests: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    before, after = manifests.get(old, {}), manifests.get(new, {})
    if before.get("precision") != after.get("precision"):
        yield f"version {new} is {after.get('precision', 'of unknown precision')}, version {old} " + (
            f"{before.get('precision', 'of unknown precision')}"
        )
    times = [
        {item["batch"]: item["median_ms"] for item in manifest.get("report", {}).get("latency", ())}
        for manifest in (before, after)
    ]
    common = sorted(times[0].keys() & times[1].keys())
    if common and times[0][common[-1]]:
        slow, fast = times[0][common[-1]], times[1][common[-1]]
        label = f"batch {common[-1]}" if common[-1] else "a request"
        yield f"{label} took {fast:.3g} ms on one thread when version {new} was exported, {slow:.3g} ms for {old}"
