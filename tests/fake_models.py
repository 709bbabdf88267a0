"""The models of `client_models`, and a few more, as functions: for a fake that must answer as the real server does."""

import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

import client_models
from naiad.client.testing import FakeModel, FakeSequence, Refusal, Request

ROW = {"inputs": {"x": "FP32[-1,3]"}, "outputs": {"y": "FP32[-1,3]"}, "max_batch_size": 8}


def _echo(types: tuple[str, ...]) -> FakeModel:
    tensors = {f"in_{name}": f"{'BYTES' if name == 'STRING' else name}[-1,-1]" for name in types}
    return FakeModel(
        lambda **inputs: {f"{name}_out": array for name, array in inputs.items()},
        inputs=tensors,
        outputs={f"{name}_out": text for name, text in tensors.items()},
    )


def _maybe(a: np.ndarray, b: np.ndarray | None = None) -> dict[str, np.ndarray]:
    b = np.full(2, 0.5, np.float32) if b is None else b
    return {"sum": a + b, "difference": a - b}


class Slow:
    """Answers after that many seconds, sooner if the request is cancelled, and counts what was cancelled."""

    def __init__(self) -> None:
        self.cancelled = 0

    def __call__(self, seconds: np.ndarray, request: Request) -> dict[str, np.ndarray]:
        if seconds.sum() > 0:
            self.cancelled += request.wait(float(seconds.sum()))
        return {"cancelled": np.full((1,), self.cancelled, np.int32)}


class Queued:
    """Answers after that many seconds with how many requests of more than none ran so far."""

    def __init__(self) -> None:
        self.ran = 0

    def __call__(self, seconds: np.ndarray) -> dict[str, np.ndarray]:
        self.ran += bool(seconds.sum() > 0)
        threading.Event().wait(float(seconds.sum()))
        return {"ran": np.full((1, 1), self.ran, np.int32)}


def _queued(**policy: int) -> FakeModel:
    default = {"allow_timeout_override": True, "default_timeout_microseconds": 3_600_000_000}
    return FakeModel(
        Queued(),
        inputs={"seconds": "FP32[-1,1]"},
        outputs={"ran": "INT32[-1,1]"},
        max_batch_size=1,
        instances=1,
        config={"dynamic_batching": {"default_queue_policy": default | policy}},
    )


def mirrored() -> dict[str, FakeModel]:
    """What `client_models.write` writes."""
    return {
        **{name: _echo(types) for name, types in client_models.ECHOES.items()},
        "scale": FakeModel({"1": lambda x: {"y": x * 2}, "2": lambda x: {"y": x * 3}}, **ROW),
        "maybe": FakeModel(
            _maybe,
            inputs={"a": "FP32[2]", "b": "FP32[2]"},
            outputs={"sum": "FP32[2]", "difference": "FP32[2]"},
            optional=["b"],
        ),
        "spare": FakeModel(lambda x: {"y": x * 2}, **ROW),
        "labelled": FakeModel(lambda x: {"y": x}, labels={"y": ["cat", "dog", "fish"]}, **ROW),
        "slow": FakeModel(Slow(), inputs={"seconds": "FP32[1]"}, outputs={"cancelled": "INT32[1]"}, instances=1),
        "queued": _queued(),
    }


def _fails(x: np.ndarray) -> dict[str, np.ndarray]:
    if x[0] == 1:
        raise ValueError("wrong")
    if x[0] > 1:
        raise Refusal("mine", ["INVALID_ARGUMENT", "UNAVAILABLE", "INTERNAL", "NOT_FOUND"][int(x[0]) - 2])
    return {"y": x}


