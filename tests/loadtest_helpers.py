"""A repository with small models to put under load, made without PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

NAIAD = (sys.executable, "-c", "from naiad.cli import main; main()")
WEIGHTS = np.arange(16, dtype=np.float32).reshape(8, 2) / 16

CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 16
input {{ name: "x" data_type: TYPE_FP32 dims: [ 8 ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }}
instance_group {{ kind: KIND_CPU count: 1 }}
dynamic_batching {{ }}
"""


def expected(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the models answer."""
    return x @ WEIGHTS


def write_repository(root: Path, *names: str) -> Path:
    """Write models (``linear``, or those named) that take batches of up to 16, with golden samples."""
    for name in names or ("linear",):
        version = root / name / "1"
        version.mkdir(parents=True)
        onnx.save(_linear(), version / "model.onnx")
        (root / name / "config.pbtxt").write_text(CONFIG.format(name=name))
        write_golden(version / "golden.npz")
    return root


def write_golden(path: Path, *, wrong: bool = False) -> Path:
    """Write two cases of one and three rows; ``wrong`` gives outputs that no linear model would answer."""
    generator = np.random.default_rng(7)
    arrays = {}
    for case, num_rows in enumerate((1, 3)):
        x = generator.random((num_rows, 8), np.float32)
        arrays[f"input/{case}/x"] = x
        arrays[f"output/{case}/y"] = expected(x) + (1.0 if wrong else 0.0)
    np.savez(path, **{name: array.astype(np.float32) for name, array in arrays.items()})
    return path


def _linear() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor("w", TensorProto.FLOAT, WEIGHTS.shape, WEIGHTS.ravel())],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
