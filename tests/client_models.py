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


PARTS = '''
import threading
import time
import numpy
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Sends n parts, each request from a thread of its own; n below 0 asks for [begun, ended, sent, cancelled].

    One that is cancelled waits a moment before it ends: Triton 24.10 crashes if the end follows at once.
    """

    def initialize(self, args):
        self.lock = threading.Lock()
        self.counts = numpy.zeros(4, "int64")

    def execute(self, requests):
        for request in requests:
            given = {tensor.name(): tensor.as_numpy()[0] for tensor in request.inputs()}
            threading.Thread(target=self.answer, args=(request.get_response_sender(), given)).start()

    def count(self, which):
        with self.lock:
            self.counts[which] += 1

    def answer(self, sender, given):
        end = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        n = int(given["n"])
        if n < 0:
            sender.send(pb.InferenceResponse([pb.Tensor("counts", self.counts.copy())]), end)
            return
        self.count(0)
        marked = bool(given.get("mark_last", 0))
        for i in range(n):
            if self.cancelled_within(sender, float(given.get("gap_s", 0))):
                self.count(3)
                time.sleep(0.05)
                break
            self.count(2)
            if marked and i == n - 1:
                self.count(1)
                sender.send(self.part(i, given), end)
                return
            sender.send(self.part(i, given))
        self.count(1)
        sender.send(flags=end)

    def cancelled_within(self, sender, seconds):
        until = time.monotonic() + seconds
        while not sender.is_cancelled():
            if time.monotonic() >= until:
                return False
            time.sleep(0.002)
        return True

    def part(self, i, given):
        if i == given.get("fail_at", -1):
            return pb.InferenceResponse(error=pb.TritonError(f"part {i} broke"))
        payload = numpy.full(int(given.get("size", 0)), i % 256, "uint8")
        return pb.InferenceResponse([pb.Tensor("i", numpy.array([i], "int32")), pb.Tensor("payload", payload)])
'''

PARTS_CONFIG = """
name: "parts"
backend: "python"
model_transaction_policy { decoupled: true }
input [
  { name: "n" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "gap_s" data_type: TYPE_FP32 dims: [ 1 ] optional: true },
  { name: "size" data_type: TYPE_INT32 dims: [ 1 ] optional: true },
  { name: "fail_at" data_type: TYPE_INT32 dims: [ 1 ] optional: true },
  { name: "mark_last" data_type: TYPE_INT32 dims: [ 1 ] optional: true }
]
output [
  { name: "i" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "payload" data_type: TYPE_UINT8 dims: [ -1 ] },
  { name: "counts" data_type: TYPE_INT64 dims: [ 4 ] }
]
instance_group { kind: KIND_CPU count: 1 }
"""

TOTALS = '''
import numpy
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Answers the sum of a sequence's numbers so far, and how many sequences it knows."""

    def initialize(self, args):
        self.totals = {}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        x, key = given["x"], given["corrid"].reshape(-1)[0]
        if given["start"].any():
            self.totals[key] = 0
        total = self.totals.get(key, 0) + x
        if given["ready"].any():  # the direct strategy sends the slots without a request too
            self.totals[key] = total
        if given["end"].any():
            del self.totals[key]
        known = numpy.full_like(x, len(self.totals))
        return pb.InferenceResponse([pb.Tensor("total", total), pb.Tensor("known", known)])
'''

TOTALS_CONFIG = """
name: "totals_%(strategy)s"
backend: "python"
max_batch_size: 2
input { name: "x" data_type: TYPE_INT32 dims: [ -1 ] }
output [ { name: "total" data_type: TYPE_INT32 dims: [ -1 ] }, { name: "known" data_type: TYPE_INT32 dims: [ -1 ] } ]
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  %(strategy)s { %(slots)s }
  control_input [
    { name: "start" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } },
    { name: "end" control { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } },
    { name: "ready" control { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] } },
    { name: "corrid" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_%(corrid)s } }
  ]
}
instance_group { kind: KIND_CPU count: 1 }
"""
DIRECT = {"strategy": "direct", "slots": "", "corrid": "UINT64"}
OLDEST = {"strategy": "oldest", "slots": "max_candidate_sequences: 2", "corrid": "INT32"}
"""Both have two slots: a third sequence waits until one of the two has ended."""


