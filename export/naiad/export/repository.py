"""The model repository: which versions exist, which are served, and the acts that change either.

Versions are append-only: one is built beside the repository and renamed in, and never edited afterwards. Which of
them Triton serves is `version_policy` in the model's `config.pbtxt`, replaced in one rename by *promote* and
*rollback*. This module imports neither torch nor onnx.
"""

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naiad.export._configure import settings as _settings
from naiad.export._repository import config as _config
from naiad.export._repository import durable as _durable
from naiad.export._repository import journal as _journal
from naiad.export._repository import manifest as _manifest
from naiad.export._repository import stage as _stage
from naiad.export.errors import (
    ContractChanged,
    CorruptVersion,
    InvalidModel,
    InvalidName,
    ModelNotFound,
    NothingToRollBack,
    NotWritable,
    VersionNotFound,
)
from naiad.export.report import Report, Version

_logger = logging.getLogger("naiad.export")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_NUMBER_PREFIX = re.compile(r"[0-9]{1,9}")


def check_name(model: str) -> str:
    """Return `model` when it is a safe model name.

    Raises:
        InvalidName: It has other characters than letters, digits, `_`, `.` and `-`, or begins with `.` or `-`.
    """
    if not _NAME.fullmatch(model):
        raise InvalidName(
            f"{model!r} is not a model name: expected letters, digits, '_', '.' and '-', beginning with a letter, "
            "a digit or '_', at most 128 in all",
            model=model,
        )
    return model


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


