"""The backend `onnxruntime` on a real GPU: what it answers, where its tensors lie, and what it says is missing."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import stub_double
from backend_helpers import MIXED_TYPES, NUMBER_TYPES, Caller
from naiad.server import EmbeddedTriton
from repository_helpers import affine, graph, identity, node, write_model

sys.path.append(str(files("naiad.server") / "backends" / "onnxruntime"))
stub_double.install()

pytestmark = pytest.mark.timeout(600)
BATCHED = "FP32[batch,3]"
ON_GPU = {"instance_group": [{"kind": "KIND_GPU", "count": 1}], "dynamic_batching": {}}
DEVICE = {"FORCE_CPU_ONLY_INPUT_TENSORS": "no"}
WHOLE = {"max_batch_size": 64, "inputs": {"x": "FP32[3]"}, "outputs": {"y": "FP32[3]"}}
TENSORRT = {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]}}


def has_cuda() -> bool:
    """Whether ONNX Runtime here was built for CUDA."""
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def has(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def network(width: int = 3, channels: int = 8) -> onnx.ModelProto:
    """A product of matrices, a reduction and a softmax, with a batch dimension."""
    numbers = np.random.default_rng(0)
    constants = {
        "first": numbers.standard_normal((width, channels)).astype(np.float32),
        "second": numbers.standard_normal((channels, width)).astype(np.float32),
    }
    nodes = [
        node("MatMul", "x", "first", to="hidden"),
        node("Relu", "hidden", to="active"),
        node("MatMul", "active", "second", to="scores"),
        node("Softmax", "scores", to="y", axis=-1),
    ]
    return graph(nodes, {"x": f"FP32[batch,{width}]"}, {"y": f"FP32[batch,{width}]"}, constants=constants)


def ensemble() -> str:
    """The configuration of an ensemble that doubles twice."""
    steps = "".join(
        f'step {{ model_name: "{name}" model_version: -1 '
        f'input_map {{ key: "x" value: "{source}" }} output_map {{ key: "y" value: "{target}" }} }}\n'
        for name, source, target in (("plain", "in", "between"), ("doubling", "between", "out"))
    )
    return (
        'name: "both"\nplatform: "ensemble"\nmax_batch_size: 64\n'
        'input { name: "in" data_type: TYPE_FP32 dims: 3 }\noutput { name: "out" data_type: TYPE_FP32 dims: 3 }\n'
        f"ensemble_scheduling {{ {steps} }}\n"
    )


def write_repository(path: Path) -> None:
    write_model(path, "on_cpu", network(), **WHOLE)
    for name, parameters in {
        "plain": DEVICE,
        "from_host": {},
        "to_host": {**DEVICE, "naiad.output_memory": "cpu"},
        "recorded": {**DEVICE, "naiad.cuda_graph": "true"},
        "recorded_to_host": {**DEVICE, "naiad.cuda_graph": "true", "naiad.output_memory": "cpu"},
    }.items():
        write_model(path, name, network(), parameters=parameters, **WHOLE, **ON_GPU)
    write_model(path, "doubling", affine(), parameters=DEVICE, **WHOLE, **ON_GPU)
    (path / "both" / "1").mkdir(parents=True)
    (path / "both" / "config.pbtxt").write_text(ensemble())
    two = {**ON_GPU, "instance_group": [{"kind": "KIND_GPU", "count": 2}]}
    write_model(path, "two", network(), parameters=DEVICE, **WHOLE, **two)
    for name, types in (("numbers", NUMBER_TYPES), ("mixed", MIXED_TYPES)):
        tensors = {each.lower(): f"{each}[batch,width]" for each in types}
        inputs = {each.lower(): f"{each}[-1]" for each in types}
        outputs = {f"{each}_out": text for each, text in inputs.items()}
        write_model(path, name, identity(tensors), max_batch_size=8, inputs=inputs, outputs=outputs, **ON_GPU)
    shaped = graph(
        [node("Neg", "x", to="y"), node("Shape", "x", to="size"), node("Unsqueeze", "size", "zero", to="rows")],
        {"x": "FP32[batch,3]"},
        {"y": "FP32[batch,3]", "rows": "INT64[1,2]"},
        constants={"zero": [0]},
    )
    outputs = {"y": "FP32[-1,3]", "rows": "INT64[1,2]"}
    group = {"instance_group": ON_GPU["instance_group"]}
    write_model(path, "shaped", shaped, inputs={"x": "FP32[-1,3]"}, outputs=outputs, parameters=DEVICE, **group)
    texts = {"inputs": {"x": "STRING[-1]"}, "outputs": {"x_out": "STRING[-1]"}}
    strings = identity({"x": "STRING[n]"})
    write_model(path, "recorded_strings", strings, parameters={"naiad.cuda_graph": "true"}, **texts, **group)
    write_model(path, "tensorrt", network(), **WHOLE, **ON_GPU, optimization=TENSORRT)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """Calls a Triton with models on the GPU."""
    if not has_cuda():
        pytest.skip("this build of ONNX Runtime has no CUDA")
    path = tmp_path_factory.mktemp("gpu") / "model_repository"
    path.mkdir()
    write_repository(path)
    options = {"supervise": False, "exit_on_load_error": False, "ready_timeout_s": 300.0}
    with EmbeddedTriton(path, gpus="all", **options) as triton:
        caller = Caller(triton)
        yield caller
        caller.close()


def rows(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((count, 3), dtype=np.float32)


@pytest.mark.parametrize("model", ["plain", "from_host", "to_host", "recorded", "recorded_to_host", "two"])
def test_answers_are_the_cpus(serving: Caller, model: str) -> None:
    """At every batch, twice with other values, a GPU instance answers as one on the CPU."""
    for seed, count in enumerate((1, 2, 5, 64) * 2):
        x = rows(count, seed)
        got, expected = serving(model, {"x": x})["y"], serving("on_cpu", {"x": x})["y"]
        np.testing.assert_allclose(got, expected, rtol=1e-2, atol=1e-3)  # TF32 keeps three decimal digits


@pytest.mark.parametrize("model", ["plain", "recorded", "two"])
def test_requests_at_once_get_their_own(serving: Caller, model: str) -> None:
    """Requests that share a batch, or run on two instances, get their own rows."""
    sent = [rows(1 + at % 3, at) for at in range(60)]
    under_way = [serving.start(model, {"x": x})[0] for x in sent]
    for future, x in zip(under_way, sent, strict=True):
        expected = serving("on_cpu", {"x": x})["y"]
        np.testing.assert_allclose(future.result(60)["y"], expected, rtol=1e-2, atol=1e-3)


def test_more_shapes_than_graphs(serving: Caller) -> None:
    """Beyond 32 sets of shapes a model runs without a graph."""
    for count in (*range(1, 41), *range(1, 41)):
        x = rows(count, count)
        expected = serving("on_cpu", {"x": x})["y"]
        np.testing.assert_allclose(serving("recorded", {"x": x})["y"], expected, rtol=1e-2, atol=1e-3)


def test_steps_of_an_ensemble_pass_tensors_on(serving: Caller) -> None:
    """The second model takes what the first one left on the GPU."""
    for seed in range(10):
        x = rows(4, seed)
        expected = 2 * serving("on_cpu", {"x": x})["y"]
        np.testing.assert_allclose(serving("both", {"in": x})["out"], expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("model", "types"), [("numbers", NUMBER_TYPES), ("mixed", MIXED_TYPES)])
def test_every_type_comes_back(serving: Caller, model: str, types: tuple[str, ...]) -> None:
    """Each type passes through the GPU, or around it, unchanged."""
    import ml_dtypes

    kinds = {"BF16": ml_dtypes.bfloat16, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BOOL": np.bool_}
    numbers = np.random.default_rng(0).integers(0, 2, (4, 3))
    sent = {}
    for each in types:
        text = numbers.astype(str).astype(np.bytes_).astype(np.object_)
        sent[each.lower()] = text if each == "STRING" else numbers.astype(kinds.get(each) or each.lower())
    got = serving(model, sent)
    for name, array in sent.items():
        np.testing.assert_array_equal(got[f"{name}_out"], array, err_msg=name)


def test_shapes_stay_on_the_host(serving: Caller) -> None:
    """An output that ONNX Runtime computes on the CPU is answered beside one of the GPU."""
    answer = serving("shaped", {"x": rows(5)})
    np.testing.assert_array_equal(answer["y"], -rows(5))
    assert answer["rows"].tolist() == [[5, 3]]


def test_strings_cannot_be_recorded(serving: Caller) -> None:
    """CUDA graphs are refused where a replay could not be right."""
    assert "CUDA graphs: expected a model whose inputs and outputs are all in the GPU's memory" in serving.failure(
        "recorded_strings"
    )


def test_a_missing_library_is_named(serving: Caller) -> None:
    """Where TensorRT is not installed, the error names its library and its package."""
    if has("libnvinfer.so.10"):
        pytest.skip("TensorRT is installed here")
    reason = serving.failure("tensorrt")
    assert "expected the shared library libnvinfer.so.10, looked for in" in reason
    assert "pip install 'tensorrt-cu13==10.*'" in reason


def test_a_build_without_cuda_is_named(tmp_path: Path) -> None:
    """Where ONNX Runtime was built for the CPU alone, a GPU instance is refused with the package to install."""
    if has_cuda():
        pytest.skip("this build of ONNX Runtime has CUDA")
    path = tmp_path / "model_repository"
    path.mkdir()
    write_model(path, "plain", network(), parameters=DEVICE, **WHOLE, **ON_GPU)
    options = {"supervise": False, "exit_on_load_error": False, "ready_timeout_s": 300.0}
    with EmbeddedTriton(path, gpus="all", **options) as triton:
        caller = Caller(triton)
        reason = caller.failure("plain")
        caller.close()
    assert "install onnxruntime-gpu in place of onnxruntime" in reason


def test_copies_on_the_real_driver() -> None:
    """Arrays go to the GPU, are joined there, and come back, through NVIDIA's own driver."""
    from _ort_cuda import open_cuda
    from _ort_datatypes import BY_TRITON
    from _ort_device import Copies

    copies = Copies(open_cuda("model", 0))
    parts = [rows(1000), rows(3, 1)]
    for _ in range(3):
        there = copies.gathered(parts, (1003, 3), BY_TRITON["TYPE_FP32"])
        joined = copies.gathered([there[1000:], parts[0]], (1003, 3), BY_TRITON["TYPE_FP32"])
        fetched = copies.fetched(copies.copied(joined))
        copies.finish()
        np.testing.assert_array_equal(fetched, np.concatenate([parts[1], parts[0]]))


def test_pytorch_reads_and_gives_our_memory() -> None:
    """DLPack passes memory of the GPU between PyTorch and the backend without a copy."""
    from _ort_cuda import open_cuda
    from _ort_datatypes import BY_TRITON
    from _ort_device import Copies
    from _ort_dlpack import array_from, capsule_of

    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this build of PyTorch has no CUDA")
    device = open_cuda("model", 0)
    copies = Copies(device)
    theirs = torch.arange(12, dtype=torch.float32, device="cuda:0").reshape(4, 3)
    torch.cuda.synchronize()
    capsule = torch.utils.dlpack.to_dlpack(theirs)
    read = array_from(capsule, BY_TRITON["TYPE_FP32"], device.dlpack_type)
    assert read.pointer == theirs.data_ptr()
    ours = copies.copied(read[1:3])
    copies.finish()
    back = torch.utils.dlpack.from_dlpack(capsule_of(ours, device.dlpack_type))
    assert back.device == theirs.device
    assert torch.equal(back, theirs[1:3])
