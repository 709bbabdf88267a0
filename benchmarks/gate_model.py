"""A model in versions that do more or less work, for gates whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

MODEL = "work"
WIDTH = 128
_CONFIG = """\
name: "work"
backend: "onnxruntime"
max_batch_size: 0
input {{ name: "x" data_type: TYPE_FP32 dims: [ {width}, {width} ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }}
instance_group {{ kind: KIND_CPU count: 1 }}
version_policy {{ specific {{ versions: [ {versions} ] }} }}
"""


def write(repository: Path, versions: dict[int, int]) -> Path:
    """Write versions, each of which multiplies its input by a matrix so many times; ``{1: 20, 2: 24}``."""
    folder = repository / MODEL
    for version, num_layers in versions.items():
        (folder / str(version)).mkdir(parents=True)
        onnx.save(_layers(num_layers), folder / str(version) / "model.onnx")
    text = ", ".join(map(str, versions))
    (folder / "config.pbtxt").write_text(_CONFIG.format(width=WIDTH, versions=text))
    return repository


def _layers(number: int) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    weights, _ = np.linalg.qr(generator.standard_normal((WIDTH, WIDTH)))  # keeps the numbers' size, however many layers
    nodes = [
        helper.make_node("MatMul", ["x" if at == 0 else f"h{at - 1}", "w"], [f"h{at}"], name=f"layer{at}")
        for at in range(number)
    ]
    nodes.append(helper.make_node("ReduceMax", [f"h{number - 1}"], ["m"], keepdims=0))
    nodes.append(helper.make_node("Reshape", ["m", "one"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "work",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [WIDTH, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [
            helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.astype(np.float32).ravel()),
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
