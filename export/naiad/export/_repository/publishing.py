"""A candidate becomes the next version."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naiad.export._report import page as _page
from naiad.export._repository import changes as _changes
from naiad.export._repository import config as _config
from naiad.export._repository import contract as _contract
from naiad.export._repository import durable as _durable
from naiad.export._repository import journal as _journal
from naiad.export._repository import manifest as _manifest
from naiad.export._repository import reading as _reading
from naiad.export._repository import serving as _serving
from naiad.export._repository.names import check_name
from naiad.export._repository.signature import Signer, Verifier, to_json
from naiad.export._repository.store import Changed, Store
from naiad.export.errors import ContractChanged, NotTrusted
from naiad.export.report import Finding

_logger = logging.getLogger("naiad.export")


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A version that is ready to be published."""

    model: str
    config: Any
    """The complete ModelConfig; its version policy is set when it is published."""
    files: Path
    """A directory inside a stage of the same repository with the version's files; it is moved, not copied."""
    labels: Path
    """A directory with the label files that the config names; empty where it names none."""
    settings: Mapping[str, object]
    """Fields of the configuration that were asked for by name, see `naiad.export._configure.settings`; they are applied
    to an existing model's configuration when the version is promoted, all else there is kept as its owner tuned it."""
    manifest: dict[str, Any]
    """The manifest without `model`, `version` and `files`."""


def publish(
    store: Store,
    candidate: Candidate,
    *,
    promote: bool,
    signer: Signer | None = None,
    verifier: Verifier | None = None,
) -> int:
    """Add a candidate as the next version, serve it when `promote` is true, and return its number."""
    model = check_name(candidate.model)
    require_signer(store, model, promote=promote, signer=signer, verifier=verifier)
    with store.translated(model), store.reserve(model, lambda: _recorded(store, model)) as number:
        check_contract(store, model, candidate.config, candidate.labels)
        _write_manifest(candidate, number, signer)
        with store.publishing():
            _pin(store, model, candidate.files.parent)
        store.upload(model, number, candidate.files)
        with store.publishing():
            _add(store, candidate, number, promote=promote)
    _logger.info("published %s version %d in %s", model, number, store.location)
    return number


def check_contract(store: Store, model: str, config: Any, labels: Path) -> tuple[Finding, ...]:
    """Refuse a configuration that would break clients, or that the versions already published do not fit.

    Returns:
        What the published configuration keeps although this version could do more.
    """
    if store.read(f"{check_name(model)}/{_config.FILE}") is None:
        return ()
    found = _changes.changes(_reading.contract(store, model), _own_contract(config, labels))
    refused = [change for change in found if change.refused]
    if refused:
        remedies = dict.fromkeys(change.remedy for change in refused if change.remedy)
        breaking = any(change.breaking for change in refused)
        why = "its clients rely on it" if breaking else "all its versions share one configuration"
        raise ContractChanged(
            f"{model} is already published and {why}: {'; '.join(map(str, refused))}. Nothing was published: "
            f"{''.join(f'{remedy}, or ' for remedy in remedies)}publish this model under a new name, such as "
            f"{model}-v2 (naiad export --name), and let its clients move over",
            repository=store.location,
            model=model,
            changes=tuple(map(str, refused)),
        )
    return tuple(
        Finding(
            check="contract",
            message=f"{change.subject} stays {change.before} in the published configuration; this version takes "
            f"{change.after}",
        )
        for change in found
    )


def _own_contract(config: Any, labels: Path) -> _contract.Contract:
    return _contract.contract(config, lambda name: (labels / name).read_bytes())


def _recorded(store: Store, model: str) -> tuple[int, ...]:
    return tuple(entry.version for entry in _journal.read(store, model) if entry.version is not None)


def _add(store: Store, candidate: Candidate, number: int, *, promote: bool) -> None:
    model = candidate.model
    new = _reading.is_new(store, model)
    if new or promote:
        _serving.serve_steps(store, model, candidate.manifest, candidate.files.parent)
    if new:
        shared = _shared(candidate, number)
        store.add_model(model, number, candidate.files, shared)
        _serving.record(store, "publish", model, version=number, before=(), after=(number,))
        return
    check_contract(store, model, candidate.config, candidate.labels)
    before = _reading.served(store, model)
    after = (number,) if promote else before
    change = _serving.change(store, model, after, candidate.settings, candidate.manifest) if promote else None
    try:
        store.add_version(model, number, candidate.files, change)
    except Changed:  # an operator edited the configuration meanwhile
        before = _reading.served(store, model)
        change = _serving.change(store, model, after, candidate.settings, candidate.manifest)
        if change is not None:
            store.change_config(model, change, candidate.files.parent)
    _serving.record(store, "publish", model, version=number, before=before, after=after)


def _pin(store: Store, model: str, stage: Path) -> None:
    """Make a configuration name the versions it serves.

    Under a policy of all versions or the latest, Triton would serve the new one as soon as it is there: before it is
    whole, where a store cannot add it at once, and though nobody promoted it.
    """
    if _reading.is_new(store, model):
        return
    served = _reading.served(store, model)
    specific = _reading.config(store, model).version_policy.WhichOneof("policy_choice") == "specific"
    if served and not specific and (change := _serving.change(store, model, served)):
        store.change_config(model, change, stage)


def _shared(candidate: Candidate, number: int) -> Path:
    _config.serve(candidate.config, (number,))
    _durable.write_new(candidate.labels / _config.FILE, _config.to_text(candidate.config).encode())
    return candidate.labels


def require_signer(
    store: Store, model: str, *, promote: bool, signer: Signer | None, verifier: Verifier | None
) -> None:
    """Refuse to serve what another key than the required one signs."""
    if verifier is None or (signer is not None and signer.key_id == verifier.key_id):
        return
    if promote or store.read(f"{model}/{_config.FILE}") is None:  # a model's first version is always served
        found = f"it would be signed by {signer.key_id}" if signer else "no key to sign with was given"
        raise NotTrusted(
            f"what {model} serves must be signed by the key {verifier.key_id}, and {found}; give that key "
            "(--sign-key), or publish without promoting",
            repository=store.location,
            model=model,
            state="unknown key" if signer else "missing",
        )


def _write_manifest(candidate: Candidate, number: int, signer: Signer | None) -> None:
    about = {"model": candidate.model, "version": number, **candidate.manifest}
    if "report" in about:
        page = _page.render(about, _config.to_text(candidate.config))
        _durable.write_new(candidate.files / _page.FILE, page.encode())
    manifest = {
        "model": candidate.model,
        "version": number,
        "files": _manifest.describe_files(candidate.files),
        "contract": _own_contract(candidate.config, candidate.labels).to_dict(),
        **candidate.manifest,
    }
    data = f"{json.dumps(manifest, indent=2, ensure_ascii=False)}\n".encode()
    _durable.write_new(candidate.files / _manifest.FILE, data)
    if signer is not None:
        signature = to_json({signer.key_id: signer.sign(data)})
        _durable.write_new(candidate.files / _manifest.SIGNATURE, signature)
