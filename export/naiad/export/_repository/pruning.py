"""Removal of old versions: never what is served, the newest, or what the next rollback would serve."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from naiad.export._repository import journal as _journal
from naiad.export._repository import reading as _reading
from naiad.export._repository import serving as _serving
from naiad.export._repository import wiring as _wiring
from naiad.export._repository.store import Store
from naiad.export.errors import InvalidExport

_logger = logging.getLogger("naiad.export")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """What a pruning removed, or would remove."""

    model: str
    removed: tuple[int, ...]
    kept: Mapping[int, str] = field(default_factory=dict)
    """Every other version, with the reason."""
    freed_bytes: int = 0
    """As the manifests have it; versions without one do not count."""


def prune(store: Store, model: str, *, keep: int, force: bool, dry_run: bool, reason: str) -> Pruned:
    """Remove the oldest versions, each at once."""
    if keep < 1:
        raise InvalidExport(f"keep must be at least 1, so that no number is ever given twice; found {keep}")
    _reading.require_model(store, model)
    if dry_run:
        with store.translated(model):
            return _plan(store, model, keep=keep, force=force)
    with store.translated(model), store.stage() as stage, store.locked():
        plan = _plan(store, model, keep=keep, force=force)
        served, removed = _reading.served(store, model), list[int]()
        try:
            for number in plan.removed:
                store.remove_version(model, number, stage)
                removed.append(number)
        finally:  # also what was removed until an error or Ctrl-C has its entry
            if removed:
                _serving.record(
                    store, "prune", model, before=served, after=served, removed=tuple(removed), reason=reason
                )
                _logger.info("pruned %s of %s", _reading.listed(tuple(removed)), model)
    return plan


def plan(versions: tuple[int, ...], served: tuple[int, ...], rollback: tuple[int, ...], keep: int) -> dict[int, str]:
    """Return the versions to keep, each with the reason."""
    newest = versions[-keep:]
    reasons = {
        "served": served,
        "what the next rollback would serve (remove it with --force)": rollback,
        f"among the newest {keep}": newest,
    }
    return {
        number: next(reason for reason, numbers in reasons.items() if number in numbers)
        for number in versions
        if any(number in numbers for numbers in reasons.values())
    }


def _plan(store: Store, model: str, *, keep: int, force: bool) -> Pruned:
    versions, served = _reading.versions(store, model), _reading.served(store, model)
    rollback = () if force else _journal.previous(_journal.read(store, model), served, versions) or ()
    kept = {**_wiring.kept(store, model), **plan(versions, served, rollback, keep)}
    removed = tuple(number for number in versions if number not in kept)
    freed = sum(_reading.size_bytes(store, model, number) or 0 for number in removed)
    return Pruned(model=model, removed=removed, kept=kept, freed_bytes=freed)
