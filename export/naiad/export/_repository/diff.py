"""In what two versions differ: what clients rely on, files, how they were made, what was measured, what they answer."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from naiad.export._repository import behaviour as _behaviour
from naiad.export._repository import changes as _changes
from naiad.export._repository import contract as _contract
from naiad.export._repository import reading as _reading
from naiad.export._repository.behaviour import AnswerDifference
from naiad.export._repository.changes import Change
from naiad.export._repository.store import Store

_NOT_MADE = frozenset({"model", "version", "files", "contract", "report", "inputs", "outputs", "max_batch_size"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A version in a repository."""

    store: Store
    model: str
    number: int

    def __str__(self) -> str:
        return f"{self.model}/{self.number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldDifference:
    """One value that both versions may have; None where one has not."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionDiff:
    """In what version `b` differs from version `a`."""

    a: str
    """As in `digits/1`."""
    b: str
    contract: tuple[Change, ...]
    files: tuple[FieldDifference, ...]
    """Sizes in bytes of files that differ, by name."""
    made: tuple[FieldDifference, ...]
    """What the manifests say of how they were made, by dotted name."""
    parity: tuple[FieldDifference, ...]
    """Largest error against PyTorch, relative to the largest value, by output; also those that are equal."""
    latency: tuple[FieldDifference, ...]
    """Median milliseconds on one thread of the exporting machine, by batch size; also those that are equal."""
    answers: tuple[AnswerDifference, ...]
    """How far the answers to the golden inputs of both are apart, by output."""
    num_requests: int
    """How many golden inputs both were run with."""
    note: str = ""
    """Why the answers could not be compared; empty where they were."""

    @property
    def breaking(self) -> tuple[Change, ...]:
        """What a client of `a` would fail at, or read wrong, with `b`."""
        return tuple(change for change in self.contract if change.breaking)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"compatible": not self.breaking}


def diff(a: Place, b: Place, *, answers: bool) -> VersionDiff:
    """Compare two versions, of one model or of two, in one repository or in two; `answers` runs both."""
    manifests = [_reading.manifest(place.store, place.model, place.number) or {} for place in (a, b)]
    found = _behaviour.NOT_RUN
    if answers:
        with (
            a.store.files(a.model, a.number) as files_a,
            b.store.files(b.model, b.number) as files_b,
        ):
            found = _behaviour.compare(
                _behaviour.Runnable(files_a, _filename(a), manifests[0]),
                _behaviour.Runnable(files_b, _filename(b), manifests[1]),
            )
    return VersionDiff(
        a=str(a),
        b=str(b),
        contract=_changes.changes(_own_contract(a, manifests[0]), _own_contract(b, manifests[1])),
        files=tuple(_files(*manifests)),
        made=tuple(_made(*manifests)),
        parity=tuple(_measured("parity", "output", "max_rel_error", *manifests)),
        latency=tuple(_measured("latency", "batch", "median_ms", *manifests)),
        answers=found.answers,
        num_requests=found.num_requests,
        note=found.note,
    )


def _filename(place: Place) -> str:
    return _reading.config(place.store, place.model).default_model_filename or "model.onnx"


def _own_contract(place: Place, manifest: Mapping[str, Any]) -> _contract.Contract:
    """Return what this version was verified with, or its model's configuration where no manifest says it."""
    shared = _reading.contract(place.store, place.model)
    if "contract" not in manifest:
        return shared
    own = _contract.Contract.from_dict(manifest["contract"])
    named = {
        name: replace(tensor, labels=shared.outputs[name].labels)  # the same, with their names
        if tensor.labels and name in shared.outputs and _same_labels(tensor, shared.outputs[name])
        else tensor
        for name, tensor in own.outputs.items()
    }
    return replace(own, outputs=named)


def _same_labels(a: _contract.Tensor, b: _contract.Tensor) -> bool:
    return a.labels is not None and b.labels is not None and a.labels.sha256 == b.labels.sha256


def _files(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[FieldDifference]:
    before, after = a.get("files", {}), b.get("files", {})
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, {}), after.get(name, {})
        if old.get("sha256") != new.get("sha256"):
            yield FieldDifference(name=name, before=old.get("size_bytes"), after=new.get("size_bytes"))


def _made(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[FieldDifference]:
    before, after = dict(_flat(a)), dict(_flat(b))
    for name in [*before, *(name for name in after if name not in before)]:
        if before.get(name) != after.get(name):
            yield FieldDifference(name=name, before=before.get(name), after=after.get(name))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a manifest by dotted name."""
    for name, value in values.items():
        if prefix or name not in _NOT_MADE:
            if isinstance(value, Mapping):
                yield from _flat(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value


def _measured(part: str, key: str, value: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[FieldDifference]:
    before, after = (
        {str(item[key]): item[value] for item in manifest.get("report", {}).get(part, ())} for manifest in (a, b)
    )
    for name in [*before, *(name for name in after if name not in before)]:
        yield FieldDifference(name=name, before=before.get(name), after=after.get(name))
