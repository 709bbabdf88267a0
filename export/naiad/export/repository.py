"""The model repository: which versions exist, which are served, and the acts that change either.

Versions are append-only: one comes in whole, and is never edited afterwards. Which of them Triton serves is
`version_policy` in the model's `config.pbtxt`, replaced at once by *promote* and *rollback*. Each verb is a module of
`_repository`, written against its `store.Store`; this one imports neither torch nor onnx.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from naiad.export._repository import journal as _journal
from naiad.export._repository import publishing as _publishing
from naiad.export._repository import reading as _reading
from naiad.export._repository import serving as _serving
from naiad.export._repository.names import check_name as check_name
from naiad.export._repository.publishing import Candidate as Candidate
from naiad.export._repository.reading import Integrity as Integrity
from naiad.export._repository.store import open_store
from naiad.export.errors import InvalidModel, RepositoryError
from naiad.export.report import Finding, Report, Version


class Repository:
    """A Triton model repository in a directory, or in a bucket: `s3://bucket/prefix`.

    Reading needs no write access and no lock. `staging` is a directory on the same file system in which versions are
    built; by default `.<name>.staging` beside the repository, or one for temporary files where that is a bucket.
    """

    def __init__(self, path: str | os.PathLike[str], *, staging: str | os.PathLike[str] | None = None) -> None:
        self._store = open_store(path, staging)

    def __repr__(self) -> str:
        return f"Repository({self.location!r})"

    @property
    def location(self) -> str:
        """The absolute path, or the URL."""
        return self._store.location

    @property
    def path(self) -> Path:
        """The directory.

        Raises:
            RepositoryError: The repository is in a bucket; `files` gives a directory with a version's files.
        """
        if self._store.path is None:
            raise RepositoryError(
                f"{self.location} is not a directory; Repository.files() gives one with a version's files",
                repository=self.location,
            )
        return self._store.path

    def models(self) -> tuple[str, ...]:
        """Return the names of the models that have a configuration, sorted.

        Raises:
            ModelNotFound: The repository itself does not exist.
        """
        with self._store.translated():
            return _reading.models(self._store)

    def versions(self, model: str) -> tuple[int, ...]:
        """Return the numbers of all versions of a model, ascending."""
        with self._store.translated(model):
            return _reading.versions(self._store, model)

    def served(self, model: str) -> tuple[int, ...]:
        """Return the versions that Triton serves under the model's current configuration, ascending."""
        with self._store.translated(model):
            return _reading.served(self._store, model)

    def config(self, model: str) -> Any:
        """Return the model's configuration, a `tritonclient.grpc.model_config_pb2.ModelConfig`."""
        with self._store.translated(model):
            return _reading.config(self._store, model)

    def version(self, model: str, number: int) -> Version:
        """Return one version with the report of its export.

        Raises:
            VersionNotFound: The model has no such version.
        """
        manifest = self.manifest(model, number)
        report = Report.from_dict(manifest["report"]) if "report" in manifest else None
        return Version(model=model, number=number, location=f"{self.location}/{model}/{number}", report=report)

    def manifest(self, model: str, number: int) -> dict[str, Any]:
        """Return `manifest.json` of a version; empty for a version that was not published by an export."""
        with self._store.translated(model):
            return _reading.manifest(self._store, model, number) or {}

    @contextlib.contextmanager
    def files(self, model: str, number: int, *names: str) -> Iterator[Path]:
        """Give a directory with the files of a version, or with those of `names` that there are.

        Of a local repository it is the version itself; from a bucket the files are fetched and compared with their
        hashes, into a directory that goes with the block. Do not write to it.

        Raises:
            VersionNotFound: The model has no such version.
            CorruptVersion: A fetched file is not what was published.
        """
        with self._store.translated(model):
            _reading.require_version(self._store, model, number)
            with self._store.files(model, number, names or None) as directory:
                yield directory

    def warmup_data(self, model: str, name: str) -> bytes:
        """Return a file of the model's `warmup/`, which all its versions share.

        Raises:
            InvalidModel: There is no such file, and Triton will not load the model.
        """
        with self._store.translated(model):
            data = self._store.read(f"{check_name(model)}/warmup/{name}")
        if data is None:
            raise InvalidModel(
                f"the configuration of {model} names the warm-up data {name}, which {self.location}/{model}/warmup "
                "lacks; put it there, or take the warm-up out of the configuration",
                repository=self.location,
                model=model,
            )
        return data

    def history(self, model: str) -> tuple[_journal.Entry, ...]:
        """Return what was published and served when, oldest first."""
        with self._store.translated(model):
            return _journal.read(self._store, model)

    def verify(self, model: str, number: int) -> Integrity:
        """Compare every file of a version with the hashes in its manifest."""
        with self._store.translated(model):
            return _reading.verify(self._store, model, number)

    def promote(self, model: str, *numbers: int) -> tuple[int, ...]:
        """Serve exactly these versions from now on, and return them.

        Raises:
            VersionNotFound: One of them does not exist.
            CorruptVersion: One of them is not what was published.
        """
        return _serving.promote(self._store, model, numbers)

    def rollback(self, model: str) -> tuple[int, ...]:
        """Serve again what was served before the last promotion, and return those versions.

        Raises:
            NothingToRollBack: No earlier state is known, or its versions are gone.
        """
        return _serving.rollback(self._store, model)

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """Give a private directory in which a version is built, creating the repository where it is missing.

        Raises:
            NotWritable: The repository or the staging place cannot be written to.
        """
        with self._store.translated(), self._store.stage() as path:
            yield path

    def check_contract(self, model: str, config: Any, labels: Path) -> tuple[Finding, ...]:
        """Refuse a configuration that would break clients, or that the versions already published do not fit.

        Returns:
            What the published configuration keeps although this version could do more.

        Raises:
            ContractChanged: Names, dtypes, dims, labels or another part of the contract differ, and it matters.
        """
        with self._store.translated(model):
            return _publishing.check_contract(self._store, model, config, labels)

    def publish(self, candidate: Candidate, *, promote: bool = True) -> Version:
        """Add a candidate as the next version, and serve it when `promote` is true.

        The first version of a model is always served: Triton cannot load a model without one.
        """
        number = _publishing.publish(self._store, candidate, promote=promote)
        return self.version(candidate.model, number)
