"""The models that the client's tests call, and how a repository of them is written.

By hand: `python tests/client_models.py FOLDER && naiad serve FOLDER`, then `pytest tests/server/client --triton URL`.
"""

import sys
from pathlib import Path

import numpy as np

NUMBERS = (
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
)
ECHOES = {"echo": NUMBERS, "words": ("STRING",)}
"""Models that give their inputs back, and the types of those."""

SLOW = '''
import time
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Answers its input after that many seconds, sooner if the request is cancelled, and counts what was cancelled."""

    def initialize(self, args):
        self.cancelled = 0

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        seconds = pb.get_input_tensor_by_name(request, "seconds").as_numpy()
        end = time.monotonic() + float(seconds.sum())
        while time.monotonic() < end:
            if request.is_cancelled():
                self.cancelled += 1
                break
            time.sleep(0.005)
        import numpy
        return pb.InferenceResponse([pb.Tensor("cancelled", numpy.full((1,), self.cancelled, "int32"))])
'''

SLOW_CONFIG = """
name: "slow"
backend: "python"
input { name: "seconds" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "cancelled" data_type: TYPE_INT32 dims: [ 1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""

QUEUED = '''
import time
import numpy
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Answers after that many seconds with how many requests of more than none ran so far."""

    def initialize(self, args):
        self.ran = 0

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        seconds = float(pb.get_input_tensor_by_name(request, "seconds").as_numpy().sum())
        self.ran += seconds > 0
        time.sleep(seconds)
        return pb.InferenceResponse([pb.Tensor("ran", numpy.full((1, 1), self.ran, "int32"))])
'''

QUEUED_CONFIG = """
name: "queued"
backend: "python"
max_batch_size: 1
dynamic_batching {
  default_queue_policy { allow_timeout_override: true default_timeout_microseconds: 3600000000 }
}
input { name: "seconds" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "ran" data_type: TYPE_INT32 dims: [ 1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""


def write(repository: Path) -> None:
    """Write all of them below `repository`."""
    from repository_helpers import affine, graph, identity, node, write_model

    for model, types in ECHOES.items():
        tensors = {f"in_{name}": f"{name}[a{name},b{name}]" for name in types}
        write_model(
            repository,
            model,
            identity(tensors),
            inputs={f"in_{name}": f"{name}[-1,-1]" for name in types},
            outputs={f"in_{name}_out": f"{name}[-1,-1]" for name in types},
        )
    row = {"inputs": {"x": "FP32[3]"}, "outputs": {"y": "FP32[3]"}, "max_batch_size": 8}
    for version, scale in enumerate((2.0, 3.0), start=1):
        write_model(
            repository,
            "scale",
            affine(scale=scale),
            version=version,
            **row,
            dynamic_batching={},
            version_policy={"specific": {"versions": [1, 2]}},
        )
    maybe = graph(
        [node("Add", "a", "b", to="sum"), node("Sub", "a", "b", to="difference")],
        {"a": "FP32[2]"},
        {"sum": "FP32[2]", "difference": "FP32[2]"},
        defaults={"b": np.full(2, 0.5, np.float32)},
    )
    write_model(
        repository,
        "maybe",
        maybe,
        inputs={"a": "FP32[2]", "b": {"tensor": "FP32[2]", "optional": True}},
        outputs={"sum": "FP32[2]", "difference": "FP32[2]"},
    )
    write_model(repository, "spare", affine(), **row)
    write_model(
        repository,
        "labelled",
        affine(scale=1.0),
        **{**row, "outputs": {"y": {"tensor": "FP32[3]", "label_filename": "labels.txt"}}},
    )
    (repository / "labelled" / "labels.txt").write_text("cat\ndog\nfish\n")
    for name, code, config in (("slow", SLOW, SLOW_CONFIG), ("queued", QUEUED, QUEUED_CONFIG)):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(code)
        (repository / name / "config.pbtxt").write_text(config)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
