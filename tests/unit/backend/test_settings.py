"""Parameters, graph level and accelerators become settings of a session, without a server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from _ort_accelerators import on_stream, providers
from _ort_errors import ConfigurationError, EnvironmentLacksError, LoadError, UnsupportedError
from _ort_parameters import SessionSettings, settings_of
from _ort_session import check_environment, open_session

from backend_configs import config
from backend_helpers import ALL_PARAMETERS
from repository_helpers import affine

ALL_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


def test_every_parameter_is_read() -> None:
    """Each parameter reaches the setting it is for, and a note of the user's none."""
    settings = settings_of(config(parameters=ALL_PARAMETERS))
    assert (settings.parallel, settings.intra_op_threads, settings.inter_op_threads) == (True, 1, 1)
    assert (settings.memory_arena, settings.memory_pattern) == (True, False)
    assert settings.run_entries == {"memory.enable_memory_arena_shrinkage": "cpu:0"}
    assert settings.entries == {key: value for key, value in ALL_PARAMETERS.items() if key.startswith("session.")}
    assert settings.cuda == {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": "1000000",
        "do_copy_in_default_stream": "1",
    }


def test_defaults_are_onnx_runtimes() -> None:
    """Without parameters nothing is set."""
    settings = settings_of(config())
    assert settings == settings_of(config(parameters={"execution_mode": "0", "intra_op_thread_count": "0"}))
    assert (settings.graph_level, settings.memory_arena, settings.cuda) == ("ORT_ENABLE_ALL", None, {})


@pytest.mark.parametrize(
    ("level", "name"),
    [(-1, "ORT_ENABLE_BASIC"), (0, "ORT_ENABLE_ALL"), (1, "ORT_ENABLE_EXTENDED"), (2, "ORT_DISABLE_ALL")],
)
def test_graph_level(level: int, name: str) -> None:
    """Triton's graph levels are ONNX Runtime's."""
    assert settings_of(config(optimization={"graph": {"level": level}})).graph_level == name


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        ("execution_mode", "2", "expected 0 or 1, found '2'"),
        ("intra_op_thread_count", "many", "expected a whole number, found 'many'"),
        ("enable_mem_arena", "yes", "expected 1, 0, true, false, on or off, found 'yes'"),
        ("cudnn_conv_algo_search", "3", "expected 0 or 1 or 2, found '3'"),
        ("gpu_mem_limit", "1 GB", "expected a whole number, found '1 GB'"),
    ],
)
def test_wrong_value_is_refused(parameter: str, value: str, expected: str) -> None:
    """A value that does not fit its parameter is an error that names both."""
    with pytest.raises(ConfigurationError, match=f"parameter '{parameter}': {expected}"):
        settings_of(config(parameters={parameter: value}))


@pytest.mark.parametrize(("text", "value"), [("on", True), ("OFF", False), ("True", True), ("0", False)])
def test_truth_has_the_words_of_nvidias_backend(text: str, value: bool) -> None:
    """A truth value is written in any of the words that the C++ backend reads."""
    assert settings_of(config(parameters={"enable_mem_arena": text})).memory_arena is value


@pytest.mark.parametrize("parameter", ["intra_op_threads", "enable_cuda_graph", "memory.arena", "ep.context"])
def test_unknown_parameter_is_refused(parameter: str) -> None:
    """A parameter that would be ignored is refused by name."""
    with pytest.raises(UnsupportedError, match=f"parameter '{parameter}'"):
        settings_of(config(parameters={parameter: "1"}))


@pytest.mark.parametrize("parameter", ["EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS", "notes.author"])
def test_foreign_parameter_is_left_alone(parameter: str) -> None:
    """Triton's own parameters, and notes in another namespace, are no business of the backend."""
    settings_of(config(parameters={parameter: "something"}))


