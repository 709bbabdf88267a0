"""The audit of a repository: its journal, and what there is now."""

import contextlib

from naiad.export._repository import audit as _audit
from naiad.export._repository import journal as _journal
from naiad.export._repository import reading as _reading
from naiad.export._repository.store import Store
from naiad.export.errors import InvalidModel, NotWritable


def audit(store: Store, head: str) -> _audit.Audit:
    """Check the journal against its hashes, an earlier head, and the models."""
    found = _audited(store, head)
    if found.ok:
        return found
    # An act may be under way, which is told after it is done; who may not take the lock has to believe what is there.
    with contextlib.suppress(OSError, NotWritable), store.locked():
        return _audited(store, head)
    return found


def _audited(store: Store, head: str) -> _audit.Audit:
    models = {model: _present(store, model) for model in _reading.models(store)}
    return _audit.audit(store.read(_journal.NAME) or b"", models, head=head)


def _present(store: Store, model: str) -> _audit.Present:
    versions = _reading.versions(store, model)
    try:
        served: tuple[int, ...] | None = _reading.served(store, model)
    except InvalidModel:
        served = None
    published = tuple(number for number in versions if _is_published(store, model, number))
    return _audit.Present(versions=versions, published=published, served=served)


def _is_published(store: Store, model: str, number: int) -> bool:
    try:
        return _reading.manifest(store, model, number) is not None
    except InvalidModel:  # something is there, if not what an export wrote
        return True
