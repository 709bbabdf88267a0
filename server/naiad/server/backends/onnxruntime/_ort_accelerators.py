"""The execution providers that a configuration and an instance ask for."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from _ort_config import ModelConfig
from _ort_errors import ConfigurationError, EnvironmentLacksError, UnsupportedError, mismatch

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
OPENVINO: Final = "OpenVINOExecutionProvider"

Provider = tuple[str, dict[str, str]]

_GRAPH_OPTIONS: Final[Mapping[str, str]] = {CUDA: "enable_cuda_graph", TENSORRT: "trt_cuda_graph_enable"}

_PRECISIONS: Final[Mapping[str, dict[str, str]]] = {
    "FP32": {},
    "FP16": {"trt_fp16_enable": "1"},
    "BF16": {"trt_bf16_enable": "1"},
    "INT8": {"trt_int8_enable": "1"},
}
_TENSORRT_RENAMED: Final[Mapping[str, str]] = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
_TENSORRT_KEYS: Final = (
    "trt_max_partition_iterations",
    "trt_min_subgraph_size",
    "trt_dla_enable",
    "trt_dla_core",
    "trt_engine_cache_enable",
    "trt_engine_cache_path",
    "trt_engine_cache_prefix",
    "trt_dump_subgraphs",
    "trt_force_sequential_engine_build",
    "trt_context_memory_sharing_enable",
    "trt_layer_norm_fp32_fallback",
    "trt_timing_cache_enable",
    "trt_timing_cache_path",
    "trt_force_timing_cache",
    "trt_detailed_build_log",
    "trt_build_heuristics_enable",
    "trt_sparsity_enable",
    "trt_builder_optimization_level",
    "trt_auxiliary_streams",
    "trt_tactic_sources",
    "trt_extra_plugin_lib_paths",
    "trt_profile_min_shapes",
    "trt_profile_max_shapes",
    "trt_profile_opt_shapes",
    "trt_cuda_graph_enable",
    "trt_dump_ep_context_model",
    "trt_ep_context_file_path",
    "trt_ep_context_embed_mode",
)


def providers(
    config: ModelConfig, *, cuda: Mapping[str, str], gpu: bool, device_id: int, available: Collection[str]
) -> tuple[Provider, ...]:
    """The providers of one instance, best first, ending with the CPU's.

    ``cuda`` has the CUDA options given as parameters, ``available`` what this build of ONNX Runtime offers.
    Raises ``UnsupportedError`` for an unknown accelerator, ``ConfigurationError`` for a wrong key or value of
    one, ``EnvironmentLacksError`` for a provider that is asked for and not there.
    """
    chosen = [*_gpu_providers(config, cuda=cuda, device_id=device_id, used=gpu), *_cpu_providers(config)]
    for name, _ in chosen:
        if name not in available:
            raise EnvironmentLacksError(missing_provider(config, name, available))
    return (*chosen, (CPU, {}))


def on_stream(chosen: Iterable[Provider], stream: int, *, cuda_graph: bool) -> tuple[Provider, ...]:
    """The providers, those of the GPU with a stream of ours, on which their work is in order with our copies.

    With ``cuda_graph`` the best of them records its runs: ONNX Runtime wants a graph to be all of one provider.
    """
    placed: list[Provider] = []
    for name, options in chosen:
        if name not in _GRAPH_OPTIONS:
            placed.append((name, options))
            continue
        graph = str(int(cuda_graph and not placed))
        placed.append((name, {**options, "user_compute_stream": str(stream), _GRAPH_OPTIONS[name]: graph}))
    return tuple(placed)


def missing_provider(config: ModelConfig, name: str, found: Collection[str]) -> str:
    """The message about a provider that ONNX Runtime was not built with, or silently dropped."""
    advice = {
        OPENVINO: "install onnxruntime-openvino in its place or remove the accelerator 'openvino'",
        TENSORRT: "install onnxruntime-gpu and TensorRT's libraries (pip install 'tensorrt-cu13==10.*') "
        "or remove the accelerator 'tensorrt'",
    }.get(
        name,
        "install onnxruntime-gpu in place of onnxruntime, and CUDA and cuDNN libraries it can load "
        "(pip install 'naiad[cuda-libraries]'), or use KIND_CPU or KIND_AUTO",
    )
    return mismatch(
        f"model '{config.name}'",
        expected=f"ONNX Runtime's {name}, which its configuration asks for",
        found=f"only {', '.join(found)}",
        advice=advice,
    )


def _accelerators(config: ModelConfig, kind: str) -> list[Mapping[str, Any]]:
    return list((config.optimization.get("execution_accelerators") or {}).get(kind, ()))


def _cpu_providers(config: ModelConfig) -> list[Provider]:
    chosen: list[Provider] = []
    for accelerator in _accelerators(config, "cpu_execution_accelerator"):
        if accelerator["name"] != "openvino":
            raise UnsupportedError(_unknown(config, "cpu_execution_accelerator", accelerator["name"], "openvino"))
        chosen.append((OPENVINO, {"device_type": "CPU"}))
    return chosen


def _gpu_providers(config: ModelConfig, *, cuda: Mapping[str, str], device_id: int, used: bool) -> list[Provider]:
    chosen: list[Provider] = []
    cuda_options: dict[str, str] = {}
    for accelerator in _accelerators(config, "gpu_execution_accelerator"):
        parameters = accelerator.get("parameters") or {}
        match accelerator["name"]:
            case "tensorrt":
                chosen.append((TENSORRT, {**_tensorrt_options(config, parameters), "device_id": str(device_id)}))
            case "cuda":
                cuda_options.update(parameters)
            case name:
                raise UnsupportedError(_unknown(config, "gpu_execution_accelerator", name, "cuda or tensorrt"))
    # Checked on every machine, used by KIND_GPU instances only: one repository serves both kinds of machine.
    return [*chosen, (CUDA, {**cuda_options, **cuda, "device_id": str(device_id)})] if used else []


def _unknown(config: ModelConfig, field: str, name: str, known: str) -> str:
    return mismatch(
        f"model '{config.name}', optimization.execution_accelerators.{field}",
        expected=known,
        found=f"'{name}'",
        advice="remove it from config.pbtxt",
    )


def _tensorrt_options(config: ModelConfig, parameters: Mapping[str, str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in parameters.items():
        if key == "precision_mode":
            options.update(_precision(config, value))
        elif key in _TENSORRT_RENAMED or key in _TENSORRT_KEYS:
            options[_TENSORRT_RENAMED.get(key, key)] = value
        else:
            known = ", ".join(("precision_mode", *_TENSORRT_RENAMED, *_TENSORRT_KEYS))
            raise ConfigurationError(_unknown(config, "gpu_execution_accelerator tensorrt", key, f"one of {known}"))
    return options


def _precision(config: ModelConfig, value: str) -> dict[str, str]:
    if value not in _PRECISIONS:
        message = _unknown(config, "gpu_execution_accelerator tensorrt precision_mode", value, " or ".join(_PRECISIONS))
        raise ConfigurationError(message)
    return _PRECISIONS[value]
