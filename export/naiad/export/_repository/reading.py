"""What a repository holds: questions that need no lock, the same for every store."""

from dataclasses import dataclass
from typing import Any

from naiad.export._repository import config as _config
from naiad.export._repository import contract as _contract
from naiad.export._repository import manifest as _manifest
from naiad.export._repository.names import check_name
from naiad.export._repository.store import Store
from naiad.export.errors import InvalidModel, ModelNotFound, VersionNotFound


@dataclass(frozen=True, kw_only=True, slots=True)
class Integrity:
    """The outcome of comparing a version's files with its manifest."""

    model: str
    version: int
    num_files: int
    problems: tuple[str, ...]
    """One sentence for each file that is missing, changed or unknown."""

    @property
    def ok(self) -> bool:
        """Whether every file is what was published."""
        return not self.problems


def models(store: Store) -> tuple[str, ...]:
    """Return the names of the models that have a configuration, sorted."""
    if not store.exists():
        raise ModelNotFound(
            f"there is no model repository at {store.location}; publish a model with `naiad export`, or name another",
            repository=store.location,
        )
    return store.models()


def require_model(store: Store, model: str) -> bytes:
    """Return the text of the model's configuration.

    Raises:
        ModelNotFound: There is no such model.
    """
    text = store.read(f"{check_name(model)}/{_config.FILE}")
    if text is None:
        known = ", ".join(models(store)) or "none yet"
        raise ModelNotFound(f"there is no model {model!r} in {store.location}; it has: {known}", model=model)
    return text


def is_new(store: Store, model: str) -> bool:
    """Whether the name is free.

    Raises:
        InvalidModel: Something else than a model has it.
    """
    if store.read(f"{model}/{_config.FILE}") is not None:
        return False
    if not store.is_empty(model):
        raise InvalidModel(
            f"{store.location}/{model} exists without a {_config.FILE}, so it is not a model; move it, or take "
            "another name",
            repository=store.location,
            model=model,
        )
    return True


def config(store: Store, model: str, text: bytes | None = None) -> Any:
    """Return the model's configuration, a ModelConfig; `text` is that of its file where it was read before."""
    text = require_model(store, model) if text is None else text
    return _config.parse(text, model=model, where=f"{store.location}/{model}/{_config.FILE}")


def versions(store: Store, model: str) -> tuple[int, ...]:
    """Return the numbers of all versions of a model, ascending."""
    require_model(store, model)
    return store.versions(model)


def served(store: Store, model: str) -> tuple[int, ...]:
    """Return the versions that Triton serves under the model's current configuration, ascending."""
    return _config.served(config(store, model), store.versions(model))


def require_version(store: Store, model: str, number: int) -> None:
    """Raise VersionNotFound for a version that does not exist."""
    if number not in versions(store, model):
        raise VersionNotFound(
            f"{model} has no version {number}; it has {listed(versions(store, model))}",
            repository=store.location,
            model=model,
            version=number,
        )


def manifest(store: Store, model: str, number: int) -> dict[str, Any] | None:
    """Return a version's manifest, or None where there is none."""
    require_version(store, model, number)
    name = f"{model}/{number}/{_manifest.FILE}"
    data = store.read(name)
    return None if data is None else _manifest.parse(data, model=model, where=f"{store.location}/{name}")


def verify(store: Store, model: str, number: int) -> Integrity:
    """Compare every file of a version with the hashes in its manifest."""
    found = manifest(store, model, number)
    if found is None:
        problems: tuple[str, ...] = (f"there is no {_manifest.FILE}",)
        return Integrity(model=model, version=number, num_files=0, problems=problems)
    problems = _manifest.problems(found, store.digests(model, number))
    return Integrity(model=model, version=number, num_files=len(found["files"]), problems=problems)


def contract(store: Store, model: str) -> _contract.Contract:
    """Return what the clients of a published model rely on."""
    return _contract.contract(config(store, model), lambda name: _label_file(store, model, name))


def listed(numbers: tuple[int, ...]) -> str:
    """Return numbers for a message."""
    return ", ".join(map(str, numbers)) or "none"


def _label_file(store: Store, model: str, name: str) -> bytes:
    data = store.read(f"{model}/{name}")
    if data is None:
        raise InvalidModel(
            f"{store.location}/{model}/{_config.FILE} names the labels {name}, which are not there; put them there, or "
            "take label_filename out of the configuration",
            repository=store.location,
            model=model,
        )
    return data
