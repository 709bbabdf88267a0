"""The first diverging node: a wrong operator, an optimiser that errs, and a layer that overflows in fp16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from naiad.export import Repository, Tolerance, VerificationFailed, export
from naiad.export._source.reference import Answer
from naiad.export._verify import diverge, overflow
from naiad.export._verify.parity import compare
from verify_helpers import answer, chain, numbers, samples, write_graph

X = numbers(5, 4)


def expected_of(path: Path, x: np.ndarray[Any, Any] = X) -> np.ndarray[Any, Any]:
    """Return what a graph gives without any optimisation."""
    from naiad.export._runtime.session import session

    return session(path, level=2).run(None, {"x": x})[0]


def test_a_wrong_operator_is_named(tmp_path: Path) -> None:
    """Of a long graph with one wrong operator, the node that gives the first wrong tensor is named."""
    right = chain(tmp_path / "right.onnx", "Tanh", "Scale", "Sigmoid", "Neg", "Exp")
    wrong = chain(tmp_path / "wrong.onnx", "Tanh", "Scale", "Tanh", "Neg", "Exp")
    found = compare(wrong, samples(X), [answer(X, y=expected_of(right))], Tolerance(), model="net")
    assert found.failure is not None
    where = diverge.locate(wrong, found.failure, Tolerance(), reference=diverge.of_graph(right, {"x": X}))
    assert where is not None
    assert (where.cause, where.tensor, where.node, where.operator) == ("conversion", "t2", "tanh_2", "Tanh")


def test_rounding_noise_before_the_wrong_operator_is_not_named(tmp_path: Path) -> None:
    """A tensor that is nothing but rounding noise differs and means nothing; correcting it would correct nothing."""

    def noisy(path: Path, operator: str) -> Path:
        nodes = [
            helper.make_node("Mul", ["x", "third"], ["a"], name="a"),
            helper.make_node("Sub", ["a", "b" if operator == "Tanh" else "a"], ["noise"], name="noise"),
            helper.make_node("Add", ["x", "noise"], ["c"], name="c"),
            helper.make_node(operator, ["c"], ["d"], name="d"),
            helper.make_node("Neg", ["d"], ["y"], name="y"),
        ]
        if operator == "Tanh":
            nodes.insert(1, helper.make_node("Div", ["x", "three"], ["b"], name="b"))
        constants = {"third": np.float32(1 / 3), "three": np.float32(3)}
        return write_graph(path, nodes, constants, x=("batch", 4), outputs={"y": ("float32", ("batch", 4))})

    right, wrong = noisy(tmp_path / "right.onnx", "Sigmoid"), noisy(tmp_path / "wrong.onnx", "Tanh")
    found = compare(wrong, samples(X), [answer(X, y=expected_of(right))], Tolerance(), model="net")
    assert found.failure is not None
    where = diverge.locate(wrong, found.failure, Tolerance(), reference=diverge.of_graph(right, {"x": X}))
    assert where is not None
    assert where.node == "d"


def folded(path: Path) -> tuple[Path, Answer]:
    """Write a convolution and a normalisation whose product of weights overflows when they are folded into one."""
    ones, x = np.ones(2, np.float32), np.abs(numbers(3, 1, 4, 4)) * np.float32(1e-30)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", "g", "zero", "zero", "one"], ["n"], name="norm"),
        helper.make_node("Mul", ["n", "s"], ["m"], name="mul"),
        helper.make_node("Neg", ["m"], ["y"], name="neg"),
    ]
    constants = {
        "w": np.full((2, 1, 1, 1), 1e30, np.float32),
        "g": ones * np.float32(1e10),
        "zero": ones * 0,
        "one": ones,
        "s": np.float32(1e-10),
    }
    shape = ("batch", 2, 4, 4)
    write_graph(path, nodes, constants, x=("batch", 1, 4, 4), outputs={"y": ("float32", shape)})
    return path, answer(x, y=-(x * np.float32(1e30)).repeat(2, axis=1))


def test_an_optimiser_that_errs_is_told_from_the_export(tmp_path: Path) -> None:
    """A graph that is right as it is and wrong when optimised is the optimiser's fault, and the way around is said."""
    path, right = folded(tmp_path / "folded.onnx")
    (x,) = right.case.inputs.values()
    assert compare(path, samples(x), [right], Tolerance(), model="net", level=2).passed
    found = compare(path, samples(x), [right], Tolerance(), model="net")
    assert found.failure is not None
    assert "NaN" in found.failure.reason or "infinity" in found.failure.reason
    where = diverge.locate(path, found.failure, Tolerance())
    assert where is not None
    assert where.cause == "optimiser"
    assert where.operator in ("Conv", "FusedConv")
    assert "--set optimization.graph.level=2" in where.detail


@pytest.fixture
def half(tmp_path: Path) -> tuple[Path, Path]:
    """A graph whose values reach beyond 65504 in its middle, and the same in fp16."""
    base = chain(tmp_path / "fp32.onnx", "Scale", "Scale", "Sqrt", "Sqrt", scale=1e3)
    model = convert_float_to_float16(onnx.load(base), keep_io_types=True)
    onnx.save(model, str(tmp_path / "fp16.onnx"))
    return base, tmp_path / "fp16.onnx"


def test_an_overflow_in_fp16_is_found_on_a_cpu(half: tuple[Path, Path]) -> None:
    """A CPU computes fp16 in fp32, so that an overflow passes unnoticed there; it is found and its layer named."""
    base, candidate = half
    x = np.abs(numbers(5, 4)) + 1
    right = answer(x, y=expected_of(base, x))
    found = overflow.find(candidate, base, right, batch=5, model="net")
    assert found is not None
    assert found.divergence is not None
    assert (found.divergence.cause, found.divergence.operator) == ("precision", "Mul")
    assert "overflow" in found.divergence.detail
    assert overflow.find(candidate, base, answer(x * np.float32(1e-5), y=right.outputs["y"]), batch=5, model="") is None


def test_the_level_of_the_configuration_is_the_one_that_is_verified(tmp_path: Path) -> None:
    """The same graph is refused at the default level and published at the one that the message advises."""
    path, right = folded(tmp_path / "folded.onnx")
    (x,) = right.case.inputs.values()
    with pytest.raises(VerificationFailed, match=r"--set optimization\.graph\.level=2") as caught:
        export(path, "net", samples=[(x,)], repository=tmp_path / "models", max_batch_size=4)
    assert caught.value.divergence is not None
    assert caught.value.divergence.cause == "optimiser"
    settings = {"optimization.graph.level": 2}
    version = export(path, "net", samples=[(x,)], repository=tmp_path / "models", max_batch_size=4, settings=settings)
    assert Repository(tmp_path / "models").config("net").optimization.graph.level == 2
    assert "verified" in (version.path / "export-report.html").read_text()