ROWS = '''
import time
import numpy
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Doubles rows, and says how many came together. A row of -1 is refused, one of -2 breaks the model, and 100 + s
    takes s seconds, sooner if the request is cancelled, which it counts.

    It waits a moment before it refuses, and before it ends what was cancelled: Triton 24.10 crashes at times if a
    cancellation meets its request's end, and one that came with the request was once never seen by the model.
    """

    def initialize(self, args):
        self.cancelled = 0

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb.get_input_tensor_by_name(request, "x").as_numpy()
        if (x == -1).any():
            time.sleep(0.05)
            return pb.InferenceResponse(error=pb.TritonError("there is a row of -1", pb.TritonError.INVALID_ARG))
        if (x == -2).any():
            return pb.InferenceResponse(error=pb.TritonError("there is a row of -2", pb.TritonError.INTERNAL))
        end = time.monotonic() + float(x.max()) - 100
        while time.monotonic() < end:
            if request.is_cancelled():
                self.cancelled += 1
                time.sleep(0.05)
                break
            time.sleep(0.005)
        told = [("size", len(x)), ("cancelled", self.cancelled)]
        counts = [pb.Tensor(name, numpy.full((len(x), 1), value, "int32")) for name, value in told]
        return pb.InferenceResponse([pb.Tensor("y", x * 2), *counts])
'''

ROWS_CONFIG = """
name: "rows"
backend: "python"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output [
  { name: "y" data_type: TYPE_FP32 dims: [ 1 ] },
  { name: "size" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "cancelled" data_type: TYPE_INT32 dims: [ 1 ] }
]
instance_group { kind: KIND_CPU count: 1 }
"""

UNEVEN = '''
import numpy
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Answers with outputs that do not go together row by row: as wide as the first row says, and one sum of all."""

    def execute(self, requests):
        return [self.answer(pb.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]

    def answer(self, x):
        wide = numpy.repeat(x, int(x[0, 0]), axis=1)
        return pb.InferenceResponse([pb.Tensor("wide", wide), pb.Tensor("total", x.sum(keepdims=True))])
'''

UNEVEN_CONFIG = """
name: "uneven"
backend: "python"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output [
  { name: "wide" data_type: TYPE_FP32 dims: [ -1 ] },
  { name: "total" data_type: TYPE_FP32 dims: [ 1 ] }
]
instance_group { kind: KIND_CPU count: 1 }
"""

MIRROR = '''
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Gives back whichever of its inputs it gets: strings as they are, numbers by their memory, bfloat16 too."""

    def execute(self, requests):
        return [pb.InferenceResponse([self.back(tensor) for tensor in request.inputs()]) for request in requests]

    def back(self, tensor):
        name = tensor.name() + "_out"
        if name.startswith("in_STRING"):
            return pb.Tensor(name, tensor.as_numpy())
        return pb.Tensor.from_dlpack(name, tensor.to_dlpack())
'''

MIRRORED = (*NUMBERS, "STRING")
MIRROR_RANKS = (1, 2, 3, 4)


def _mirror_config() -> str:
    def tensors(kind: str, suffix: str, more: str) -> str:
        dims = {rank: ", ".join(["-1"] * rank) for rank in MIRROR_RANKS}
        return "\n".join(
            f'{kind} {{ name: "in_{name}_{rank}{suffix}" data_type: TYPE_{name} dims: [ {dims[rank]} ]{more} }}'
            for name in MIRRORED
            for rank in MIRROR_RANKS
        )

    inputs, outputs = tensors("input", "", " optional: true"), tensors("output", "_out", "")
    return f'name: "mirror"\nbackend: "python"\n{inputs}\n{outputs}\ninstance_group {{ kind: KIND_CPU count: 1 }}\n'


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
    long = {"inputs": {"x": "FP32[65536]"}, "outputs": {"y": "FP32[65536]"}, "max_batch_size": 8}
    write_model(repository, "long", affine(width=65536), **long)
    write_model(
        repository,
        "labelled",
        affine(scale=1.0),
        **{**row, "outputs": {"y": {"tensor": "FP32[3]", "label_filename": "labels.txt"}}},
    )
    (repository / "labelled" / "labels.txt").write_text("cat\ndog\nfish\n")
    write_python(
        repository,
        ("slow", SLOW, SLOW_CONFIG),
        ("rows", ROWS, ROWS_CONFIG),
        ("uneven", UNEVEN, UNEVEN_CONFIG),
        ("queued", QUEUED, QUEUED_CONFIG),
        ("mirror", MIRROR, _mirror_config()),
    )
    write_stateful(repository)


def write_stateful(repository: Path) -> None:
    """Write the models that answer in parts, or remember."""
    write_python(
        repository,
        ("parts", PARTS, PARTS_CONFIG),
        ("totals_direct", TOTALS, TOTALS_CONFIG % DIRECT),
        ("totals_oldest", TOTALS, TOTALS_CONFIG % OLDEST),
    )


def write_python(repository: Path, *models: tuple[str, str, str]) -> None:
    """Write Python models: name, source, configuration."""
    for name, code, config in models:
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(code)
        (repository / name / "config.pbtxt").write_text(config)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
