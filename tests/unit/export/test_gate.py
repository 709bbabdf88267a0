"""The gate as the export uses it: a graph that PyTorch made, and what is said when it is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export_helpers import rows
from naiad.export import InvalidExport, Tolerance, VerificationFailed
from naiad.export._capture.capture import capture
from naiad.export._check.targets import find_target
from naiad.export._source.reference import answers
from naiad.export._source.subject import bind, open_subject
from naiad.export._verify.gate import Gate, metric_of
from naiad.export._verify.metric import Metric
from naiad.export._verify.tolerances import Tolerances


class Block(nn.Module):
    """A linear layer, an activation and a normalisation, added to the input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.norm(nn.functional.gelu(self.linear(x)))


class Blocks(nn.Module):
    """Three blocks and the place of the largest value: [batch, 4] to [batch, 4] and [batch]."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.blocks = nn.Sequential(Block(), Block(), Block())

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.blocks(x)
        return {"y": y, "best": y.argmax(-1)}


@dataclass
class Made:
    """A gate and the graph it is for."""

    gate: Gate
    directory: Path

    def tampered(self, change: Any) -> Path:
        """Return a copy of the graph with a change."""
        model = onnx.load(self.gate.graph.path)
        change(model.graph)
        path = self.directory / "tampered" / "model.onnx"
        path.parent.mkdir(exist_ok=True)
        onnx.save(model, str(path))
        return path


def make(model: nn.Module, directory: Path, exporter: str = "dynamo") -> Made:
    """Capture a model of four numbers a row."""
    subject = open_subject(model, None)
    samples = bind(subject, [(rows(5, 4),)], None, 4)
    with subject.evaluating():
        right = answers(subject, samples)
        (directory / "files").mkdir()
        graph = capture(
            subject,
            samples,
            right,
            opset=20,
            exporter=exporter,
            release=find_target(),
            directory=directory / "capture",
            target=directory / "files",
        )
    gate = Gate(model="net", subject=subject, graph=graph, samples=samples, answers=right, tolerances=Tolerances())
    return Made(gate, directory)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(Blocks(), tmp_path_factory.mktemp("made"))


def set_epsilon(graph: Any) -> None:
    """Make the second normalisation wrong, as a conversion that loses an argument would."""
    norm = [node for node in graph.node if node.op_type == "LayerNormalization"][1]
    next(attribute for attribute in norm.attribute if attribute.name == "epsilon").f = 0.5


def test_a_right_graph_passes(made: Made, tmp_path: Path) -> None:
    """Every output at every batch, with the direction of the floats measured and the integers equal."""
    found = made.gate.require(made.gate.graph.path, "fp32", tmp_path / "trace")
    assert {case.sizes for case in found.cases} == {f"batch {size}" for size in (1, 2, 3, 4)}
    assert [parity.output for parity in found.parity] == ["y", "best"]
    assert found.parity[0].cosine == pytest.approx(1.0)
    assert found.parity[1].cosine is None


def test_a_wrong_conversion_is_named_with_its_module_and_line(made: Made, tmp_path: Path) -> None:
    """The node, its type, the module's path and the line of the model are in the error, and its fields survive."""
    path = made.tampered(set_epsilon)
    gate = replace(made.gate, graph=replace(made.gate.graph, path=path))
    with pytest.raises(VerificationFailed) as caught:
        gate.require(path, "fp32", tmp_path / "trace")
    where = caught.value.divergence
    assert where is not None
    assert (where.cause, where.operator, where.module) == ("conversion", "LayerNormalization", "blocks.1.norm")
    assert "test_gate.py" in where.source
    assert "return x + self.norm(" in where.source
    assert "aten.layer_norm" in where.detail
    assert where.node in str(caught.value)
    assert str(caught.value).endswith("nothing was published")
    assert caught.value.parity[0].output == "y"


def test_a_wrong_graph_of_the_legacy_exporter_is_told_by_its_modules(tmp_path: Path) -> None:
    """That exporter names nodes after modules; what these give in PyTorch is compared."""
    made = make(Blocks(), tmp_path, "legacy")
    path = made.tampered(set_epsilon)
    gate = replace(made.gate, graph=replace(made.gate.graph, path=path))
    with pytest.raises(VerificationFailed) as caught:
        gate.require(path, "fp32", tmp_path / "trace")
    where = caught.value.divergence
    assert where is not None
    assert (where.cause, where.operator, where.module) == ("conversion", "LayerNormalization", "blocks.1.norm")


def test_a_candidate_is_compared_with_the_graph_it_was_made_from(made: Made, tmp_path: Path) -> None:
    """What a lower precision spoils is found by the names that both graphs have."""
    found = made.gate.check(made.tampered(set_epsilon), "fp16")
    assert found.failure is not None
    where = made.gate.explain(made.directory / "tampered" / "model.onnx", found.failure, "fp16", tmp_path / "trace")
    assert where is not None
    assert (where.cause, where.module) == ("precision", "blocks.1.norm")
    assert "keep this node in fp32" in where.detail
    explained = replace(made.gate, explains=True).check(made.directory / "tampered" / "model.onnx", "fp16").failure
    assert explained is not None
    assert explained.reason.endswith(str(where))


