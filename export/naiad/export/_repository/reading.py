"""What a repository holds: questions that need no lock, the same for every store."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from naiad.export._repository import changes as _changes
from naiad.export._repository import config as _config
from naiad.export._repository import contract as _contract
from naiad.export._repository import manifest as _manifest
from naiad.export._repository import signature as _signature
from naiad.export._repository.names import check_name
from naiad.export._repository.signature import SignatureCheck, Verifier
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
    unfit: tuple[str, ...] = ()
    """One sentence for each thing that the model's configuration says otherwise than this version's manifest."""
    signature: SignatureCheck | None = None
    """None where no key was given."""

    @property
    def ok(self) -> bool:
        """Whether the version is what was published, fits its configuration, and is signed by the key, if given."""
        return not self.findings

    @property
    def findings(self) -> tuple[str, ...]:
        """Everything that is wrong, one sentence each."""
        unsigned = (self.signature.problem,) if self.signature and not self.signature.ok else ()
        return (*self.problems, *self.unfit, *unsigned)


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


def verify(store: Store, model: str, number: int, verifier: Verifier | None = None) -> Integrity:
    """Compare a version's files with its manifest, that with the model's configuration, and with a key's signature."""
    require_version(store, model, number)
    data = store.read(f"{model}/{number}/{_manifest.FILE}")
    check = verifier.check(data, signatures(store, model, number)) if verifier else None
    if data is None:
        missing = (f"there is no {_manifest.FILE}",)
        return Integrity(model=model, version=number, num_files=0, problems=missing, signature=check)
    found = _manifest.parse(data, model=model, where=f"{store.location}/{model}/{number}/{_manifest.FILE}")
    problems = (*_misplaced(found, model, number), *_manifest.problems(found, store.digests(model, number)))
    return Integrity(
        model=model,
        version=number,
        num_files=len(found["files"]),
        problems=problems,
        unfit=tuple(_unfit(store, model, found)),
        signature=check,
    )


def signatures(store: Store, model: str, number: int) -> dict[str, bytes]:
    """Return the signatures beside a version's manifest by the id of their keys, unchecked."""
    return _signature.parse(store.read(f"{model}/{number}/{_manifest.SIGNATURE}"))


def size_bytes(store: Store, model: str, number: int) -> int | None:
    """Return the size of a version's files, or None for one without a manifest."""
    found = manifest(store, model, number)
    return None if found is None else sum(file.get("size_bytes", 0) for file in found["files"].values())


def contract(store: Store, model: str) -> _contract.Contract:
    """Return what the clients of a published model rely on."""
    return _contract.contract(config(store, model), lambda name: _label_file(store, model, name))


def _misplaced(manifest: dict[str, Any], model: str, number: int) -> tuple[str, ...]:
    told = manifest.get("model", model), manifest.get("version", number)
    if told == (model, number):
        return ()
    return (f"{_manifest.FILE} is that of {told[0]} version {told[1]}: the directory was copied or renamed",)


def _unfit(store: Store, model: str, manifest: dict[str, Any]) -> Iterator[str]:
    if "contract" not in manifest:
        return
    try:
        shared = contract(store, model)
    except InvalidModel as error:
        yield str(error)
        return
    for change in _changes.changes(shared, _contract.Contract.from_dict(manifest["contract"])):
        if change.refused:
            yield f"{change.subject} is {change.before} in {_config.FILE} and {change.after} in the manifest"


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