class Repository:
    """A Triton model repository on a local file system.

    Reading needs no write access and no lock. `staging` is a directory on the same file system in which versions are
    built; by default `.<name>.staging` beside the repository.
    """

    def __init__(self, path: str | os.PathLike[str], *, staging: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path).resolve()
        self._staging = Path(staging).resolve() if staging else self.path.parent / f".{self.path.name}.staging"

    def __repr__(self) -> str:
        return f"Repository({str(self.path)!r})"

    def models(self) -> tuple[str, ...]:
        """Return the names of the models that have a configuration, sorted.

        Raises:
            ModelNotFound: The repository itself does not exist.
        """
        if not self.path.is_dir():
            raise ModelNotFound(
                f"there is no model repository at {self.path}; publish a model with `naiad export`, or name another",
                repository=self.path,
            )
        return tuple(sorted(path.parent.name for path in self.path.glob(f"*/{_config.FILE}")))

    def versions(self, model: str) -> tuple[int, ...]:
        """Return the numbers of all versions of a model, ascending."""
        directory = self._directory(model)
        return tuple(
            sorted(int(path.name) for path in directory.iterdir() if path.is_dir() and _NUMBER.fullmatch(path.name))
        )

    def served(self, model: str) -> tuple[int, ...]:
        """Return the versions that Triton serves under the model's current configuration, ascending."""
        return _config.served(self.config(model), self.versions(model))

    def config(self, model: str) -> Any:
        """Return the model's configuration, a `tritonclient.grpc.model_config_pb2.ModelConfig`."""
        return _config.read(self._directory(model) / _config.FILE)

    def version(self, model: str, number: int) -> Version:
        """Return one version with the report of its export.

        Raises:
            VersionNotFound: The model has no such version.
        """
        path = self._version_directory(model, number)
        manifest = self.manifest(model, number)
        report = Report.from_dict(manifest["report"]) if "report" in manifest else None
        return Version(model=model, number=number, path=path, report=report)

    def manifest(self, model: str, number: int) -> dict[str, Any]:
        """Return `manifest.json` of a version; empty for a version that was not published by an export."""
        return _manifest.read(self._version_directory(model, number)) or {}

    def history(self, model: str) -> tuple[_journal.Entry, ...]:
        """Return what was published and served when, oldest first."""
        return _journal.read(self.path, model)

    def verify(self, model: str, number: int) -> Integrity:
        """Compare every file of a version with the hashes in its manifest."""
        path = self._version_directory(model, number)
        manifest = _manifest.read(path)
        if manifest is None:
            problems: tuple[str, ...] = (f"there is no {_manifest.FILE}",)
            return Integrity(model=model, version=number, num_files=0, problems=problems)
        problems = _manifest.problems(path, manifest)
        return Integrity(model=model, version=number, num_files=len(manifest["files"]), problems=problems)

    def promote(self, model: str, *numbers: int) -> tuple[int, ...]:
        """Serve exactly these versions from now on, and return them.

        Raises:
            VersionNotFound: One of them does not exist.
            CorruptVersion: One of them is not what was published.
        """
        if not numbers:
            raise VersionNotFound(f"name the version of {model} to promote: one of {self._list(model)}", model=model)
        after = tuple(sorted(set(numbers)))
        with _durable.translated(self.path, model), self._stage() as stage, _stage.locked(self.path):
            self._serve(model, after, "promote", stage)
        return after

    def rollback(self, model: str) -> tuple[int, ...]:
        """Serve again what was served before the last promotion, and return those versions.

        Raises:
            NothingToRollBack: No earlier state is known, or its versions are gone.
        """
        self._directory(model)
        with _durable.translated(self.path, model), self._stage() as stage, _stage.locked(self.path):
            earlier = _journal.previous(self.history(model), self.served(model))
            if not earlier or not set(earlier) <= set(self.versions(model)):
                raise NothingToRollBack(
                    f"nothing to roll {model} back to: it serves {self._list(model, self.served(model))} and no "
                    f"earlier state is known; promote one of {self._list(model)} instead",
                    repository=self.path,
                    model=model,
                )
            self._serve(model, earlier, "rollback", stage)
        return earlier

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """Give a private directory on the repository's file system, creating the repository where it is missing.

        Raises:
            NotWritable: The repository or the staging place cannot be written to.
        """
        with _durable.translated(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            with self._stage() as path:
                yield path

    def check_contract(self, model: str, config: Any, labels: Path) -> None:
        """Refuse a configuration that would break clients of the versions already published.

        Raises:
            ContractChanged: Names, dtypes, dims, max_batch_size or labels differ.
        """
        directory = self.path / check_name(model)
        if not (directory / _config.FILE).exists():
            return
        published = _config.contract(self.config(model), directory)
        differences = published.differences(_config.contract(config, labels))
        if differences:
            raise ContractChanged(
                f"{model} is already published and its clients rely on it: {'; '.join(differences)}. "
                "Publish this model under a new name",
                repository=self.path,
                model=model,
            )

    def publish(self, candidate: Candidate, *, promote: bool = True) -> Version:
        """Move a candidate in as the next version, and serve it when `promote` is true.

        The first version of a model is always served: Triton cannot load a model without one.
        """
        model = check_name(candidate.model)
        with _durable.translated(self.path, model), _stage.locked(self.path):
            self.check_contract(model, candidate.config, candidate.labels)
            number = self._next_number(model)
            _write_manifest(candidate, number)
            if self._is_new(model):
                self._publish_model(candidate, number)
            else:
                self._publish_version(candidate, number, promote=promote)
        _logger.info("published %s version %d in %s", model, number, self.path)
        return self.version(model, number)

    def _publish_model(self, candidate: Candidate, number: int) -> None:
        whole = candidate.files.parent / "model"
        shutil.copytree(candidate.labels, whole)
        candidate.files.rename(whole / str(number))
        _config.serve(candidate.config, (number,))
        _durable.write_new(whole / _config.FILE, _config.to_text(candidate.config).encode())
        _durable.sync_tree(whole)
        whole.rename(self.path / candidate.model)
        _durable.sync_directory(self.path)
        self._record("publish", candidate.model, version=number, before=(), after=(number,))

    def _publish_version(self, candidate: Candidate, number: int, *, promote: bool) -> None:
        directory, before = self.path / candidate.model, self.served(candidate.model)
        after = (number,) if promote else before
        prepared = None
        if promote:
            prepared = self._prepare_config(candidate.model, after, candidate.files.parent, candidate.settings)
        _durable.sync_tree(candidate.files)
        candidate.files.rename(directory / str(number))
        if prepared is not None:
            prepared.replace(directory / _config.FILE)
        _durable.sync_directory(directory)
        self._record("publish", candidate.model, version=number, before=before, after=after)

    def _serve(self, model: str, after: tuple[int, ...], action: _journal.Action, stage: Path) -> None:
        for number in after:
            self._require_intact(model, number)
        before = self.served(model)
        prepared = self._prepare_config(model, after, stage)
        prepared.replace(self.path / model / _config.FILE)
        _durable.sync_directory(self.path / model)
        self._record(action, model, before=before, after=after)
        _logger.info("%s of %s: serves %s instead of %s", action, model, after, before)

    def _prepare_config(
        self, model: str, versions: tuple[int, ...], stage: Path, settings: Mapping[str, object] | None = None
    ) -> Path:
        config = self.config(model)
        _settings.apply(config, settings or {})
        _config.serve(config, versions)
        text = (self.path / model / _config.FILE).read_text(encoding="utf-8")
        prepared = stage / _config.FILE
        _durable.write_new(prepared, _config.rewritten(text, config).encode())
        return prepared

    def _require_intact(self, model: str, number: int) -> None:
        directory = self._version_directory(model, number)
        if _manifest.read(directory) is None:  # made by hand: there is nothing to compare with
            return
        integrity = self.verify(model, number)
        if not integrity.ok:
            raise CorruptVersion(
                f"{model} version {number} is not what was published: {'; '.join(integrity.problems)}; "
                "serve another version, and export this one again",
                repository=self.path,
                model=model,
                version=number,
                problems=integrity.problems,
            )

    def _record(
        self,
        action: _journal.Action,
        model: str,
        *,
        version: int | None = None,
        before: tuple[int, ...],
        after: tuple[int, ...],
    ) -> None:
        # The act has happened; a journal that cannot be written must not turn it into a failure.
        try:
            _journal.append(self.path, action, model, version=version, before=before, after=after)
        except OSError as exc:
            _logger.warning("the journal of %s could not be written: %s", self.path, exc)

    @contextlib.contextmanager
    def _stage(self) -> Iterator[Path]:
        if not os.access(self.path.parent, os.W_OK) and not self._staging.is_dir():
            raise NotWritable(
                f"versions are built in {self._staging}, beside the repository, and {self._staging.parent} is not "
                "writable; create that directory, or name a staging directory on the same file system",
                repository=self.path,
            )
        with _stage.stage(self.path, self._staging) as path:
            yield path

    def _is_new(self, model: str) -> bool:
        directory = self.path / model
        if not directory.exists() or not any(directory.iterdir()):
            return True
        if not (directory / _config.FILE).exists():
            raise InvalidModel(
                f"{directory} exists without a {_config.FILE}, so it is not a model; move it, or take another name",
                repository=self.path,
                model=model,
            )
        return False

    def _next_number(self, model: str) -> int:
        # Triton reads `3.tmp` as version 3, so anything that begins with a number takes that number.
        directory = self.path / model
        names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
        taken = [int(match.group()) for name in names if (match := _NUMBER_PREFIX.match(name))]
        recorded = [entry.version for entry in self.history(model) if entry.version is not None]
        return max([0, *taken, *recorded]) + 1

    def _directory(self, model: str) -> Path:
        directory = self.path / check_name(model)
        if not (directory / _config.FILE).is_file():
            known = ", ".join(self.models()) or "none yet"
            raise ModelNotFound(f"there is no model {model!r} in {self.path}; it has: {known}", model=model)
        return directory

    def _version_directory(self, model: str, number: int) -> Path:
        if number not in self.versions(model):
            raise VersionNotFound(
                f"{model} has no version {number}; it has {self._list(model)}",
                repository=self.path,
                model=model,
                version=number,
            )
        return self.path / model / str(number)

    def _list(self, model: str, numbers: tuple[int, ...] | None = None) -> str:
        return ", ".join(map(str, self.versions(model) if numbers is None else numbers)) or "none"


def _write_manifest(candidate: Candidate, number: int) -> None:
    manifest = {
        "model": candidate.model,
        "version": number,
        "files": _manifest.describe_files(candidate.files),
        **candidate.manifest,
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    _durable.write_new(candidate.files / _manifest.FILE, text.encode())
