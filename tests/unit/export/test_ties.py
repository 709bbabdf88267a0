"""Near ties: what may differ in integers and booleans, and what may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from naiad.export import Tolerance
from naiad.export._verify.parity import compare
from verify_helpers import answer, samples, write_graph

X = np.array([[0.25, 1.0, 1.0], [3.0, 1.0, 2.0]], np.float32)
"""A row whose largest value is there twice, and one without a tie."""
CONSTANTS = {"half": np.float32(0.25), "k": np.array([2], np.int64), "two": np.float32(2)}


def argmax(keepdims: int) -> list[onnx.NodeProto]:
    """Choose among values that the graph computes, and change the type and the shape of the answer."""
    return [
        helper.make_node("Mul", ["x", "two"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=keepdims),
        helper.make_node("Identity", ["best"], ["y"]),
    ]


def topk() -> list[onnx.NodeProto]:
    """Choose the two largest, of the input itself."""
    return [helper.make_node("TopK", ["x", "k"], ["values", "y"], axis=-1)]


def greater() -> list[onnx.NodeProto]:
    """Compare with a threshold that one value has exactly."""
    return [helper.make_node("Greater", ["x", "half"], ["above"]), helper.make_node("Not", ["above"], ["y"])]


def rounded() -> list[onnx.NodeProto]:
    """Round, which is no choice between scores."""
    return [helper.make_node("Round", ["x"], ["near"]), helper.make_node("Cast", ["near"], ["y"], to=7)]


@pytest.mark.parametrize(
    ("nodes", "kind", "dims", "expected", "num_ties"),
    [
        pytest.param(argmax(0), "int64", (), [2, 0], 1, id="argmax of two equal scores"),
        pytest.param(argmax(1), "int64", (1,), [[2], [0]], 1, id="argmax that keeps its dimension"),
        pytest.param(argmax(0), "int64", (), [0, 0], None, id="argmax of another score"),
        pytest.param(argmax(0), "int64", (), [2, 1], None, id="a tie in one row and an error in another"),
        pytest.param(argmax(0), "int64", (), [7, 0], None, id="an index beyond the scores"),
        pytest.param(topk(), "int64", (2,), [[2, 1], [0, 2]], 2, id="topk in the other order"),
        pytest.param(topk(), "int64", (2,), [[2, 0], [0, 2]], None, id="topk of another"),
        pytest.param(greater(), "bool", (3,), [[False, False, False], [False] * 3], 1, id="at the threshold"),
        pytest.param(greater(), "bool", (3,), [[True, True, False], [False] * 3], None, id="far from the threshold"),
        pytest.param(rounded(), "int64", (3,), [[1, 1, 1], [3, 1, 2]], None, id="rounded"),
    ],
)
def test_a_difference_counts_unless_a_tie_explains_it(
    nodes: list[onnx.NodeProto], kind: str, dims: tuple[int, ...], expected: Any, num_ties: int | None, tmp_path: Path
) -> None:
    """Every value that differs must be a near tie; they are counted, and one that is none refuses."""
    used = {name: value for name, value in CONSTANTS.items() if any(name in node.input for node in nodes)}
    shape = ("batch", *dims)
    path = write_graph(tmp_path / "g.onnx", nodes, used, x=("batch", 3), outputs={"y": (kind, shape)})
    found = compare(path, samples(X), [answer(X, y=np.array(expected))], Tolerance(), model="net")
    assert found.passed is (num_ties is not None)
    assert found.parity[0].num_near_ties == (num_ties or 0)
    assert [finding.check for finding in found.findings()] == ["near tie"] * (num_ties is not None)
