"""What can go wrong between a PyTorch model and a version in the repository.

    ExportError
    ├── RecipeError
    │   ├── RecipeNotFound (ValueError)    no such recipe file or name
    │   ├── InvalidRecipe (ValueError)     the file does not follow the recipe protocol
    │   └── RecipeFailed                   the recipe's own code raised
    ├── WeightsNotFound                    a package's weights cannot be had, or are not what was expected
    ├── InvalidExport (ValueError)         an argument, a sample or a setting does not fit
    ├── CaptureFailed                      PyTorch could not turn the model into a graph
    ├── CheckFailed                        the graph is not valid for every batch it would be served at
    ├── VerificationFailed                 ONNX Runtime and PyTorch disagree
    ├── PrecisionRefused                   no candidate of the precision that was named passes, or is faster
    ├── InvalidKey (ValueError)            a file is not the key it should be, or others may read it
    └── RepositoryError
        ├── InvalidName (ValueError)       a model or version name the server would misread
        ├── ModelNotFound (ValueError)
        ├── VersionNotFound (ValueError)
        ├── InvalidModel (ValueError)      a config.pbtxt or manifest.json that cannot be read
        ├── ContractChanged (ValueError)   other inputs or outputs than the versions already published
        ├── StepInUse (ValueError)         a pipeline needs a version that was to be served no more
        ├── NothingToRollBack (ValueError)
        ├── CorruptVersion                 files differ from their manifest
        ├── NotTrusted                     no valid signature of the key that is required
        ├── NotWritable                    the repository cannot be written to
        └── OutOfSpace                     the disk is full

Every error carries its fields with defaults, so that it survives pickling.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from naiad.export.report import CaseParity, Divergence, MetricResult, OutputParity, Tolerance


class ExportError(Exception):
    """The root of this room's errors."""


class RecipeError(ExportError):
    """A recipe cannot be used; `path` and `line` say where."""

    def __init__(self, message: str, *, path: Path | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.line = line


class RecipeNotFound(RecipeError, ValueError):
    """No recipe has this name or path."""


class InvalidRecipe(RecipeError, ValueError):
    """The file is not a recipe: something is missing, or has the wrong type."""


class RecipeFailed(RecipeError):
    """The recipe's own code raised; the cause is chained."""


class WeightsNotFound(ExportError):
    """Weights that a package holds cannot be had, or are others than the recipe was written for."""


class InvalidExport(ExportError, ValueError):
    """An argument, a sample or a setting does not fit the model."""


class CaptureFailed(ExportError):
    """PyTorch could not export the model; `operator` and `source` say which call, where known."""

    def __init__(self, message: str, *, operator: str | None = None, source: str | None = None) -> None:
        super().__init__(message)
        self.operator = operator
        self.source = source


class CheckFailed(ExportError):
    """The graph would be wrong or refused once served; `findings` has one sentence for each reason."""

    def __init__(self, message: str, *, model: str = "", findings: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.model = model
        self.findings = findings


class VerificationFailed(ExportError):
    """ONNX Runtime's answer differs from PyTorch's, and nothing was published.

    `divergence` says at which node it first does, where that could be found; `step` which of a pipeline's steps.
    `parity`, `cases` and `metric` have what was measured, as in a report.
    """

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        output: str | None = None,
        batch: int | None = None,
        max_abs_error: float | None = None,
        max_rel_error: float | None = None,
        divergence: "Divergence | None" = None,
        step: str | None = None,
        parity: "tuple[OutputParity, ...]" = (),
        cases: "tuple[CaseParity, ...]" = (),
        metric: "MetricResult | None" = None,
        tolerance: "Tolerance | None" = None,
    ) -> None:
        super().__init__(message)
        self.tolerance = tolerance
        self.parity = parity
        self.cases = cases
        self.metric = metric
        self.model = model
        self.output = output
        self.batch = batch
        self.max_abs_error = max_abs_error
        self.max_rel_error = max_rel_error
        self.divergence = divergence
        self.step = step


class PrecisionRefused(ExportError):
    """No candidate of a precision passes or is faster; `results` has what was tried (`report.PrecisionResult`)."""

    def __init__(self, message: str, *, model: str = "", precision: str = "", results: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.model = model
        self.precision = precision
        self.results = results


class RepositoryError(ExportError):
    """The model repository cannot do this; `repository`, `model` and `version` say where."""

    def __init__(
        self,
        message: str,
        *,
        repository: Path | str | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> None:
        super().__init__(message)
        self.repository = repository
        self.model = model
        self.version = version


class InvalidName(RepositoryError, ValueError):
    """A model name that is unsafe, or that the server would misread."""


class ModelNotFound(RepositoryError, ValueError):
    """The repository has no such model."""


class VersionNotFound(RepositoryError, ValueError):
    """The model has no such version."""


class InvalidModel(RepositoryError, ValueError):
    """A file of the model cannot be read as what it should be."""


class ContractChanged(RepositoryError, ValueError):
    """The new version's inputs or outputs differ from those its clients rely on; `changes` has a phrase for each."""

    def __init__(
        self,
        message: str,
        *,
        repository: Path | str | None = None,
        model: str | None = None,
        version: int | None = None,
        changes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, repository=repository, model=model, version=version)
        self.changes = changes


class StepInUse(RepositoryError, ValueError):
    """A pipeline is wired to this version, which therefore stays served."""


class NothingToRollBack(RepositoryError, ValueError):
    """The journal knows no earlier state of this model."""


class CorruptVersion(RepositoryError):
    """Files of a version are missing, added or changed; `problems` has one sentence for each."""

    def __init__(
        self,
        message: str,
        *,
        repository: Path | str | None = None,
        model: str | None = None,
        version: int | None = None,
        problems: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, repository=repository, model=model, version=version)
        self.problems = problems


class NotWritable(RepositoryError):
    """The repository, or the place beside it where versions are staged, cannot be written to."""


class OutOfSpace(RepositoryError):
    """The disk, the quota or the file-size limit is used up; nothing was published."""


class InvalidKey(ExportError, ValueError):
    """A file is not the key it should be, or others may read it."""


class NotTrusted(RepositoryError):
    """A version has no valid signature of the key that is required; `state` says what it has instead."""

    def __init__(
        self,
        message: str,
        *,
        repository: Path | str | None = None,
        model: str | None = None,
        version: int | None = None,
        state: str = "",
    ) -> None:
        super().__init__(message, repository=repository, model=model, version=version)
        self.state = state
