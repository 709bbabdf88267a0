"""Where an entry for GPUs is verified and timed: with the provider and the options that its configuration will have."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export._configure import accelerators as _accelerators
from naiad.export._configure import settings as _settings
from naiad.export._configure.accelerators import Subject
from naiad.export._runtime.place import CPU_PROVIDER, CUDA_PROVIDER, TENSORRT_PROVIDER, Place, PlaceOf

_CUDA_WORDS = {
    "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"},
    "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"},
}
_CUDA_PARAMETERS = (*_CUDA_WORDS, "gpu_mem_limit", "do_copy_in_default_stream")
_READ = ("parameters.", "optimization.")
_TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
_TENSORRT_SWITCHES = {"FP16": "trt_fp16_enable", "BF16": "trt_bf16_enable", "INT8": "trt_int8_enable"}


def places(
    accelerator: str, subject: Subject, settings: Mapping[str, object], *, device: str, engines: Path
) -> PlaceOf:
    """Return the places of a GPU by precision.

    Args:
        accelerator: "cuda" or "tensorrt".
        subject: What will be configured; its precision is left out of account.
        settings: Fields of the configuration that the user sets.
        device: The name of the GPU.
        engines: For TensorRT's engines; made when it is needed.
    """

    def place_of(precision: str) -> Place:
        config = model_config_pb2.ModelConfig(name="model")
        _accelerators.apply(config, accelerator, replace(subject, precision=precision))
        _settings.apply(config, {path: value for path, value in settings.items() if path.startswith(_READ)})
        provider = {"cuda": "CUDA", "tensorrt": "TensorRT"}[accelerator]
        return of_config(config, f"ONNX Runtime's {provider} provider on {device}", engines)

    return place_of


def of_config(config: Any, name: str, engines: Path) -> Place:
    """Return the place of a GPU instance with some configuration."""
    providers = (*_providers(config), (CPU_PROVIDER, {}))
    return Place(name=name, providers=providers, memory="cuda", on_gpu=True, engines=engines)


def with_graphs(place: Place) -> Place:
    """Return a place whose CUDA provider captures graphs."""
    return replace(
        place,
        name=f"{place.name} with CUDA graphs",
        providers=tuple(
            (name, {**options, "enable_cuda_graph": "1"} if name == CUDA_PROVIDER else options)
            for name, options in place.providers
        ),
    )


def _providers(config: Any) -> list[tuple[str, dict[str, str]]]:
    """Return what a configuration asks of ONNX Runtime on a GPU, as Triton's backends read it."""
    found: list[tuple[str, dict[str, str]]] = []
    cuda: dict[str, str] = {}
    for each in config.optimization.execution_accelerators.gpu_execution_accelerator:
        if each.name == "tensorrt":
            found.append((TENSORRT_PROVIDER, _tensorrt(dict(each.parameters)) | {"device_id": "0"}))
        else:
            cuda |= dict(each.parameters)
    for name in _CUDA_PARAMETERS:
        if name in config.parameters:
            text = config.parameters[name].string_value
            cuda[name] = _CUDA_WORDS.get(name, {}).get(text, text)
    return [*found, (CUDA_PROVIDER, cuda | {"device_id": "0"})]


def _tensorrt(parameters: Mapping[str, str]) -> dict[str, str]:
    options = {_TENSORRT_NAMES.get(key, key): text for key, text in parameters.items() if key != "precision_mode"}
    switch = _TENSORRT_SWITCHES.get(parameters.get("precision_mode", "FP32"))
    return options | ({switch: "1"} if switch else {})
