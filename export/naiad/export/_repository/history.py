"""The audit of a repository: its journal, and what there is now."""

from naiad.export._repository import audit as _audit
from naiad.export._repository import journal as _journal
from naiad.export._repository import reading as _reading
from naiad.export._repository.store import Store
from naiad.export.errors import InvalidModel


def audit(store: Store, head: str) -> _audit.Audit:
    """Check the journal against its hashes, an earlier head, and the models."""
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
