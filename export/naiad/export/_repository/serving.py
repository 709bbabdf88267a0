"""Which versions are served: promote, rollback, and the record of both."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from naiad.export._configure import settings as _settings
from naiad.export._repository import config as _config
from naiad.export._repository import journal as _journal
from naiad.export._repository import reading as _reading
from naiad.export._repository import wiring as _wiring
from naiad.export._repository.signature import Verifier
from naiad.export._repository.store import Change, Changed, Store
from naiad.export.errors import CorruptVersion, NothingToRollBack, NotTrusted, RepositoryError, VersionNotFound

_logger = logging.getLogger("naiad.export")


def promote(
    store: Store, model: str, numbers: tuple[int, ...], *, reason: str = "", verifier: Verifier | None = None
) -> tuple[int, ...]:
    """Serve exactly these versions from now on, and return them, ascending."""
    if not numbers:
        known = _reading.listed(_reading.versions(store, model))
        raise VersionNotFound(f"name the version of {model} to promote: one of {known}", model=model)
    after = tuple(sorted(set(numbers)))
    with store.translated(model):
        for number in after:  # reads every byte, which may take long: before the lock
            _require_intact(store, model, number, verifier)
        with store.stage() as stage, store.locked():
            _serve(store, model, after, "promote", stage, reason)
    return after


def rollback(store: Store, model: str, *, reason: str = "", verifier: Verifier | None = None) -> tuple[int, ...]:
    """Serve again what was served before the last promotion, and return those versions."""
    with store.translated(model):
        earlier = earlier_served(store, model)
        for number in earlier:
            _require_intact(store, model, number, verifier)
        with store.stage() as stage, store.locked():
            if earlier_served(store, model) != earlier:
                raise Changed(f"another process changed what {model} serves; run it again", model=model)
            _serve(store, model, earlier, "rollback", stage, reason)
    return earlier


def change(
    store: Store,
    model: str,
    versions: tuple[int, ...],
    settings: Mapping[str, object] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Change | None:
    """Return the change of the configuration that makes it serve `versions`, with `settings` applied.

    None where it is so already. `manifest` is that of a version which is about to come in.
    """
    before = _reading.require_model(store, model)
    config: Any = _reading.config(store, model, before)
    _wiring.check_needed(store, model, _reading.served(store, model), versions)
    _wiring.rewire(store, model, config, versions, manifest)
    _settings.apply(config, settings or {})
    _config.serve(config, versions)
    after = _config.rewritten(before.decode(), config).encode()
    return Change(before=before, after=after) if after != before else None


def record(store: Store, action: _journal.Action, model: str, **values: Any) -> None:
    """Add an entry to the journal; `values` are those of `journal.entry_of`."""
    # The act has happened; a journal that cannot be written must not turn it into a failure.
    try:
        _journal.append(store, action, model, **values)
    except (OSError, RepositoryError) as exc:
        _logger.warning("the journal of %s could not be written: %s", store.location, exc)


def _serve(store: Store, model: str, after: tuple[int, ...], action: _journal.Action, stage: Path, reason: str) -> None:
    for number in after:  # again, now that nobody can remove it
        _reading.require_version(store, model, number)
    before = _reading.served(store, model)
    found = change(store, model, after)
    serve_steps(store, model, _reading.manifest(store, model, after[-1]), stage)
    if found:
        store.change_config(model, found, stage)
    record(store, action, model, before=before, after=after, reason=reason)
    _logger.info("%s of %s: serves %s instead of %s", action, model, after, before)


def serve_steps(store: Store, pipeline: str, manifest: Mapping[str, Any] | None, stage: Path) -> None:
    """Make each step serve what the pipeline will be wired to, beside what pipelines are wired to now.

    A model that a script does without may be missing.
    """
    optional = _wiring.optional(manifest)
    for model, number in _wiring.pins(manifest).items():
        if model in optional and (_reading.is_new(store, model) or number not in _reading.versions(store, model)):
            continue
        _reading.require_version(store, model, number)
        before = _reading.served(store, model)
        after = tuple(sorted({number, *_wiring.needed(store, model)} & set(_reading.versions(store, model))))
        if found := change(store, model, after):
            store.change_config(model, found, stage)
            record(store, "promote", model, before=before, after=after, reason=f"a step of {pipeline}")


def _require_intact(store: Store, model: str, number: int, verifier: Verifier | None) -> None:
    if verifier is None and _reading.manifest(store, model, number) is None:  # made by hand: nothing to compare with
        return
    integrity = _wiring.verify(store, model, number, verifier)
    if integrity.signature and not integrity.signature.ok:
        raise NotTrusted(
            f"{model} version {number} is not served, because a signature is required: {integrity.signature.problem}",
            repository=store.location,
            model=model,
            version=number,
            state=integrity.signature.state,
        )
    if integrity.problems:
        raise CorruptVersion(
            f"{model} version {number} is not what was published: {'; '.join(integrity.problems)}; "
            "serve another version, and export this one again",
            repository=store.location,
            model=model,
            version=number,
            problems=integrity.problems,
        )


def earlier_served(store: Store, model: str) -> tuple[int, ...]:
    """Return what a rollback would serve.

    Raises:
        NothingToRollBack: No earlier state is known, or the versions of all are gone.
    """
    _reading.require_model(store, model)
    served, known = _reading.served(store, model), _reading.versions(store, model)
    entries = _journal.read(store, model)
    found = _journal.previous(entries, served, known)
    if found:
        return found
    last = next(iter(_journal.earlier(entries, served)), ())
    gone = tuple(number for number in last if number not in known)
    why = f"version {_reading.listed(gone)}, served before, was removed" if gone else "no earlier state is known"
    raise NothingToRollBack(
        f"nothing to roll {model} back to: it serves {_reading.listed(served)} and {why}; "
        f"promote one of {_reading.listed(known)} instead",
        repository=store.location,
        model=model,
    )
