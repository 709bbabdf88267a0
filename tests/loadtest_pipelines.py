"""Models that other models call, for load tests: ensembles and scripts, made without PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from loadtest_helpers import write_repository

_ENSEMBLE = """\
name: "{name}"
platform: "ensemble"
max_batch_size: 16
input {{ name: "x" data_type: TYPE_FP32 dims: [ 8 ] }}
output {{ name: "z" data_type: TYPE_FP32 dims: [ 2 ] }}
ensemble_scheduling {{
{steps}
}}
"""
_STEP = """\
  step {{ model_name: "{model}" model_version: -1
    input_map {{ key: "{takes[0]}" value: "{takes[1]}" }} output_map {{ key: "{gives[0]}" value: "{gives[1]}" }} }}
"""
_SCALED = """\
name: "scaled"
backend: "onnxruntime"
max_batch_size: 16
input { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "z" data_type: TYPE_FP32 dims: [ 2 ] }
instance_group { kind: KIND_CPU count: 1 }
dynamic_batching { }
"""
_SCRIPT = """\
name: "script"
backend: "python"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: [ 8 ] }
output { name: "z" data_type: TYPE_FP32 dims: [ 2 ] }
instance_group { kind: KIND_CPU count: 1 }
parameters { key: "naiad.calls" value { string_value: "linear:-1,scaled:-1" } }
"""
_CODE = '''\
import triton_python_backend_utils as pb_utils


def call(model, output, tensor):
    request = pb_utils.InferenceRequest(model_name=model, requested_output_names=[output], inputs=[tensor])
    response = request.exec()
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return pb_utils.get_output_tensor_by_name(response, output)


class TritonPythonModel:
    """Calls one model for every request, and another one twice."""

    def execute(self, requests):
        answers = []
        for request in requests:
            y = call("linear", "y", pb_utils.get_input_tensor_by_name(request, "x"))
            z = pb_utils.Tensor("y", call("scaled", "z", y).as_numpy())
            answers.append(pb_utils.InferenceResponse(output_tensors=[call("scaled", "z", z)]))
        return answers
'''


def write_pipelines(root: Path) -> Path:
    """Write ``linear`` and ``scaled``, and what calls them.

    ``chain``: an ensemble of both. ``script``: Python code that calls ``linear`` once and ``scaled`` twice.
    ``nested``: an ensemble of ``script`` alone. ``fork``: an ensemble in which two steps wait only for the first.
    """
    write_repository(root, "linear")
    (root / "scaled" / "1").mkdir(parents=True)
    onnx.save(_scaled(), root / "scaled" / "1" / "model.onnx")
    (root / "scaled" / "config.pbtxt").write_text(_SCALED)
    (root / "script" / "1").mkdir(parents=True)
    (root / "script" / "1" / "model.py").write_text(_CODE)
    (root / "script" / "config.pbtxt").write_text(_SCRIPT)
    first = ("linear", ("x", "x"), ("y", "y"))
    _write_ensemble(root, "chain", first, ("scaled", ("y", "y"), ("z", "z")))
    _write_ensemble(root, "nested", ("script", ("x", "x"), ("z", "z")))
    _write_ensemble(
        root,
        "fork",
        first,
        ("scaled", ("y", "y"), ("z", "z")),
        ("scaled", ("y", "y"), ("z", "other")),
        output='\noutput { name: "other" data_type: TYPE_FP32 dims: [ 2 ] }',
    )
    return root


def _write_ensemble(
    root: Path, name: str, *steps: tuple[str, tuple[str, str], tuple[str, str]], output: str = ""
) -> None:
    (root / name / "1").mkdir(parents=True)
    written = "".join(_STEP.format(model=model, takes=takes, gives=gives) for model, takes, gives in steps)
    (root / name / "config.pbtxt").write_text(_ENSEMBLE.format(name=name, steps=written) + output)


def _scaled() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["y", "two"], ["z"])],
        "scaled",
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor("two", TensorProto.FLOAT, [1], np.full(1, 2, np.float32))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
