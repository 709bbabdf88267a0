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