FAILS = """
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]

    def answer(self, x):
        if x[0] == 1:
            raise ValueError("wrong")
        if x[0] > 1:
            error = pb.TritonError
            code = [error.INVALID_ARG, error.UNAVAILABLE, error.INTERNAL, error.NOT_FOUND][int(x[0]) - 2]
            return pb.InferenceResponse(error=error("mine", code))
        return pb.InferenceResponse([pb.Tensor("y", x)])
"""
FAILS_CONFIG = """
name: "fails"
backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""


def _count(n: np.ndarray) -> Iterator[Mapping[str, np.ndarray]]:
    for number in range(abs(int(n[0]))):
        yield {"i": np.array([number], np.int32)}
    if n[0] < 0:
        raise Refusal("stop", "INTERNAL")


COUNT = """
import numpy
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            n = int(pb.get_input_tensor_by_name(request, "n").as_numpy()[0])
            for number in range(abs(n)):
                sender.send(pb.InferenceResponse([pb.Tensor("i", numpy.array([number], "int32"))]))
            final = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            if n < 0:
                sender.send(pb.InferenceResponse(error=pb.TritonError("stop")), flags=final)
            else:
                sender.send(flags=final)
"""
COUNT_CONFIG = """
name: "count"
backend: "python"
model_transaction_policy { decoupled: true }
input { name: "n" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "i" data_type: TYPE_INT32 dims: [ 1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""


def _total(x: np.ndarray, sequence: FakeSequence) -> dict[str, np.ndarray]:
    sequence.state["total"] = sequence.state.get("total", 0) + x
    return {"total": sequence.state["total"]}


TOTAL = """
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        self.totals = {}

    def execute(self, requests):
        answers = []
        for request in requests:
            x, start, key = (pb.get_input_tensor_by_name(request, name).as_numpy() for name in ("x", "START", "CORR"))
            key = int(key[0, 0])
            self.totals[key] = x + (0 if start[0, 0] else self.totals[key])
            answers.append(pb.InferenceResponse([pb.Tensor("total", self.totals[key])]))
        return answers
"""
TOTAL_CONFIG = """
name: "total"
backend: "python"
max_batch_size: 4
sequence_batching {
  oldest { max_candidate_sequences: 8 }
  max_sequence_idle_microseconds: 60000000
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },
    { name: "CORR" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
  ]
}
input { name: "x" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "total" data_type: TYPE_INT32 dims: [ 1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""

PAIR = """
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([pb.Tensor("y", self.sum(request))]) for request in requests]

    def sum(self, request):
        a, b = (pb.get_input_tensor_by_name(request, name).as_numpy() for name in ("a", "b"))
        return a + b.sum(axis=1, keepdims=True)
"""
PAIR_CONFIG = """
name: "pair"
backend: "python"
max_batch_size: 4
input [ { name: "a" data_type: TYPE_INT64 dims: [ 1 ] }, { name: "b" data_type: TYPE_INT64 dims: [ -1 ] } ]
output { name: "y" data_type: TYPE_INT64 dims: [ 1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""

CROWDED_CONFIG = client_models.QUEUED_CONFIG.replace("queued", "crowded").replace(
    "allow_timeout_override", "max_queue_size: 1 allow_timeout_override"
)


def models() -> dict[str, FakeModel]:
    """What `write` writes."""
    own = {
        "fails": FakeModel(_fails, inputs={"x": "FP32[1]"}, outputs={"y": "FP32[1]"}),
        "count": FakeModel(_count, inputs={"n": "INT32[1]"}, outputs={"i": "INT32[1]"}),
        "total": FakeModel(_total, inputs={"x": "INT32[-1,1]"}, outputs={"total": "INT32[-1,1]"}, max_batch_size=4),
        "pair": FakeModel(
            lambda a, b: {"y": a + b.sum(axis=1, keepdims=True)},
            inputs={"a": "INT64[-1,1]", "b": "INT64[-1,-1]"},
            outputs={"y": "INT64[-1,1]"},
            max_batch_size=4,
        ),
        "crowded": _queued(max_queue_size=1),
    }
    return mirrored() | own


def write(repository: Path) -> None:
    """Write the real ones of `models` below `repository`."""
    client_models.write(repository)
    for written in repository.iterdir():
        if written.name not in models():
            shutil.rmtree(written)
    for name, code, config in (
        ("fails", FAILS, FAILS_CONFIG),
        ("count", COUNT, COUNT_CONFIG),
        ("total", TOTAL, TOTAL_CONFIG),
        ("pair", PAIR, PAIR_CONFIG),
        ("crowded", client_models.QUEUED, CROWDED_CONFIG),
    ):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(code)
        (repository / name / "config.pbtxt").write_text(config)
