"""Changes of how a model is run, without a new version: batching, instances, threads.

The configuration is replaced at once, after the linter looked at it as Triton would find it, and the journal keeps
what was set and what it replaced. So the way back is to configure again, with what was replaced.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from naiad.export._configure import settings as _settings
from naiad.export._repository import config as _config
from naiad.export._repository import journal as _journal
from naiad.export._repository import reading as _reading
from naiad.export._repository.serving import record
from naiad.export._repository.store import Change, Changed, Store
from naiad.export.errors import CheckFailed, InvalidExport, NothingToRollBack

_BATCH = "max_batch_size"
_PARAMETERS = "parameters"
_WARMUP = "model_warmup"


@dataclass(frozen=True, kw_only=True, slots=True)
class Configured:
    """What was changed of a model's configuration, by field; None stands for a field that is not there."""

    model: str
    replaced: Mapping[str, Any]
    """What was there."""
    settings: Mapping[str, Any]
    """What is there now."""

    @property
    def changed(self) -> bool:
        """Whether anything is."""
        return dict(self.replaced) != dict(self.settings)


def configure(store: Store, model: str, settings: Mapping[str, object], *, reason: str, dry_run: bool) -> Configured:
    """Set fields of a published configuration, and record it; nothing is written where nothing changes."""
    with store.translated(model):
        before = _reading.require_model(store, model)
        found, after = _applied(store, model, before, settings)
        if not found.changed:
            return found
        with store.stage() as stage:
            _lint(store, model, after, stage)
            if dry_run:
                return found
            with store.locked():
                _replace(store, model, Change(before=before, after=after), stage)
                served = _reading.served(store, model)
                record(
                    store,
                    "configure",
                    model,
                    before=served,
                    after=served,
                    reason=reason,
                    settings=dict(found.settings),
                    replaced=dict(found.replaced),
                )
    return found


def before_last(store: Store, model: str) -> Mapping[str, Any]:
    """Return what the last change replaced, to be set again.

    Raises:
        NothingToRollBack: The journal knows of no change that was not undone.
    """
    with store.translated(model):
        changes = [entry for entry in _journal.read(store, model) if entry.action == "configure"]
        current = _reading.config(store, model)
    for entry in reversed(changes):
        if all(_value(current, name) == value for name, value in entry.settings.items()):
            return entry.replaced
    raise NothingToRollBack(
        f"no recorded change of the configuration of {model} is in force; see `naiad models log {model}`",
        repository=store.location,
        model=model,
    )


def _applied(store: Store, model: str, before: bytes, settings: Mapping[str, object]) -> tuple[Configured, bytes]:
    config: Any = _reading.config(store, model, before)
    old: Any = type(config)()
    old.CopyFrom(config)
    fields = dict(settings)
    largest = fields.pop(_BATCH, None)
    _settings.apply(config, fields)
    if largest is not None:
        _limit_batch(config, largest, _verified(store, model))
    names = dict.fromkeys([_top(name) for name in settings] + ([_WARMUP] if largest is not None else []))
    replaced = {name: _value(old, name) for name in names}
    new = {name: _value(config, name) for name in names}
    differing = [name for name in names if replaced[name] != new[name]]
    found = Configured(
        model=model,
        replaced={name: replaced[name] for name in differing},
        settings={name: new[name] for name in differing},
    )
    return found, _config.to_text(config).encode()


def _limit_batch(config: Any, largest: object, verified: int) -> None:
    """Set the largest batch, and take out warm-up requests beyond it, which Triton would refuse to load."""
    if isinstance(largest, bool) or not isinstance(largest, int) or not 1 <= largest <= verified:
        raise InvalidExport(f"max_batch_size is 1 to {verified}, which the export verified; found {largest!r}")
    config.max_batch_size = largest
    kept = [warmup for warmup in config.model_warmup if warmup.batch_size <= largest]
    del config.model_warmup[:]
    config.model_warmup.extend(kept)
    sizes = [size for size in config.dynamic_batching.preferred_batch_size if size <= largest]
    if config.HasField("dynamic_batching"):
        config.dynamic_batching.preferred_batch_size[:] = sizes


def _verified(store: Store, model: str) -> int:
    """Return the largest batch that every served version takes."""
    sizes = [_reading.contract(store, model).max_batch_size]
    for number in _reading.served(store, model):
        contract = (_reading.manifest(store, model, number) or {}).get("contract", {})
        sizes += [contract["max_batch_size"]] if "max_batch_size" in contract else []
    return max(sizes[:1]) if len(sizes) == 1 else min(sizes[1:])


def _lint(store: Store, model: str, config: bytes, stage: Path) -> None:
    """Refuse what Triton would refuse of the new configuration, and did not of the old one."""
    from naiad.export._lint.lint import lint_repository

    place = stage / "lint"
    place.mkdir()
    with store.mirror((model,)) as directory:
        for entry in sorted(directory.iterdir()):
            if entry.is_dir() and entry.name != model:
                (place / entry.name).symlink_to(entry.absolute(), target_is_directory=True)
        _lay_out(directory / model, place / model, config)
        before = {(each.rule, each.field, each.message) for each in lint_repository(directory, (model,))}
        found = lint_repository(place, (model,))
    shutil.rmtree(place)
    errors = [
        each for each in found if each.severity == "error" and (each.rule, each.field, each.message) not in before
    ]
    if errors:
        sentences = "; ".join(f"{each.field}: {each.message}; {each.fix}".removeprefix(": ") for each in errors)
        raise CheckFailed(f"{model} was not changed, Triton would refuse it: {sentences}", model=model)


def _lay_out(source: Path, target: Path, config: bytes) -> None:
    """Make the model's directory as it would be; its versions are linked, all else is small."""
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.is_dir() and entry.name.isdigit():
            (target / entry.name).symlink_to(entry.absolute(), target_is_directory=True)
        elif entry.is_dir():
            shutil.copytree(entry, target / entry.name)
        elif entry.name != _config.FILE:
            shutil.copy(entry, target / entry.name)
    (target / _config.FILE).write_bytes(config)


def _replace(store: Store, model: str, change: Change, stage: Path) -> None:
    if _reading.require_model(store, model) != change.before:
        raise Changed(f"another process changed the configuration of {model}; run it again", model=model)
    store.change_config(model, change, stage)


def _top(name: str) -> str:
    """Return the whole field that a dotted name is in; parameters stand for themselves."""
    first, _, rest = name.partition(".")
    return name if first == _PARAMETERS and rest else first


def _value(config: Any, name: str) -> Any:
    """Return a field as JSON has it; None where it is not there."""
    first, _, rest = name.partition(".")
    if first == _PARAMETERS and rest:
        return config.parameters[rest].string_value if rest in config.parameters else None
    values = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return values.get(name)