def accelerators(kind: str, name: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    entry = {"name": name, "parameters": dict(parameters or {})}
    return {"optimization": {"execution_accelerators": {f"{kind}_execution_accelerator": [entry]}}}


def chosen(fields: dict[str, Any], *, gpu: bool, available: tuple[str, ...] = ALL_PROVIDERS) -> dict[str, Any]:
    return dict(providers(config(**fields), cuda={}, gpu=gpu, device_id=1, available=available))


def test_cpu_instance_uses_the_cpu_only() -> None:
    """An accelerator for GPUs is checked, and not used, where there is none."""
    fields = accelerators("gpu", "tensorrt", {"precision_mode": "FP16"})
    assert chosen(fields, gpu=False) == {"CPUExecutionProvider": {}}


def test_gpu_instance_uses_cuda() -> None:
    """A GPU instance runs on its own device, with the accelerator's options, and falls back to the CPU."""
    found = chosen(accelerators("gpu", "cuda", {"enable_cuda_graph": "1"}), gpu=True)
    assert found == {"CUDAExecutionProvider": {"enable_cuda_graph": "1", "device_id": "1"}, "CPUExecutionProvider": {}}
    assert list(found) == ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_tensorrt_comes_first() -> None:
    """TensorRT's options get ONNX Runtime's names, and CUDA takes what TensorRT cannot."""
    parameters = {"precision_mode": "FP16", "max_workspace_size_bytes": "1024", "trt_engine_cache_enable": "1"}
    found = chosen(accelerators("gpu", "tensorrt", parameters), gpu=True)
    assert list(found) == list(ALL_PROVIDERS)
    assert found["TensorrtExecutionProvider"] == {
        "trt_fp16_enable": "1",
        "trt_max_workspace_size": "1024",
        "trt_engine_cache_enable": "1",
        "device_id": "1",
    }


@pytest.mark.parametrize(
    ("kind", "name", "parameters", "message"),
    [
        ("gpu", "magic", {}, "gpu_execution_accelerator: expected cuda or tensorrt, found 'magic'"),
        ("cpu", "magic", {}, "cpu_execution_accelerator: expected openvino, found 'magic'"),
        ("gpu", "tensorrt", {"magic": "1"}, "tensorrt: expected one of precision_mode.*found 'magic'"),
        ("gpu", "tensorrt", {"precision_mode": "FP4"}, "expected FP32 or FP16 or BF16 or INT8, found 'FP4'"),
    ],
)
def test_unknown_accelerator_is_refused(kind: str, name: str, parameters: dict[str, str], message: str) -> None:
    """An unknown accelerator, or an unknown key of one, is refused on every machine."""
    with pytest.raises(LoadError, match=message):
        chosen(accelerators(kind, name, parameters), gpu=False)


@pytest.mark.parametrize(
    ("fields", "gpu", "message"),
    [
        ({}, True, "CUDAExecutionProvider.*found only CPUExecutionProvider; install onnxruntime-gpu"),
        (accelerators("cpu", "openvino"), False, "OpenVINOExecutionProvider.*install onnxruntime-openvino"),
        (accelerators("gpu", "tensorrt"), True, "TensorrtExecutionProvider.*TensorRT's libraries"),
    ],
)
def test_missing_provider_is_named(fields: dict[str, Any], gpu: bool, message: str) -> None:
    """What the machine lacks is named, with the way to get it or to do without."""
    with pytest.raises(EnvironmentLacksError, match=message):
        chosen(fields, gpu=gpu, available=("CPUExecutionProvider",))


def test_numpy_2_is_refused() -> None:
    """The stub must not run with a numpy whose arrays it would misread."""
    check_environment("1.26.4")
    for version in ("2.0.0", "2.4.6", "3.0.0rc1"):
        with pytest.raises(EnvironmentLacksError, match=f"expected numpy 1.26.*found numpy {version}.*silently wrong"):
            check_environment(version)


def test_cuda_that_cannot_be_used_is_not_replaced_silently(tmp_path: Path) -> None:
    """ONNX Runtime would serve a GPU instance from the CPU where CUDA fails; that is an error here."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU, and CUDA may well work")
    path = tmp_path / "model.onnx"
    onnx.save(affine(), path)
    wanted = (("CUDAExecutionProvider", {}), ("CPUExecutionProvider", {}))
    with pytest.raises(EnvironmentLacksError, match="expected ONNX Runtime's CUDAExecutionProvider"):
        open_session(config(), SessionSettings(), path, wanted)


@pytest.mark.parametrize(("value", "on_device"), [(None, True), ("auto", True), ("gpu", True), ("cpu", False)])
def test_output_memory(value: str | None, on_device: bool) -> None:
    """Outputs of a GPU instance stay on the GPU unless the configuration says otherwise."""
    parameters = {} if value is None else {"naiad.output_memory": value}
    assert settings_of(config(parameters=parameters)).outputs_on_device is on_device


@pytest.mark.parametrize("parameter", ["naiad.output_memory", "naiad.cuda_graph"])
def test_wrong_word_is_refused(parameter: str) -> None:
    """A parameter of ours with a word it does not have is an error that names it."""
    with pytest.raises(ConfigurationError, match=f"parameter '{parameter}': expected .* found 'perhaps'"):
        settings_of(config(parameters={parameter: "perhaps"}))


def test_cuda_graphs_are_asked_for_in_either_way() -> None:
    """ONNX Runtime's own option means ours: by itself it would replay the memory of an earlier request."""
    assert not settings_of(config()).cuda_graph
    assert settings_of(config(parameters={"naiad.cuda_graph": "true"})).cuda_graph
    assert settings_of(config(**accelerators("gpu", "cuda", {"enable_cuda_graph": "1"}))).cuda_graph
    assert settings_of(config(**accelerators("gpu", "tensorrt", {"trt_cuda_graph_enable": "true"}))).cuda_graph
    assert not settings_of(config(**accelerators("gpu", "cuda", {"enable_cuda_graph": "0"}))).cuda_graph


@pytest.mark.parametrize(("graph", "recording"), [(False, []), (True, ["TensorrtExecutionProvider"])])
def test_gpu_providers_share_a_stream(graph: bool, recording: list[str]) -> None:
    """Every provider of the GPU works on our stream; the best alone records graphs."""
    wanted = providers(
        config(**accelerators("gpu", "tensorrt")), cuda={}, gpu=True, device_id=0, available=ALL_PROVIDERS
    )
    placed = dict(on_stream(wanted, 4711, cuda_graph=graph))
    assert placed["CPUExecutionProvider"] == {}
    options = {name: placed[name] for name in ALL_PROVIDERS[:2]}
    assert {each["user_compute_stream"] for each in options.values()} == {"4711"}
    names = {"TensorrtExecutionProvider": "trt_cuda_graph_enable", "CUDAExecutionProvider": "enable_cuda_graph"}
    assert [name for name, each in options.items() if each[names[name]] == "1"] == recording