def accuracy(**limits: Any) -> Metric:
    """Return a metric: how often the largest value is where PyTorch has it, for 30 rows."""
    x = rows(30, 4, seed=3)
    with torch.no_grad():
        best = Blocks()(x)["best"].numpy()

    def evaluate(predict: Any) -> dict[str, float]:
        return {"accuracy": float((predict({"x": x.numpy()})["best"] == best).mean()), "zero": 0.0}

    return Metric("accuracy", evaluate, **limits)


def test_a_metric_is_computed_of_the_model_and_of_the_file(made: Made) -> None:
    """Both numbers are in the comparison; more rows than a batch holds are asked for in parts."""
    metric = accuracy(max_drop="0.5%")
    expected = metric_of(made.gate.subject, made.gate.samples, metric)
    gate = replace(made.gate, metric=metric, expected_metric=expected)
    found = gate.check(gate.graph.path, "fp32")
    assert found.passed
    assert found.metric is not None
    assert (found.metric.pytorch, found.metric.candidate, found.metric.limit) == (1.0, 1.0, "max drop 0.5%")


def test_a_metric_that_drops_too_far_refuses(made: Made, tmp_path: Path) -> None:
    """Outputs within a wide tolerance do not help when the task suffers."""

    def shift(graph: Any) -> None:
        node = next(node for node in graph.node if node.op_type == "ArgMax")
        node.op_type = "ArgMin"

    path = made.tampered(shift)
    loose = Tolerances(given={"rtol": 0.9, "atol": 0.99, "cosine": -1})
    gate = replace(made.gate, metric=accuracy(max_drop=0.1), expected_metric=1.0, tolerances=loose)
    with pytest.raises(VerificationFailed, match=r"accuracy of net is 0\.?\d* in ONNX Runtime and 1 in PyTorch"):
        gate.require(path, "int8", tmp_path / "trace")


@pytest.mark.parametrize(
    ("limits", "pytorch", "candidate", "passed"),
    [
        ({"max_drop": "1%"}, 0.80, 0.792, True),
        ({"max_drop": "1%"}, 0.80, 0.7919, False),
        ({"max_drop": 0.01}, 0.80, 0.79, True),
        ({"max_drop": "0.01"}, 0.80, 0.7899, False),
        ({"max_drop": "0%"}, 0.80, 0.80, True),
        ({"max_drop": "0%"}, 0.80, 0.81, True),
        ({"max_rise": "10%"}, 5.0, 5.5, True),
        ({"max_rise": "10%"}, 5.0, 5.51, False),
        ({"max_rise": 0}, 5.0, 4.0, True),
        ({"max_drop": "50%"}, -2.0, -3.0, True),
        ({}, 0.5, 0.494, False),
    ],
)
def test_a_limit_is_a_share_of_pytorchs_value_or_in_the_metrics_unit(
    limits: dict[str, Any], pytorch: float, candidate: float, passed: bool
) -> None:
    """`%` is relative to PyTorch's value; a plain number is absolute; better is always allowed."""
    assert Metric("m", lambda predict: 0.0, **limits).compare(pytorch, candidate).passed is passed


@pytest.mark.parametrize("limits", [{"max_drop": "much"}, {"max_drop": -1}, {"max_drop": 1, "max_rise": 1}])
def test_a_limit_that_is_none_is_refused(limits: dict[str, Any]) -> None:
    """A word, a negative number, and two directions at once."""
    with pytest.raises(InvalidExport, match=r"max_drop|0\.5%"):
        Metric("m", lambda predict: 0.0, **limits)


def test_a_metric_that_is_not_there_is_named(made: Made) -> None:
    """The message lists the metrics that there are."""
    metric = replace(accuracy(), name="f1")
    with pytest.raises(InvalidExport, match=r"no metric 'f1'; evaluate\(\) gives accuracy, zero"):
        metric_of(made.gate.subject, made.gate.samples, metric)


def test_tolerances_are_given_for_all_or_for_one_precision_or_output() -> None:
    """What is not given is the default of the precision."""
    given = {"atol": 0.5, "outputs": {"y": {"cosine": 0.5}}, "int8": {"rtol": 0.3}}
    tolerances = Tolerances(given=given)
    assert tolerances.of("fp32") == Tolerance(atol=0.5, outputs={"y": Tolerance(atol=0.5, cosine=0.5)})
    assert tolerances.of("int8-static").rtol == 0.3
    assert tolerances.of("int8-static").for_output("other").cosine == Tolerance.of("int8").cosine
    assert Tolerances(given=Tolerance(rtol=0.5)).of("fp16") == Tolerance(rtol=0.5)
    with pytest.raises(InvalidExport, match=r"for the output 'y'; the model has \['x'\]"):
        tolerances.check_outputs(["x"])
    assert np.all(np.diff([Tolerances().of(each).atol for each in ("fp32", "fp16", "bf16", "int8", "int4")]) > 0)
