"""Triton's own stub takes what the executor for devices hands it: the device is in CPU memory, all else is real."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from backend_helpers import Caller
from naiad.server import EmbeddedTriton
from repository_helpers import identity, write_model

TYPES = ("BOOL", "UINT8", "INT64", "FP16", "FP32", "FP64", "BF16")
DTYPES = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": ml_dtypes.bfloat16, "BOOL": np.bool_}
MODEL = """
    import sys

    sys.path[1:1] = [{backend!r}, {tests!r}]

    import onnxruntime
    import triton_python_backend_utils as pb_utils
    from _ort_config import parse
    from _ort_device_execution import DeviceExecutor
    from _ort_dlpack import num_lent
    from _ort_graph import graph_of
    from _ort_signature import signature_of
    from late_device import LateDevice, QueuedSession


    class TritonPythonModel:
        def initialize(self, args):
            config = parse(pb_utils.ModelConfig(args["model_config"]).as_dict())
            session = onnxruntime.InferenceSession(pb_utils.get_model_dir() + "/model.onnx")
            device = LateDevice()
            signature = signature_of(config, graph_of(session))
            self.most = 8 * len(signature.outputs)
            self.executor = DeviceExecutor(QueuedSession(session, device), signature, device, graphs={graphs})

        def execute(self, requests):
            if num_lent() > self.most:
                raise RuntimeError(f"{{num_lent()}} arrays of earlier answers are still kept")
            return self.executor.execute(requests)
"""


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    path = tmp_path_factory.mktemp("device") / "model_repository"
    path.mkdir()
    tensors = {each.lower(): f"{each}[batch,width]" for each in TYPES}
    inputs = {each.lower(): f"{each}[-1]" for each in TYPES}
    outputs = {f"{each}_out": text for each, text in inputs.items()}
    folders = {
        "backend": str(files("naiad.server") / "backends" / "onnxruntime"),
        "tests": str(Path(__file__).parents[2]),
    }
    for name, graphs in (("bound", False), ("recorded", True)):
        queue = {"preferred_batch_size": [8], "max_queue_delay_microseconds": 50_000}
        fields = {"max_batch_size": 8, "inputs": inputs, "outputs": outputs, "dynamic_batching": queue}
        directory = write_model(path, name, identity(tensors), backend="python", **fields)
        (directory / "1" / "model.py").write_text(textwrap.dedent(MODEL).format(graphs=graphs, **folders))
    with EmbeddedTriton(path, supervise=False, ready_timeout_s=150.0) as triton:
        caller = Caller(triton)
        yield caller
        caller.close()


def inputs(rows: int, width: int, seed: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    numbers = np.random.default_rng(seed).integers(0, 100, (rows, width))
    return {each.lower(): numbers.astype(DTYPES.get(each) or each.lower()) for each in TYPES}


@pytest.mark.parametrize("model", ["bound", "recorded"])
@pytest.mark.parametrize("width", [3, 1, 0])
def test_answers_come_back_by_dlpack(serving: Caller, model: str, width: int) -> None:
    """Each type passes through the device and out of it, one request at a time and joined."""
    sent = [inputs(rows, width, 10 * turn + rows) for turn in range(4) for rows in (1, 3, 2)]
    under_way = [serving.start(model, each)[0] for each in sent]
    for future, each in zip(under_way, sent, strict=True):
        answer = future.result(60)
        for name, array in each.items():
            assert answer[f"{name}_out"].dtype == array.dtype
            np.testing.assert_array_equal(answer[f"{name}_out"], array, err_msg=name)


def test_what_was_sent_is_let_go(serving: Caller) -> None:
    """The stub calls the deleter of every answer, or the model would refuse to go on."""
    for turn in range(40):
        each = inputs(1, 2, turn)
        np.testing.assert_array_equal(serving("bound", each)["fp32_out"], each["fp32"])
