"""Rules about execution accelerators of the onnxruntime backend.

Source: `LoadModel` in `onnxruntime.cc`. Accelerators for GPUs are read by GPU instances only; Naiad's own backend
checks names and TensorRT's keys on every machine, so that one repository serves both kinds.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Final

from naiad.export._lint import values
from naiad.export._lint.entry import Entry
from naiad.export._lint.parameters import GPU_KEYS
from naiad.export._lint.problem import Problem, advice, fails, fails_on_gpu, not_embedded

_FIELD = "optimization.execution_accelerators"
_FLAGS = (
    "dla_enable",
    "engine_cache_enable",
    "dump_subgraphs",
    "force_sequential_engine_build",
    "context_memory_sharing_enable",
    "layer_norm_fp32_fallback",
    "timing_cache_enable",
    "force_timing_cache",
    "detailed_build_log",
    "build_heuristics_enable",
    "sparsity_enable",
    "cuda_graph_enable",
    "dump_ep_context_model",
)
_NUMBERS = (
    "max_partition_iterations",
    "min_subgraph_size",
    "dla_core",
    "builder_optimization_level",
    "auxiliary_streams",
    "ep_context_embed_mode",
)
_TEXTS = (
    "engine_cache_path",
    "engine_cache_prefix",
    "timing_cache_path",
    "tactic_sources",
    "extra_plugin_lib_paths",
    "profile_min_shapes",
    "profile_max_shapes",
    "profile_opt_shapes",
    "ep_context_file_path",
)
_PRECISIONS = ("FP32", "FP16", "BF16", "INT8")
TENSORRT_CHECKS: Final[dict[str, values.Check]] = {
    "precision_mode": values.one_of(*_PRECISIONS),
    "max_workspace_size_bytes": values.unsigned,
    "int8_calibration_table_name": values.anything,
    "int8_use_native_calibration_table": values.provider_truth,
    **{f"trt_{name}": values.provider_truth for name in _FLAGS},
    **{f"trt_{name}": values.integer for name in _NUMBERS},
    **{f"trt_{name}": values.anything for name in _TEXTS},
}
_FIRST_TENSORRT_KEYS = frozenset(
    {
        "precision_mode",
        "max_workspace_size_bytes",
        "int8_calibration_table_name",
        "int8_use_native_calibration_table",
        "trt_max_partition_iterations",
        "trt_min_subgraph_size",
        "trt_dla_enable",
        "trt_dla_core",
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
        "trt_dump_subgraphs",
        "trt_force_sequential_engine_build",
        "trt_context_memory_sharing_enable",
        "trt_timing_cache_enable",
        "trt_force_timing_cache",
        "trt_detailed_build_log",
        "trt_build_heuristics_enable",
    }
)
CUDA_KEYS: Final = frozenset(
    {
        *GPU_KEYS,
        "cudnn_conv1d_pad_to_nc1d",
        "cudnn_conv_use_max_workspace",
        "device_id",
        "enable_cuda_graph",
        "enable_skip_layer_norm_strict_mode",
        "fuse_conv_bias",
        "has_user_compute_stream",
        "prefer_nhwc",
        "sdpa_kernel",
        "tunable_op_enable",
        "tunable_op_max_tuning_duration_ms",
        "tunable_op_tuning_enable",
        "use_ep_level_unified_stream",
        "use_tf32",
    }
)
"""Options of ONNX Runtime's CUDA provider, `cuda_execution_provider_info.cc`; it refuses any other."""
_PROFILES = ("trt_profile_min_shapes", "trt_profile_max_shapes", "trt_profile_opt_shapes")


def gpu_names(entry: Entry) -> Iterator[Problem]:
    """On GPUs there are TensorRT and CUDA."""
    for name, _ in _accelerators(entry, "gpu"):
        if name not in ("tensorrt", "cuda"):
            yield fails(
                f"{_FIELD}.gpu_execution_accelerator", f"expected tensorrt or cuda, found {name!r}", "remove it"
            )
        elif name == "cuda" and not entry.target.supports("cuda_accelerator"):
            message = f"the onnxruntime backend of {entry.target} does not know it"
            yield fails_on_gpu(f"{_FIELD}.cuda", message, "use parameters, or serve with 24.06 or later")


def cpu_names(entry: Entry) -> Iterator[Problem]:
    """On CPUs there is OpenVINO, which Naiad's embedded server may lack."""
    for name, _ in _accelerators(entry, "cpu"):
        if name != "openvino":
            yield fails(f"{_FIELD}.cpu_execution_accelerator", f"expected openvino, found {name!r}", "remove it")
        else:
            message = "OpenVINO is in NVIDIA's containers, and not in ONNX Runtime's plain packages"
            yield not_embedded(f"{_FIELD}.openvino", message, "install onnxruntime-openvino to serve it here")


