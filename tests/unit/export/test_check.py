"""The checks of a graph: what exporters declare silently, and what would be wrong or refused once served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import naiad.export
from export_helpers import rows
from naiad.export import CheckFailed
from naiad.export._capture.graph import Graph
from naiad.export._check.check import check
from naiad.export._source.module import ModuleSubject
from naiad.export._source.reference import Answer, answers
from naiad.export._source.samples import Samples
from naiad.export._source.subject import bind

GOOD = Graph(
    path=Path("model.onnx"),
    inputs={"x": ("batch", "length")},
    outputs={"output": ("batch", "length")},
    ranges={"batch": (2, None), "length": (2, None)},
    unused=(),
    opset=20,
    ir_version=10,
    exporter="dynamo",
    versions={},
)


class Same(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


@pytest.fixture(scope="module")
def case() -> tuple[Samples, tuple[Answer, ...]]:
    subject = ModuleSubject(Same())
    samples = bind(subject, [(rows(4, 6),)], {"x": {0: "batch", 1: "length"}}, 8)
    return samples, answers(subject, samples)


def test_a_good_graph_has_no_findings(case: tuple[Samples, tuple[Answer, ...]]) -> None:
    """What PyTorch always assumes (sizes of at least two) is no finding."""
    assert check(GOOD, *case, model="same", trained=False) == ()


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            replace(GOOD, outputs={"output": (1, "length")}),
            r"dimension 0 of output 'output' is fixed at 1 .*1 or 2",
        ),
        (
            replace(GOOD, outputs={"output": ("batch", 6)}),
            r"dimension 1 of output .* fixed at 6 .*3 or 6 or 7",
        ),
        (replace(GOOD, outputs={"output": ("batch",)}), r"rank 1 in the graph and 2 in PyTorch"),
        (
            replace(GOOD, inputs={"x": (4, "length")}),
            r"dimension 0 of input 'x' was declared dynamic; .* at 4",
        ),
        (replace(GOOD, inputs={"x_orig": ("batch", 6)}), r"has the inputs \['x_orig'\]; expected \['x'\]"),
        (replace(GOOD, outputs={"add": ("batch", "length")}), r"has the outputs \['add'\]; expected \['output'\]"),
        (replace(GOOD, ranges={"batch": (3, None)}), r"only valid for batch >= 3"),
        (replace(GOOD, ranges={"batch": (2, 4)}), r"only valid for batch <= 4, and max_batch_size is 8"),
        (replace(GOOD, opset=28), r"has opset 28 and IR version 10"),
        (replace(GOOD, ir_version=14), r"has opset 20 and IR version 14"),
    ],
)
def test_a_graph_that_would_be_wrong_or_refused(
    case: tuple[Samples, tuple[Answer, ...]], graph: Graph, message: str
) -> None:
    """A frozen dimension, a lost name, a limited batch or a format that is too new is one sentence each."""
    with pytest.raises(CheckFailed, match=message) as caught:
        check(graph, *case, model="same", trained=False)
    assert len(caught.value.findings) == 1


def test_what_does_no_harm_is_a_finding(case: tuple[Samples, tuple[Answer, ...]]) -> None:
    """An unused input, a limited length and train mode are said, and stop nothing."""
    graph = replace(GOOD, unused=("x",), ranges={"length": (3, 512)})
    findings = check(graph, *case, model="same", trained=True)
    assert [finding.check for finding in findings] == ["sizes", "unused input", "train mode"]
    assert findings[0].message == "the graph is valid for length >= 3 and <= 512 only"


def test_the_capture_never_uses_a_size_that_bakes_in() -> None:
    """A sample of one row is captured with several, and their number is no other size of the inputs."""
    samples = bind(ModuleSubject(Same()), [(rows(1, 3),)], None, 8)
    assert samples.capture()["x"].shape == (5, 3)


def test_public_names() -> None:
    """What `naiad.export` offers is chosen, not accidental."""
    public = {name for name in vars(naiad.export) if not name.startswith("_")}
    modules = {"errors", "inputs", "recipe", "report", "repository", "recipes", "steps", "weights"}
    assert public - modules == {
        "Audit",
        "BatchLatency",
        "CaptureFailed",
        "CaseParity",
        "CheckFailed",
        "Configured",
        "ContractChanged",
        "CorruptVersion",
        "Divergence",
        "ExportError",
        "Finding",
        "Integrity",
        "Input",
        "InvalidExport",
        "InvalidKey",
        "InvalidModel",
        "InvalidName",
        "InvalidRecipe",
        "LintFinding",
        "Metric",
        "MetricResult",
        "ModelNotFound",
        "ModelOverview",
        "NotTrusted",
        "NotWritable",
        "NothingToRollBack",
        "OutOfSpace",
        "OutputParity",
        "PrecisionLatency",
        "PrecisionRefused",
        "PrecisionResult",
        "Preview",
        "Pruned",
        "Recipe",
        "RecipeError",
        "RecipeFailed",
        "RecipeNotFound",
        "Report",
        "Repository",
        "RepositoryError",
        "ServedVersion",
        "StepInUse",
        "Target",
        "Tolerance",
        "VerificationFailed",
        "Version",
        "VersionDiff",
        "VersionNotFound",
        "VersionOverview",
        "WeightsNotFound",
        "export",
        "export_pipeline",
        "export_recipe",
        "find_recipe",
        "find_target",
        "generate_keys",
        "lint",
        "load_checkpoint",
        "load_recipe",
        "parse_setting",
        "parse_tolerance",
    }
