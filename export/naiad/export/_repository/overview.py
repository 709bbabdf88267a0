"""What there is at a glance: one entry for each model and each version, from their small files only."""

from collections.abc import Iterator
from dataclasses import dataclass

from naiad.export._repository import journal as _journal
from naiad.export._repository import reading as _reading
from naiad.export._repository.store import Store
from naiad.export.errors import InvalidModel


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionOverview:
    """One version at a glance."""

    number: int
    served: bool
    created: str | None
    """UTC, ISO 8601; None for a version without a manifest."""
    size_bytes: int | None
    precision: str | None
    signed_by: tuple[str, ...]
    """The ids of the keys, unchecked: `verify` checks them."""
    is_rollback: bool = False
    """Whether the next rollback would serve it."""
    problem: str = ""
    """Why its manifest could not be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOverview:
    """One model at a glance."""

    model: str
    versions: tuple[VersionOverview, ...]
    """Ascending."""
    problem: str = ""
    """Why its configuration could not be read; what is served is not known then."""

    @property
    def served(self) -> tuple[VersionOverview, ...]:
        """The versions that Triton serves."""
        return tuple(version for version in self.versions if version.served)

    @property
    def size_bytes(self) -> int:
        """Of all versions that have a manifest."""
        return sum(version.size_bytes or 0 for version in self.versions)


def overview(store: Store, model: str) -> ModelOverview:
    """Return a model with its versions."""
    problem = ""
    served: tuple[int, ...] = ()
    rollback: tuple[int, ...] = ()
    try:
        served = _reading.served(store, model)
        rollback = _journal.previous(_journal.read(store, model), served, store.versions(model)) or ()
    except InvalidModel as error:  # the versions are of interest all the same
        problem = str(error)
    versions = tuple(_versions(store, model, served, rollback))
    return ModelOverview(model=model, versions=versions, problem=problem)


def _versions(
    store: Store, model: str, served: tuple[int, ...], rollback: tuple[int, ...]
) -> Iterator[VersionOverview]:
    for number in _reading.versions(store, model):
        problem = ""
        try:
            manifest = _reading.manifest(store, model, number) or {}
        except InvalidModel as error:
            manifest, problem = {}, str(error)
        sizes = [file.get("size_bytes", 0) for file in manifest.get("files", {}).values()]
        yield VersionOverview(
            number=number,
            served=number in served,
            created=manifest.get("created"),
            size_bytes=sum(sizes) if manifest else None,
            precision=manifest.get("precision"),
            signed_by=tuple(_reading.signatures(store, model, number)),
            is_rollback=number in rollback,
            problem=problem,
        )
