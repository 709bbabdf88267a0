"""The executor for devices answers as the one for the CPU does, over a device that is late."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from _ort_cuda_graphs import check_graphs
from _ort_device_execution import DeviceExecutor
from _ort_dlpack import num_lent
from _ort_errors import DeviceLostError, UnsupportedError
from _ort_execution import Executor
from _ort_graph import graph_of
from _ort_signature import Signature, signature_of
from _ort_validation import validate

from backend_configs import config
from late_device import LateDevice, QueuedSession, device_tensor
from repository_helpers import affine, graph, identity, node
from stub_double import InferenceResponse, ReceivedTensor, Request, Tensor

BATCHED = "FP32[batch,3]"
Arrays = Mapping[str, np.ndarray[Any, Any]]


def loaded(model: onnx.ModelProto, **fields: Any) -> tuple[Any, Signature]:
    """A real session on the CPU, and the signature of a configuration that fits it."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    described = config(**fields)
    validate(described, graph_of(session))
    return session, signature_of(described, graph_of(session))


def on_device(session: Any, signature: Signature, device: LateDevice | None = None, **options: Any) -> DeviceExecutor:
    device = device or LateDevice()
    return DeviceExecutor(QueuedSession(session, device), signature, device, **options)


def request(inputs: Arrays, places: str, signature: Signature, outputs: Sequence[str] = ()) -> Request:
    """A request whose tensors are on the device where ``places``, taken in turn, says ``d``."""
    tensors = []
    for at, (name, array) in enumerate(inputs.items()):
        data_type = signature.inputs[name].data_type.triton
        there = places[at % len(places)] == "d"
        tensors.append(device_tensor(name, array, data_type) if there else Tensor(name, array))
    return Request(tensors, tuple(outputs))


def values(response: InferenceResponse) -> dict[str, np.ndarray[Any, Any]]:
    assert response.error is None, response.error.message
    return {name: tensor.as_numpy() for name, tensor in response.tensors.items()}


def sent(responses: Sequence[InferenceResponse]) -> None:
    """The stub has sent the responses."""
    for response in responses:
        for tensor in response.tensors.values():
            if isinstance(tensor, ReceivedTensor):
                tensor.close()


def rows(count: int, start: int = 0) -> np.ndarray[Any, Any]:
    return np.arange(start, start + 3 * count, dtype=np.float32).reshape(count, 3)


