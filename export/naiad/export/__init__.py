"""From a trained PyTorch model to a verified, versioned entry of a Triton model repository.

    from naiad.export import export

    version = export(model, "digits", samples=[(x,)], max_batch_size=64, repository="model_repository")

Importing this loads neither torch nor onnx; `export` does when it is called. ONNX Runtime's telemetry is off from then
on, unless the environment has ORT_DISABLE_TELEMETRY already.
"""

import os as _os

from naiad.export._check.targets import Target as Target
from naiad.export._check.targets import find_target as find_target
from naiad.export._configure.settings import parse_setting as parse_setting
from naiad.export._export import export as export
from naiad.export._export import export_recipe as export_recipe
from naiad.export._export import load_checkpoint as load_checkpoint
from naiad.export._export_pipeline import export_pipeline as export_pipeline
from naiad.export._lint.lint import lint as lint
from naiad.export._repository.signature import generate_keys as generate_keys
from naiad.export._verify.metric import Metric as Metric
from naiad.export._verify.tolerances import parse_tolerance as parse_tolerance
from naiad.export.errors import CaptureFailed as CaptureFailed
from naiad.export.errors import CheckFailed as CheckFailed
from naiad.export.errors import ContractChanged as ContractChanged
from naiad.export.errors import CorruptVersion as CorruptVersion
from naiad.export.errors import ExportError as ExportError
from naiad.export.errors import InvalidExport as InvalidExport
from naiad.export.errors import InvalidKey as InvalidKey
from naiad.export.errors import InvalidModel as InvalidModel
from naiad.export.errors import InvalidName as InvalidName
from naiad.export.errors import InvalidRecipe as InvalidRecipe
from naiad.export.errors import ModelNotFound as ModelNotFound
from naiad.export.errors import NothingToRollBack as NothingToRollBack
from naiad.export.errors import NotTrusted as NotTrusted
from naiad.export.errors import NotWritable as NotWritable
from naiad.export.errors import OutOfSpace as OutOfSpace
from naiad.export.errors import PrecisionRefused as PrecisionRefused
from naiad.export.errors import RecipeError as RecipeError
from naiad.export.errors import RecipeFailed as RecipeFailed
from naiad.export.errors import RecipeNotFound as RecipeNotFound
from naiad.export.errors import RepositoryError as RepositoryError
from naiad.export.errors import StepInUse as StepInUse
from naiad.export.errors import VerificationFailed as VerificationFailed
from naiad.export.errors import VersionNotFound as VersionNotFound
from naiad.export.errors import WeightsNotFound as WeightsNotFound
from naiad.export.inputs import Input as Input
from naiad.export.recipe import Recipe as Recipe
from naiad.export.recipe import find_recipe as find_recipe
from naiad.export.recipe import load_recipe as load_recipe
from naiad.export.report import BatchLatency as BatchLatency
from naiad.export.report import CaseParity as CaseParity
from naiad.export.report import Divergence as Divergence
from naiad.export.report import Finding as Finding
from naiad.export.report import LintFinding as LintFinding
from naiad.export.report import MetricResult as MetricResult
from naiad.export.report import OutputParity as OutputParity
from naiad.export.report import PrecisionLatency as PrecisionLatency
from naiad.export.report import PrecisionResult as PrecisionResult
from naiad.export.report import Report as Report
from naiad.export.report import Tolerance as Tolerance
from naiad.export.report import Version as Version
from naiad.export.repository import Audit as Audit
from naiad.export.repository import Configured as Configured
from naiad.export.repository import Integrity as Integrity
from naiad.export.repository import ModelOverview as ModelOverview
from naiad.export.repository import Preview as Preview
from naiad.export.repository import Pruned as Pruned
from naiad.export.repository import Repository as Repository
from naiad.export.repository import ServedVersion as ServedVersion
from naiad.export.repository import VersionDiff as VersionDiff
from naiad.export.repository import VersionOverview as VersionOverview

# From its version 1.29 on, its import alone makes an id of this machine in the user's cache and reports to its maker.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
