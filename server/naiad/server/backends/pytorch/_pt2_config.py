"""The parts of config.pbtxt that this backend reads, and what it refuses in them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from _pt2_errors import LoadError, mismatch

_PLATFORM: Final = "torch_aoti"
_SUFFIX: Final = ".pt2"
_PARAMETERS: Final = ("INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT", "INFERENCE_MODE")
_OUTPUT_MEMORY: Final = "naiad.output_memory"
_CUDA_GRAPH: Final = "naiad.cuda_graph"
_OWN: Final[Mapping[str, tuple[str, ...]]] = {
    _OUTPUT_MEMORY: ("auto", "gpu", "cpu"),
    _CUDA_GRAPH: ("true", "false"),
}
"""Parameters that NVIDIA's backend ignores, with their values."""
# About TorchScript, one process for all instances, or what Triton itself reads: they change nothing here.
_WITHOUT_EFFECT: Final = (
    "DISABLE_OPTIMIZED_EXECUTION",
    "DISABLE_CUDNN",
    "ENABLE_CACHE_CLEANING",
    "ENABLE_WEIGHT_SHARING",
    "ENABLE_JIT_EXECUTOR",
    "ENABLE_JIT_PROFILING",
    "EXECUTION_ENV_PATH",
    "FORCE_CPU_ONLY_INPUT_TENSORS",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorConfig:
    """One configured input or output; ``dims`` are without the batch dimension."""

    name: str
    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """One model's configuration."""

    name: str
    max_batch_size: int
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]
    filename: str
    parameters: Mapping[str, str]

    @property
    def outputs_on_host(self) -> bool:
        """Whether an instance on a GPU copies its outputs to the host itself."""
        return self.parameters.get(_OUTPUT_MEMORY) == "cpu"

    @property
    def cuda_graph(self) -> bool:
        """Whether an instance on a GPU records its work once for each set of shapes."""
        return self.parameters.get(_CUDA_GRAPH) == "true"


def parse(config: Mapping[str, Any]) -> ModelConfig:
    """The configuration in a JSON object as Triton writes it.

    Raises ``LoadError`` for what this backend does not do, because to ignore it would give wrong answers.
    """
    parameters = {key: str(value["string_value"]) for key, value in (config.get("parameters") or {}).items()}
    for field, expected, found, advice in _refusals(config, parameters):
        subject = f"model '{config['name']}', {field}"
        raise LoadError(mismatch(subject, expected=expected, found=found, advice=advice))
    return ModelConfig(
        name=config["name"],
        max_batch_size=int(config.get("max_batch_size", 0)),
        inputs=tuple(map(_tensor, config.get("input", ()))),
        outputs=tuple(map(_tensor, config.get("output", ()))),
        filename=config.get("default_model_filename") or "model.pt2",
        parameters=parameters,
    )


def _refusals(config: Mapping[str, Any], parameters: Mapping[str, str]) -> Iterator[tuple[str, object, object, str]]:
    platform = config.get("platform", "")
    # A Triton that does not know the platform loads such a model without it, or under that of TorchScript.
    if platform != _PLATFORM and not config.get("default_model_filename", "").endswith(_SUFFIX):
        advice = "export the model as a model.pt2, or as an ONNX graph, or serve it with NVIDIA's backend"
        yield "platform", f"'{_PLATFORM}'", repr(platform), advice
    for field in ("sequence_batching", "batch_input", "batch_output"):
        if config.get(field):
            yield field, "nothing, it is not supported for a model.pt2", "some", "remove it"
    for tensor in (*config.get("input", ()), *config.get("output", ())):
        for field in ("reshape", "allow_ragged_batch", "optional"):
            if tensor.get(field):
                yield f"tensor '{tensor['name']}'", f"no {field}", tensor[field], "remove it"
        if tensor["data_type"] == "TYPE_STRING":
            yield f"tensor '{tensor['name']}'", "numbers, PyTorch has no text", "TYPE_STRING", "use TYPE_UINT8"
    for key, values in _OWN.items():
        if parameters.get(key, values[0]) not in values:
            yield f"parameter '{key}'", f"one of {', '.join(values)}", repr(parameters[key]), "correct it"
    for key in parameters:
        if key not in (*_PARAMETERS, *_WITHOUT_EFFECT) and not key.startswith("TRITON_") and "." not in key:
            advice = f"remove it, or give a note of your own a name with a dot, such as 'notes.{key}'"
            yield f"parameter '{key}'", f"one of {', '.join(_PARAMETERS)}", f"'{key}'", advice


def _tensor(entry: Mapping[str, Any]) -> TensorConfig:
    dims = tuple(int(dim) for dim in entry.get("dims", ()))
    return TensorConfig(name=entry["name"], data_type=entry["data_type"], dims=dims)