def tensorrt_keys(entry: Entry) -> Iterator[Problem]:
    """TensorRT's keys and values are known; one that is not stops the load."""
    for name, parameters in _accelerators(entry, "gpu"):
        for key, text in parameters.items() if name == "tensorrt" else ():
            field = f"{_FIELD}.tensorrt.{key}"
            if key not in TENSORRT_CHECKS:
                near = difflib.get_close_matches(key, list(TENSORRT_CHECKS), n=1)
                fix = f"did you mean {near[0]}?" if near else "remove it"
                yield fails(field, "the onnxruntime backend knows no such key of TensorRT", fix)
            elif expected := TENSORRT_CHECKS[key](text):
                broken = fails if key == "precision_mode" else fails_on_gpu
                yield broken(field, f"expected {expected}, found {text!r}", "correct the value")
            else:
                yield from _too_new(entry, key, text)


def _too_new(entry: Entry, key: str, text: str) -> Iterator[Problem]:
    field = f"{_FIELD}.tensorrt.{key}"
    if key not in _FIRST_TENSORRT_KEYS and entry.target.release < "24.04":
        yield fails_on_gpu(field, f"{entry.target} does not know it", "serve with 24.04 or later")
    if (key, text) == ("precision_mode", "BF16") and not entry.target.supports("tensorrt_bf16"):
        yield fails_on_gpu(field, f"{entry.target} does not know BF16", "use FP16, or serve with 26.02 or later")


def tensorrt_device(entry: Entry) -> Iterator[Problem]:
    """Without any parameter the backend does not tell TensorRT which GPU to use."""
    for name, parameters in _accelerators(entry, "gpu"):
        if name == "tensorrt" and not parameters:
            message = "without any parameter every instance uses GPU 0"
            yield advice(f"{_FIELD}.tensorrt", message, 'give one, for example precision_mode: "FP16"')


def tensorrt_profiles(entry: Entry) -> Iterator[Problem]:
    """Shapes of a profile come in threes, and name inputs of the model."""
    inputs = {tensor.name for tensor in entry.config.input}
    for name, parameters in _accelerators(entry, "gpu"):
        given = [key for key in _PROFILES if key in parameters]
        if name != "tensorrt" or not given:
            continue
        if len(given) < len(_PROFILES):
            message = f"{' and '.join(given)} without {' and '.join(sorted(set(_PROFILES) - set(given)))}"
            yield fails_on_gpu(f"{_FIELD}.tensorrt", message, "give all three, or none")
        for key in given:
            unknown = sorted({part.rpartition(":")[0] for part in parameters[key].split(",")} - inputs)
            if unknown:
                message = f"expected shapes as in x:1x3 of the inputs {sorted(inputs)}, found {unknown}"
                yield fails_on_gpu(f"{_FIELD}.tensorrt.{key}", message, "use the names of the inputs")


def cuda_keys(entry: Entry) -> Iterator[Problem]:
    """CUDA's keys are those of ONNX Runtime; four of them are taken from `parameters` only."""
    for name, parameters in _accelerators(entry, "gpu"):
        for key, text in parameters.items() if name == "cuda" else ():
            field = f"{_FIELD}.cuda.{key}"
            if key not in CUDA_KEYS:
                near = difflib.get_close_matches(key, sorted(CUDA_KEYS), n=1)
                fix = f"did you mean {near[0]}?" if near else "remove it"
                yield fails_on_gpu(field, "ONNX Runtime's CUDA provider knows no such option", fix)
            elif key in GPU_KEYS:
                message = "here it is overwritten by the parameter of that name, or by its default"
                yield advice(field, message, f"set it as parameters.{key}")
            elif key == "use_ep_level_unified_stream" and values.provider_truth(text):
                yield fails_on_gpu(field, f"expected true or false, found {text!r}", "correct the value")


def ignored_elsewhere(entry: Entry) -> Iterator[Problem]:
    """Other backends have accelerators of their own, or none."""
    if entry.config.backend == "python" and entry.config.optimization.HasField("execution_accelerators"):
        yield advice(_FIELD, "the Python backend passes over accelerators", "remove them")


def _accelerators(entry: Entry, device: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    if not entry.is_onnx:
        return
    accelerators = entry.config.optimization.execution_accelerators
    for each in getattr(accelerators, f"{device}_execution_accelerator"):
        yield each.name, dict(each.parameters)


RULES = (
    gpu_names,
    cpu_names,
    tensorrt_keys,
    tensorrt_device,
    tensorrt_profiles,
    cuda_keys,
    ignored_elsewhere,
)
