"""Graphs and answers for the tests of the parity gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from naiad.export._source.reference import Answer
from naiad.export._source.samples import Case, Samples

TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


def write_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray[Any, Any]],
    *,
    x: tuple[int | str, ...],
    outputs: dict[str, tuple[str, tuple[int | str, ...]]],
) -> Path:
    """Write a graph with the input `x` of float32; an output is its type and its dimensions."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(name, TYPES[kind], dims) for name, (kind, dims) in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def chain(path: Path, *operators: str, scale: float = 1.0) -> Path:
    """Write a graph of operators without parameters, one after the other; `Scale` multiplies by `scale`."""
    nodes, value = [], "x"
    for index, operator in enumerate(operators):
        last = index == len(operators) - 1
        inputs = [value, "scale"] if operator == "Scale" else [value]
        value = "y" if last else f"t{index}"
        kind = "Mul" if operator == "Scale" else operator
        nodes.append(helper.make_node(kind, inputs, [value], name=f"{kind.lower()}_{index}"))
    constants = {"scale": np.float32(scale)}
    return write_graph(path, nodes, constants, x=("batch", 4), outputs={"y": ("float32", ("batch", 4))})


def answer(x: np.ndarray[Any, Any], **outputs: np.ndarray[Any, Any]) -> Answer:
    """Return one case with its right answers."""
    return Answer(case=Case(sizes={"batch": len(x)}, inputs={"x": x}), outputs=outputs)


def samples(x: np.ndarray[Any, Any]) -> Samples:
    """Return samples whose first dimension is the batch."""
    return Samples(rows=({"x": x},), dynamic={"x": {0: "batch"}}, batch="batch", max_batch_size=8)


def numbers(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return reproducible normal numbers in float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
