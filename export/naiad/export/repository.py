"""The model repository: which versions exist, which are served, and the acts that change either.

Versions are append-only: one comes in whole, and is never edited afterwards. Which of them Triton serves is
`version_policy` in the model's `config.pbtxt`, replaced at once by *promote* and *rollback*. Each verb is a module of
`_repository`, written against its `store.Store`; this one imports neither torch nor onnx.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naiad.export._report import page as _page
from naiad.export._repository import config as _config
from naiad.export._repository import configuring as _configuring
from naiad.export._repository import diff as _diff
from naiad.export._repository import history as _history
from naiad.export._repository import journal as _journal
from naiad.export._repository import overview as _overview
from naiad.export._repository import pipelines as _pipelines
from naiad.export._repository import preview as _preview
from naiad.export._repository import pruning as _pruning
from naiad.export._repository import publishing as _publishing
from naiad.export._repository import reading as _reading
from naiad.export._repository import serving as _serving
from naiad.export._repository import signature as _signature
from naiad.export._repository import signing as _signing
from naiad.export._repository import wiring as _wiring
from naiad.export._repository.audit import Audit as Audit
from naiad.export._repository.configuring import Configured as Configured
from naiad.export._repository.diff import VersionDiff as VersionDiff
from naiad.export._repository.journal import Entry as Entry
from naiad.export._repository.names import check_name as check_name
from naiad.export._repository.overview import ModelOverview as ModelOverview
from naiad.export._repository.overview import VersionOverview as VersionOverview
from naiad.export._repository.pipelines import StepCandidate as StepCandidate
from naiad.export._repository.preview import Preview as Preview
from naiad.export._repository.pruning import Pruned as Pruned
from naiad.export._repository.publishing import Candidate as Candidate
from naiad.export._repository.reading import Integrity as Integrity
from naiad.export._repository.served import ServedVersion as ServedVersion
from naiad.export._repository.store import open_store
from naiad.export.errors import InvalidModel, RepositoryError, VersionNotFound
from naiad.export.report import Finding, LintFinding, Report, Tolerance, Version

if TYPE_CHECKING:
    from naiad.client import Client
    from naiad.export._check.targets import Target


class Repository:
    """A Triton model repository in a directory, or in a bucket: `s3://bucket/prefix`.

    Reading needs no write access and no lock. `staging` is a directory on the same file system in which versions are
    built; by default `.<name>.staging` beside the repository, or one for temporary files where that is a bucket.
    What is published through this object is signed with `sign_key`, a private key. With `require_signature`, a public
    one, it serves nothing that the key has not signed.

    Raises:
        InvalidKey: A file is not the key it should be, or others may read the private one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        staging: str | os.PathLike[str] | None = None,
        sign_key: str | os.PathLike[str] | None = None,
        require_signature: str | os.PathLike[str] | None = None,
    ) -> None:
        self._store = open_store(path, staging)
        self._signer = _signature.Signer.load(sign_key) if sign_key is not None else None
        self._required = _signature.Verifier.load(require_signature) if require_signature is not None else None

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

    def overview(self, model: str) -> ModelOverview:
        """Return a model's versions with size, age, precision and what is served and signed, from small files only."""
        with self._store.translated(model):
            return _overview.overview(self._store, model)

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

    def lint(
        self, *models: str, target: "str | Target | None" = None, auto_complete: bool = False
    ) -> tuple[LintFinding, ...]:
        """Return what a Triton server would say of these models, or of all directories; see `naiad.export.lint`.

        Raises:
            ModelNotFound: There is no such model.
            InvalidExport: The release is unknown.
        """
        from naiad.export._lint.lint import lint_repository

        with self._store.translated(), self._store.mirror(models) as directory:
            return lint_repository(directory, models, target=target, auto_complete=auto_complete)

    def report_page(self, model: str, number: int) -> str:
        """Return the page `export-report.html` of a version, made from its manifest where it has none.

        Raises:
            VersionNotFound: The model has no such version, or nothing is known of how it was made.
        """
        with self._store.translated(model):
            manifest = _reading.manifest(self._store, model, number)
            data = self._store.read(f"{model}/{number}/{_page.FILE}")
        if data is not None:
            return data.decode()
        if not manifest or "report" not in manifest:
            raise VersionNotFound(
                f"{model} version {number} was not made by naiad export, so that there is no report of it",
                repository=self.location,
                model=model,
                version=number,
            )
        return _page.render(manifest, _config.to_text(self.config(model)))

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

    def history(self, model: str | None = None) -> tuple[Entry, ...]:
        """Return what was published, served, signed and pruned when, of one model or of all, oldest first."""
        with self._store.translated(model):
            return _journal.read(self._store, model)

    def audit(self, *, head: str = "") -> Audit:
        """Check the journal against its hashes, and against what there is; `head` is a hash that was its last once."""
        with self._store.translated():
            return _history.audit(self._store, head)

    def verify(self, model: str, number: int, *, key: str | os.PathLike[str] | None = None) -> Integrity:
        """Compare every file of a version with the hashes in its manifest, and that with a public key's signature.

        Raises:
            InvalidKey: `key` is no public key.
        """
        verifier = _signature.Verifier.load(key) if key is not None else None
        with self._store.translated(model):
            return _wiring.verify(self._store, model, number, verifier)

    def verify_served(
        self,
        model: str,
        server: "str | Sequence[str] | Client",
        *versions: int,
        tolerance: Tolerance | Mapping[str, Any] | None = None,
        timeout_s: float = 30.0,
    ) -> tuple[ServedVersion, ...]:
        """Replay the golden pairs of versions, by default those that are served, on each of the servers.

        Args:
            model: Its name.
            server: As `naiad.client.Client` takes it, or a client.
            versions: All that are served, if none is named.
            tolerance: How far the answers may be from PyTorch, or a dict of what differs from the default of each
                version's precision; by default what held for its export.
            timeout_s: Of each request.

        Raises:
            InvalidModel: A version has no manifest or no golden pairs.
            naiad.client.InvalidInput: The address is none.
        """
        from naiad.client import Client
        from naiad.export._repository import asking

        client = server if isinstance(server, Client) else Client(server, timeout=timeout_s)
        with contextlib.nullcontext() if client is server else client, self._store.translated(model):
            found = asking.verify_served(self._store, model, versions, client, tolerance=tolerance, timeout_s=timeout_s)
            return tuple(found)

    def diff(
        self,
        model: str,
        a: int,
        b: int,
        *,
        other: "Repository | None" = None,
        other_model: str | None = None,
        answers: bool = True,
    ) -> VersionDiff:
        """Compare version `a` with version `b`, that may be of `other_model`, and in an `other` repository.

        Both are run in ONNX Runtime with the golden inputs of both, unless `answers` is false.

        Raises:
            VersionNotFound: One of them does not exist.
        """
        second = (other or self)._store
        with self._store.translated(model), second.translated(other_model or model):
            return _diff.diff(
                _diff.Place(store=self._store, model=model, number=a),
                _diff.Place(store=second, model=other_model or model, number=b),
                answers=answers,
            )

    def sign(self, model: str, number: int, key: str | os.PathLike[str], *, reason: str = "") -> str:
        """Sign a version with a private key, and return the key's id; signatures of other keys stay.

        Raises:
            InvalidKey: `key` is no private key, or others may read it.
            CorruptVersion: The version is not what was published.
        """
        signer = _signature.Signer.load(key)
        with self._store.translated(model):
            _signing.sign(self._store, model, number, signer, reason=reason)
        return signer.key_id

    def preview(self, model: str, *numbers: int) -> Preview:
        """Return what promoting these versions would change; without any, what a rollback would."""
        with self._store.translated(model):
            after = numbers or _serving.earlier_served(self._store, model)
            return _preview.preview(self._store, model, after)

    def promote(self, model: str, *numbers: int, reason: str = "") -> tuple[int, ...]:
        """Serve exactly these versions from now on, and return them; `reason` goes into the journal.

        Raises:
            VersionNotFound: One of them does not exist.
            CorruptVersion: One of them is not what was published.
            NotTrusted: One of them lacks the signature that is required.
        """
        return _serving.promote(self._store, model, numbers, reason=reason, verifier=self._required)

    def rollback(self, model: str, *, reason: str = "") -> tuple[int, ...]:
        """Serve again what was served before the last promotion, and return those versions.

        Raises:
            NothingToRollBack: No earlier state is known, or its versions are gone.
            CorruptVersion, NotTrusted: As for `promote`.
        """
        return _serving.rollback(self._store, model, reason=reason, verifier=self._required)

    def configure(
        self, model: str, settings: Mapping[str, object], *, reason: str = "", dry_run: bool = False
    ) -> Configured:
        """Set fields of a model's configuration by their dotted names, without a new version; None removes a field.

        It is linted first and replaced at once, and the journal keeps what was replaced: `unconfigure` sets that
        again. `max_batch_size` may be lowered, and raised again up to what the export verified: clients that send more
        rows than that are refused.

        Raises:
            InvalidExport: There is no such field, or the value does not fit it.
            CheckFailed: Triton would not load it.
        """
        return _configuring.configure(self._store, model, settings, reason=reason, dry_run=dry_run)

    def unconfigure(self, model: str, *, reason: str = "", dry_run: bool = False) -> Configured:
        """Take back the last change by `configure` that is in force.

        Raises:
            NothingToRollBack: There is none.
        """
        settings = _configuring.before_last(self._store, model)
        return self.configure(model, settings, reason=reason or "taken back", dry_run=dry_run)

    def prune(self, model: str, *, keep: int, force: bool = False, dry_run: bool = False, reason: str = "") -> Pruned:
        """Remove the oldest versions; their numbers are not given again.

        What is served stays, as do the newest `keep`, and what the next rollback would serve, that one unless `force`.

        Raises:
            InvalidExport: `keep` is below 1.
        """
        return _pruning.prune(self._store, model, keep=keep, force=force, dry_run=dry_run, reason=reason)

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

        Raises:
            ContractChanged: See `check_contract`.
            NotTrusted: A signature is required for what is served, and there is no such key to sign with.
        """
        number = _publishing.publish(
            self._store, candidate, promote=promote, signer=self._signer, verifier=self._required
        )
        return self.version(candidate.model, number)

    def publish_pipeline(
        self,
        steps: Sequence[StepCandidate],
        pipeline: Candidate,
        *,
        promote: bool = True,
    ) -> Version:
        """Add the steps of a pipeline as their models' next versions, then the pipeline that is wired to them.

        What is served changes with the last act, from one pipeline to the other as a whole.

        Raises:
            ContractChanged: Of the pipeline or of a step, see `check_contract`; nothing is published then.
            NotTrusted: A signature is required for what is served, and there is no such key to sign with.
        """
        number = _pipelines.publish(
            self._store, steps, pipeline, promote=promote, signer=self._signer, verifier=self._required
        )
        return self.version(pipeline.model, number)