AFFINE = {"inputs": {"x": "FP32[3]"}, "outputs": {"y": "FP32[3]"}, "max_batch_size": 16}
WAYS = {
    "outputs there": {},
    "outputs here": {"outputs_on_device": False},
    "graphs": {"graphs": True},
    "graphs, outputs here": {"graphs": True, "outputs_on_device": False},
    "inputs here": {"on_host": frozenset({"x"})},
    "all here": {"on_host": frozenset({"x", "y"})},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("places", ["h", "d", "dh", "hd"])
def test_answers_are_the_cpus(way: str, places: str) -> None:
    """Requests from the host and the device, alone and joined, over and over, get the answers of the CPU's executor."""
    session, signature = loaded(affine(), **AFFINE)
    executor = on_device(session, signature, **WAYS[way])
    for turn, sizes in enumerate([(1,), (2, 1), (1, 2, 4), (2, 1), (0, 1), (0,), (1,)]):
        batch = [{"x": rows(size, 10 * turn + at)} for at, size in enumerate(sizes)]
        requests = [request(each, places[at % len(places)], signature) for at, each in enumerate(batch)]
        responses = executor.execute(requests)
        expected = Executor(session, signature).execute([request(each, "h", signature) for each in batch])
        for got, wanted in zip(responses, expected, strict=True):
            np.testing.assert_array_equal(values(got)["y"], values(wanted)["y"])
        sent(responses)


TYPES = ("BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16")


@pytest.mark.parametrize("outputs_on_device", [True, False])
@pytest.mark.parametrize("places", ["h", "d"])
@pytest.mark.parametrize("shape", [(2, 3), (2, 0)], ids=str)
def test_every_type_passes(places: str, outputs_on_device: bool, shape: tuple[int, int]) -> None:
    """Each type keeps its bits and its shape, from the host and the device."""
    # Beside bfloat16 only on the device: on the host, too, the stub hands that over as DLPack.
    types = [each for each in TYPES if places == "d" or each != "BF16"]
    tensors = {f"x{each.lower()}": f"{each}[batch,width]" for each in types}
    configured = {name: f"{each}[-1]" for name, each in zip(tensors, types, strict=True)}
    outputs = {f"{name}_out": text for name, text in configured.items()}
    session, signature = loaded(identity(tensors), inputs=configured, outputs=outputs, max_batch_size=8)
    numbers = np.random.default_rng(0).integers(0, 2, shape)
    inputs = {name: numbers.astype(signature.inputs[name].data_type.numpy) for name in tensors}
    executor = on_device(session, signature, outputs_on_device=outputs_on_device)
    batch = [request(inputs, places, signature) for _ in range(2)]
    for response in executor.execute(batch):
        got = values(response)
        for name, array in inputs.items():
            assert got[f"{name}_out"].dtype == array.dtype
            np.testing.assert_array_equal(got[f"{name}_out"], array, err_msg=name)


def test_strings_are_left_on_the_host() -> None:
    """An output of strings is answered beside one on the device."""
    model = graph(
        [onnx.helper.make_node("Cast", ["x"], ["text"], to=onnx.TensorProto.STRING), node("Neg", "x", to="y")],
        {"x": BATCHED},
        {"text": "STRING[batch,3]", "y": BATCHED},
    )
    fields = {"inputs": {"x": "FP32[3]"}, "outputs": {"text": "STRING[3]", "y": "FP32[3]"}, "max_batch_size": 4}
    session, signature = loaded(model, **fields)
    batch = [request({"x": rows(1, 3 * at)}, "h", signature) for at in range(2)]
    for at, response in enumerate(on_device(session, signature).execute(batch)):
        assert values(response)["text"].tolist() == [[str(number) for number in range(3 * at, 3 * at + 3)]]
        assert isinstance(response.tensors["y"], ReceivedTensor)
        assert not isinstance(response.tensors["text"], ReceivedTensor)


def test_answers_on_the_device_are_views_of_the_batch() -> None:
    """The rows of a batch's output are handed out without a copy, and live until they are sent."""
    session, signature = loaded(affine(), **AFFINE)
    device = LateDevice()
    executor = on_device(session, signature, device)
    before = num_lent()
    batch = [request({"x": rows(2)}, "h", signature), request({"x": rows(1, 6)}, "h", signature)]
    responses = executor.execute(batch)
    assert device.copies == 1  # the host's rows, all at once, and nothing of the outputs
    first, second = (response.tensors["y"]._managed.tensor for response in responses)
    assert second.data - first.data == 2 * 3 * 4
    assert num_lent() - before == 2
    sent(responses)
    assert num_lent() == before


def test_a_lone_tensor_of_the_device_is_not_copied() -> None:
    """A tensor from the device is what the model reads."""
    session, signature = loaded(affine(), **AFFINE)
    device = LateDevice()
    aligned = np.zeros(64, np.float32)[(-np.zeros(64, np.float32).ctypes.data % 16) // 4 :]
    start = (-aligned.ctypes.data % 16) // 4
    x = aligned[start : start + 3].reshape(1, 3)
    x[:] = 5
    responses = on_device(session, signature, device).execute([request({"x": x}, "d", signature)])
    assert device.copies == 0
    np.testing.assert_array_equal(values(responses[0])["y"], 2 * x)


def test_a_tensor_of_another_device_is_copied() -> None:
    """A step of an ensemble may run on another GPU than the one before."""
    session, signature = loaded(affine(), **AFFINE)
    device = LateDevice(index=0)
    x = np.full((1, 3), 7, np.float32)
    tensor = device_tensor("x", x, "TYPE_FP32", index=1)
    responses = on_device(session, signature, device).execute([Request([tensor])])
    assert device.copies == 1
    np.testing.assert_array_equal(values(responses[0])["y"], 2 * x)


def test_an_input_passed_on_is_copied() -> None:
    """An output that is the input itself does not lie in memory that is written into again."""
    model = graph([node("Neg", "x", to="y")], {"x": BATCHED}, {"x": BATCHED, "y": BATCHED})
    fields = {"inputs": {"x": "FP32[3]"}, "outputs": {"x": "FP32[3]", "y": "FP32[3]"}, "max_batch_size": 4}
    session, signature = loaded(model, **fields)
    executor = on_device(session, signature)
    first = executor.execute([request({"x": rows(1, 1)}, "h", signature)])
    gc.collect()
    second = executor.execute([request({"x": rows(1, 100)}, "h", signature)])
    np.testing.assert_array_equal(values(first[0])["x"], rows(1, 1))
    np.testing.assert_array_equal(values(second[0])["x"], rows(1, 100))


def test_a_bad_request_fails_alone() -> None:
    """Of a batch whose run fails, every request but the one at fault is answered."""
    lookup = graph(
        [node("Gather", "table", "index", to="y")],
        {"index": "INT64[batch,1]"},
        {"y": "FP32[batch,1]"},
        constants={"table": np.arange(100, dtype=np.float32)},
    )
    session, signature = loaded(lookup, inputs={"index": "INT64[1]"}, outputs={"y": "FP32[1]"}, max_batch_size=8)
    batch = [request({"index": np.array([[at]])}, place, signature) for at, place in ((3, "d"), (1000, "h"), (5, "h"))]
    good, bad, also_good = on_device(session, signature).execute(batch)
    assert (values(good)["y"].item(), values(also_good)["y"].item()) == (3, 5)
    assert bad.error.code == "INTERNAL"
    assert "out of data bounds" in bad.error.message


@pytest.mark.parametrize("places", ["h", "d"])
def test_ragged_batches(places: str) -> None:
    """Ragged inputs are joined flat on the device, and flat outputs are cut there."""
    model = graph(
        [node("Mul", "x", "two", to="doubled"), node("Unsqueeze", "ends", "axis", to="end")],
        {"x": "FP32[-1]", "ends": "FP32[-1]"},
        {"doubled": "FP32[-1]", "end": "FP32[-1,1]"},
        constants={"two": 2.0, "axis": [1]},
    )
    source = {"target_name": ["ends"], "data_type": "TYPE_FP32", "source_input": ["x"]}
    session, signature = loaded(
        model,
        max_batch_size=8,
        inputs={"x": {"tensor": "FP32[-1]", "allow_ragged_batch": True}},
        outputs={"doubled": "FP32[-1]", "end": "FP32[1]"},
        batch_input=[{"kind": "BATCH_ACCUMULATED_ELEMENT_COUNT", **source}],
        batch_output=[{"kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "target_name": ["doubled"], "source_input": ["x"]}],
    )
    batch = [np.arange(size, dtype=np.float32)[None] for size in (2, 5, 3)]
    responses = on_device(session, signature).execute([request({"x": x}, places, signature) for x in batch])
    for x, response, end in zip(batch, responses, (2, 7, 10), strict=True):
        np.testing.assert_array_equal(values(response)["doubled"], 2 * x)
        assert values(response)["end"].tolist() == [[end]]


def test_states_stay_with_their_sequence() -> None:
    """A model's states go on from request to request."""
    model = graph(
        [node("Add", "x", "before", to="y"), node("Identity", "y", to="after")],
        {"x": "FP32[batch,1]", "before": "FP32[batch,1]"},
        {"y": "FP32[batch,1]", "after": "FP32[batch,1]"},
    )
    state = {"input_name": "before", "output_name": "after", "data_type": "TYPE_FP32", "dims": [1]}
    session, signature = loaded(
        model,
        max_batch_size=4,
        inputs={"x": "FP32[1]"},
        outputs={"y": "FP32[1]"},
        sequence_batching={"state": [state]},
    )
    executor = on_device(session, signature)
    sums = []
    for flags in (1, 0, 0):
        batch = []
        for sequence in (1, 2):
            inputs = {"x": np.array([[sequence]], np.float32), "before": np.zeros((1, 1), np.float32)}
            tensors = [device_tensor(name, array, "TYPE_FP32") for name, array in inputs.items()]
            batch.append(Request(tensors, ("y",), sequence=sequence, flags=flags))
        sums.append([values(each)["y"].item() for each in executor.execute(batch)])
    assert sums == [[1, 2], [2, 4], [3, 6]]


def test_scalars() -> None:
    """A scalar of the model arrives and leaves with the configured dims."""
    model = graph([node("Neg", "x", to="y")], {"x": "FP32[]"}, {"y": "FP32[]"})
    session, signature = loaded(model, inputs={"x": "FP32[1]"}, outputs={"y": "FP32[1]"})
    for places in "hd":
        response = on_device(session, signature).execute([request({"x": np.float32([4])}, places, signature)])[0]
        assert values(response)["y"].tolist() == [-4]


def test_wrong_tensor_of_the_device_is_refused() -> None:
    """A tensor whose memory is not what the model reads is an error of its request alone."""
    session, signature = loaded(affine(), **AFFINE)
    wrong = Request([device_tensor("x", np.zeros((1, 3), np.float64), "TYPE_FP64")])
    bad, good = on_device(session, signature).execute([wrong, request({"x": rows(1)}, "d", signature)])
    assert bad.error.code == "INVALID_ARG"
    assert "expected TYPE_FP32" in bad.error.message
    np.testing.assert_array_equal(values(good)["y"], 2 * rows(1))


def test_a_lost_device_is_not_an_answer() -> None:
    """Nothing is answered by a device that is lost: the process has to end."""
    session, signature = loaded(affine(), **AFFINE)
    device = LateDevice()
    device.lost = "GPU 0 failed"
    with pytest.raises(DeviceLostError, match="GPU 0 failed"):
        on_device(session, signature, device).execute([request({"x": rows(1)}, "h", signature)])


def test_a_lost_device_ends_the_process() -> None:
    """The process says why and ends, so that the supervisor puts another in its place."""
    folders = [str(Path(__file__).parents[2]), str(files("naiad.server") / "backends" / "onnxruntime")]
    script = f"""
import sys
sys.path[1:1] = {folders!r}
import stub_double
stub_double.install()
from model import TritonPythonModel
from _ort_errors import DeviceLostError, UnsupportedError

class Executor:
    def execute(self, requests):
        raise DeviceLostError("GPU 0 failed: an illegal memory access")

model = TritonPythonModel()
model._executor = Executor()
model.execute([])
print("lives")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert (
        ended.stderr == "GPU 0 failed: an illegal memory access; this process ends, so that another takes its place\n"
    )


class TestGraphs:
    """Runs are recorded once for each set of shapes and outputs."""

    def executor(self) -> tuple[DeviceExecutor, QueuedSession, Any]:
        session, signature = loaded(affine(), **(AFFINE | {"max_batch_size": 64}))
        device = LateDevice()
        queued = QueuedSession(session, device)
        ask = functools.partial(request, places="h", signature=signature)
        return DeviceExecutor(queued, signature, device, graphs=True), queued, ask

    def test_each_set_of_shapes_has_its_own(self) -> None:
        """The first run of a set is a plain one and a recorded one; later ones replay."""
        executor, session, ask = self.executor()
        for size in (1, 2, 1, 2, 1):
            response = executor.execute([ask({"x": rows(size, size)})])[0]
            np.testing.assert_array_equal(values(response)["y"], 2 * rows(size, size))
        assert session.graph_ids == [-1, 1, -1, 2, 1, 2, 1]

    def test_there_are_32_at_most(self) -> None:
        """What comes after runs without."""
        executor, session, ask = self.executor()
        for size in (*range(1, 34), 33):
            response = executor.execute([ask({"x": rows(size)})])[0]
            np.testing.assert_array_equal(values(response)["y"], 2 * rows(size))
        assert session.graph_ids[-4:] == [-1, 32, -1, -1]

    def test_an_answer_outlives_the_next_run(self) -> None:
        """A replay writes where the one before did, and answers of both are right."""
        executor, _, ask = self.executor()
        executor.execute([ask({"x": rows(1)})])
        first = executor.execute([ask({"x": rows(1, 10)})])
        second = executor.execute([ask({"x": rows(1, 20)})])
        np.testing.assert_array_equal(values(first[0])["y"], 2 * rows(1, 10))
        np.testing.assert_array_equal(values(second[0])["y"], 2 * rows(1, 20))

    def test_what_cannot_be_recorded_runs_without(self) -> None:
        """The request whose run could not be recorded hears why; those after it are answered."""
        executor, session, ask = self.executor()
        session.fail = RuntimeError("capture failed")
        assert "capture failed" in executor.execute([ask({"x": rows(1)})])[0].error.message
        response = executor.execute([ask({"x": rows(1)})])[0]
        np.testing.assert_array_equal(values(response)["y"], 2 * rows(1))
        assert session.graph_ids == [-1, 1, -1]


@pytest.mark.parametrize(
    ("model", "fields", "on_host", "reason"),
    [
        (
            identity({"x": "STRING[n]"}),
            {"inputs": {"x": "STRING[-1]"}, "outputs": {"x_out": "STRING[-1]"}},
            (),
            "TYPE_STRING",
        ),
        (affine(), AFFINE, ("y",), "'y', which ONNX Runtime keeps in CPU memory"),
        (affine(), AFFINE | {"sequence_batching": {"control_input": []}, "max_batch_size": 1}, (), None),
        (affine(), AFFINE, ("unconfigured",), None),
    ],
    ids=["strings", "on host", "no controls", "unconfigured"],
)
def test_graphs_are_refused_where_a_replay_would_be_wrong(
    model: onnx.ModelProto, fields: dict[str, Any], on_host: tuple[str, ...], reason: str | None
) -> None:
    """What is not in the GPU's memory is not replayed, so a model that needs it is refused by name."""
    _, signature = loaded(model, **fields)
    if reason is None:
        check_graphs(config(**fields), signature, frozenset(on_host))
        return
    with pytest.raises(
        UnsupportedError, match=f"CUDA graphs: .*found .*{reason}.*remove the parameter naiad.cuda_graph"
    ):
        check_graphs(config(**fields), signature, frozenset(on_host))
