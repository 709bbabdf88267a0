"""What the embedded server's backend adds to ONNX Runtime's own time, for a ResNet-18-like model on the CPU.

    make bench-backend        or: python benchmarks/backend.py [--rounds 9] [--json results.json]

In every round the same batch of images is run by a bare `onnxruntime` session, in a process of its own with the same
number of threads, and then by the server. The server's time per request is what its statistics say of that window:
compute_input + compute_infer + compute_output. Ratios are taken within a round, because machines drift.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf import json_format, text_format
from measure import machine
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2

from naiad.client import Client
from naiad.server import EmbeddedTriton

BATCH = 8
GOAL = 1.15
MODEL = "resnet18_like"
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels and first stride of ResNet-18's stages, of two blocks each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Milliseconds per batch in one round."""

    bare_ms: float
    compute_ms: float
    input_ms: float
    infer_ms: float
    output_ms: float
    latency_ms: float


class _Builder:
    """Collects the nodes of a convolutional network with random weights."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; gives the name of its output."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def weight(self, *shape: int) -> str:
        """Add weights that keep a signal's variance; gives their name."""
        name = f"weight_{len(self.weights)}"
        scale = (2 / max(1, int(np.prod(shape[1:])))) ** 0.5
        values = self._random.normal(scale=scale, size=shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, x: str, inside: int, outside: int, kernel: int, stride: int) -> str:
        """A convolution with bias, as batch normalisation leaves it behind when it is folded in."""
        pads = [kernel // 2] * 4
        weights = (self.weight(outside, inside, kernel, kernel), self.weight(outside))
        return self.add("Conv", x, *weights, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def block(self, x: str, inside: int, outside: int, stride: int) -> str:
        """Two convolutions beside a shortcut."""
        y = self.add("Relu", self.conv(x, inside, outside, 3, stride))
        y = self.conv(y, outside, outside, 3, 1)
        shortcut = x if inside == outside and stride == 1 else self.conv(x, inside, outside, 1, stride)
        return self.add("Relu", self.add("Add", y, shortcut))


def resnet18_like() -> onnx.ModelProto:
    """ResNet-18's graph for inference, on FP32[batch,3,224,224], with random weights."""
    build = _Builder()
    x = build.add("Relu", build.conv("images", 3, 64, 7, 2))
    x = build.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inside = 64
    for outside, stride in STAGES:
        x = build.block(x, inside, outside, stride)
        x = build.block(x, outside, outside, 1)
        inside = outside
    x = build.add("Flatten", build.add("GlobalAveragePool", x))
    build.nodes.append(helper.make_node("Gemm", [x, build.weight(1000, 512), build.weight(1000)], ["logits"], transB=1))
    graph = helper.make_graph(
        build.nodes,
        MODEL,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1000])],
        initializer=build.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_repository(repository: Path, threads: int) -> Path:
    """Write the one model of the benchmark; gives its file."""
    directory = repository / MODEL / "1"
    directory.mkdir(parents=True)
    onnx.save(resnet18_like(), directory / "model.onnx")
    config = {
        "name": MODEL,
        "backend": "onnxruntime",
        "max_batch_size": BATCH,
        "input": [{"name": "images", "data_type": "TYPE_FP32", "dims": [3, 224, 224]}],
        "output": [{"name": "logits", "data_type": "TYPE_FP32", "dims": [1000]}],
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
        "parameters": {"intra_op_thread_count": {"string_value": str(threads)}},
    }
    message = json_format.ParseDict(config, model_config_pb2.ModelConfig())
    (repository / MODEL / "config.pbtxt").write_text(text_format.MessageToString(message))
    return directory / "model.onnx"


def serve_bare(connection: Connection, model: str, threads: int) -> None:
    """In a process of its own: answer each number of runs with the mean milliseconds of one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {"images": images()}
    while (runs := connection.recv()) is not None:
        started = time.perf_counter()
        for _ in range(runs):
            session.run(None, feed)
        connection.send((time.perf_counter() - started) * 1000 / runs)


def images() -> np.ndarray[Any, Any]:
    """The batch that every run gets."""
    return np.random.default_rng(1).normal(size=(BATCH, 3, 224, 224)).astype(np.float32)


def measure_bare(bare: Connection, runs: int) -> dict[str, float]:
    """Milliseconds of one run without the server."""
    bare.send(runs)
    return {"bare_ms": bare.recv()}


def measure_server(client: Client, batch: np.ndarray[Any, Any], runs: int) -> dict[str, float]:
    """Milliseconds of one request, as the server's statistics and as the client see it."""
    before = client.statistics(MODEL)[0]
    started = time.perf_counter()
    for _ in range(runs):
        client.infer(MODEL, {"images": batch})
    latency_ms = (time.perf_counter() - started) * 1000 / runs
    after = client.statistics(MODEL)[0]
    parts = {
        f"{part}_ms": (getattr(after, f"compute_{part}").ns - getattr(before, f"compute_{part}").ns) / 1e6 / runs
        for part in ("input", "infer", "output")
    }
    return {**parts, "compute_ms": sum(parts.values()), "latency_ms": latency_ms}


def measure_all(rounds: int, runs: int, threads: int) -> list[Round]:
    """All rounds, after one that warms both sides up."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        repository = Path(directory, "model_repository")
        model = write_repository(repository, threads)
        ours, theirs = context.Pipe()
        process = context.Process(target=serve_bare, args=(theirs, str(model), threads), daemon=True)
        process.start()
        try:
            with EmbeddedTriton(repository, supervise=False) as triton, triton.client() as client:
                batch = images()
                sides = [lambda: measure_bare(ours, runs), lambda: measure_server(client, batch, runs)]
                measured = []
                for _ in range(rounds + 1):
                    sides.reverse()  # neither side always has the warmer machine
                    measured.append(Round(**(sides[0]() | sides[1]())))
                return measured[1:]
        finally:
            ours.send(None)
            process.join()


def spread(values: Sequence[float], unit: str = "") -> str:
    """Median and range."""
    return f"{statistics.median(values):8.2f}{unit}  ({min(values):.2f} … {max(values):.2f})"


def report(rounds: Sequence[Round], about: str) -> None:
    """Print what was measured, as medians with their range."""
    rows = {
        "bare session.run": [each.bare_ms for each in rounds],
        "server's compute": [each.compute_ms for each in rounds],
        "  of it input": [each.input_ms for each in rounds],
        "  of it infer": [each.infer_ms for each in rounds],
        "  of it output": [each.output_ms for each in rounds],
        "client's latency": [each.latency_ms for each in rounds],
    }
    print(about)
    print(f"{MODEL}, batch {BATCH}, {len(rounds)} rounds: median (range)")
    for name, values in rows.items():
        print(f"  {name:<18}{spread(values, ' ms')}")
    print(f"  compute / bare    {spread([each.compute_ms / each.bare_ms for each in rounds])}   goal: ≤ {GOAL}")
    print(f"  latency / bare    {spread([each.latency_ms / each.bare_ms for each in rounds])}")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--runs", type=int, default=4, help="batches per side and round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    about = f"{machine()}, {options.threads} threads, onnxruntime {onnxruntime.__version__}, load average {load:.1f}"
    rounds = measure_all(options.rounds, options.runs, options.threads)
    report(rounds, about)
    if options.json is not None:
        cases = [asdict(each) for each in rounds]
        options.json.write_text(json.dumps({"machine": about, "batch": BATCH, "rounds": cases}))


if __name__ == "__main__":
    main()
