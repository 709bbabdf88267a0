"""The two models that the soak test calls."""

from pathlib import Path

DOUBLE = '''
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Doubles numbers; a negative one at the start is an error."""

    def execute(self, requests):
        return [answer(pb.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]

def answer(x):
    if x[0] < 0:
        return pb.InferenceResponse(error=pb.TritonError("expected no negative number at the start"))
    return pb.InferenceResponse([pb.Tensor("y", x * 2)])
'''

WAIT = '''
import time
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Answers only requests that nobody waits for any more."""

    def execute(self, requests):
        while not all(request.is_cancelled() for request in requests):
            time.sleep(0.001)
        return [pb.InferenceResponse([pb.Tensor("y", pb.get_input_tensor_by_name(request, "x").as_numpy())])
                for request in requests]
'''


def write(repository: Path) -> None:
    """Write both below ``repository``."""
    for name, code, num_instances in (("double", DOUBLE, 1), ("wait", WAIT, 2)):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(code)
        (repository / name / "config.pbtxt").write_text(
            f'name: "{name}" backend: "python" '
            'input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } '
            'output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } '
            f"instance_group {{ kind: KIND_CPU count: {num_instances} }}\n"
        )


def write_onnx(repository: Path, name: str = "dense", num_values: int = 1024) -> None:
    """Write a small ONNX model below ``repository``: one dense layer, ``num_values`` in and 16 out."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(num_values, 16)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", num_values])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (repository / name / "1").mkdir(parents=True)
    onnx.save(model, repository / name / "1" / "model.onnx")
    (repository / name / "config.pbtxt").write_text(
        f'name: "{name}" backend: "onnxruntime" max_batch_size: 16 '
        f'input {{ name: "x" data_type: TYPE_FP32 dims: [ {num_values} ] }} '
        'output { name: "y" data_type: TYPE_FP32 dims: [ 16 ] } '
        "instance_group { kind: KIND_CPU count: 1 } dynamic_batching { } "
        'parameters { key: "intra_op_thread_count" value { string_value: "1" } }\n'
    )
