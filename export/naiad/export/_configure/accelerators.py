"""GPUs: options of the CUDA and TensorRT execution providers, and the sizes that a TensorRT engine is built for.

Instances keep KIND_AUTO: Triton makes it a GPU instance where there is a GPU and a CPU instance elsewhere, and only GPU
instances use these options. So the same entry loads on a machine without a GPU; KIND_GPU would be refused there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export._capture.graph import Graph
from naiad.export._configure.batching import Batching
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples
from naiad.export.report import Choice, Finding

NAMES = ("cpu", "cuda", "tensorrt")
_CACHE = "/tmp/naiad-tensorrt"  # noqa: S108 - in the server's own container; ONNX Runtime makes one directory, not two
_WORKSPACE_BYTES = 1 << 30
_DEVICE_INPUTS = {"FORCE_CPU_ONLY_INPUT_TENSORS": "no"}
"""For Naiad's backend, to which Triton's Python backend would else hand copies in the host's memory."""
_PRECISION_MODES = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is being configured."""

    graph: Graph
    samples: Samples
    answers: Sequence[Answer]
    batching: Batching
    precision: str


def apply(config: Any, accelerator: str, subject: Subject) -> tuple[Choice, ...]:
    """Write the options of `accelerator` (one of `NAMES`) into a configuration, and return what was chosen and why."""
    if accelerator == "cpu":
        return ()
    choices = [_cuda(config, subject)]
    if accelerator == "tensorrt":
        parameters = tensorrt_parameters(config.name, subject)
        config.optimization.execution_accelerators.gpu_execution_accelerator.insert(
            0,
            model_config_pb2.ModelOptimizationPolicy.ExecutionAccelerators.Accelerator(
                name="tensorrt", parameters=parameters
            ),
        )
        reason = f"engines are built for {parameters.get('trt_profile_max_shapes', 'the fixed shapes')} at most"
        choices.insert(0, Choice(field="tensorrt", value=parameters["precision_mode"], reason=reason))
    return tuple(choices)


def _cuda(config: Any, subject: Subject) -> Choice:
    """Write the options of CUDA, which also runs what TensorRT leaves."""
    varying = any(isinstance(dim, str) for dims in subject.graph.inputs.values() for dim in dims)
    # The C++ backend overwrites these three, and gpu_mem_limit, where they are options of the accelerator.
    options = {
        "cudnn_conv_algo_search": "1" if varying else "0",
        "arena_extend_strategy": "1",
        "do_copy_in_default_stream": "1",
    }
    for name, value in (options | _DEVICE_INPUTS).items():
        config.parameters[name].string_value = value
    exact = subject.precision == "fp32"  # TensorFloat-32 keeps three decimal digits
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    accelerators.add(name="cuda", parameters={"use_tf32": str(int(not exact))})
    search = "estimated, since shapes vary" if varying else "tried out once"
    value = f"TensorFloat-32 {'off' if exact else 'on'}"
    return Choice(field="cuda", value=value, reason=f"algorithms of convolutions are {search}")


def tensorrt_parameters(model: str, subject: Subject) -> dict[str, str]:
    """Return the parameters of the accelerator `tensorrt`, in the names of Triton's ONNX Runtime backend."""
    cache = f"{_CACHE}-{model}"
    parameters = {
        "precision_mode": _PRECISION_MODES.get(subject.precision.partition("-")[0], "FP32"),
        "max_workspace_size_bytes": str(_WORKSPACE_BYTES),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
    }
    shapes = _profile(subject)
    if shapes:
        parameters |= {
            f"trt_profile_{end}_shapes": text for end, text in zip(("min", "opt", "max"), shapes, strict=True)
        }
    return parameters


def not_measured(accelerator: str, *, on_gpu: bool = False, lacking: str = "") -> tuple[str, ...]:
    """Return one phrase for each thing that only a GPU could have shown; `lacking` is why none was used."""
    if accelerator == "cpu" or on_gpu:
        return ()
    why = f"no GPU here: {lacking}" if lacking else "no GPU was asked for"
    engine = ("that a TensorRT engine can be built, and its size",) if accelerator == "tensorrt" else ()
    provider = {"cuda": "CUDA", "tensorrt": "TensorRT"}[accelerator]
    return (
        f"the answers of {provider}: verified on the CPU, not timed ({why})",
        f"latency and throughput with {provider}: batching was derived from the CPU's",
        *engine,
    )


def findings(accelerator: str, subject: Subject) -> tuple[Finding, ...]:
    """Return what a user of the engine must know: sizes beyond the samples' are not in its profile."""
    if accelerator != "tensorrt":
        return ()
    bounded = [
        f"{symbol} up to {_largest(symbol, subject)}"
        for symbol in _symbols(subject)
        if symbol != subject.samples.batch and _upper(symbol, subject.graph) is None
    ]
    if not bounded:
        return ()
    message = (
        f"TensorRT's engine is built for {', '.join(bounded)}, the largest that was verified; give longer samples, or "
        "trt_profile_max_shapes by --set, if clients send more"
    )
    return (Finding(check="tensorrt profile", message=message),)


def _profile(subject: Subject) -> tuple[str, str, str] | None:
    """Return the smallest, typical and largest shapes of all inputs that vary, as ONNX Runtime reads them."""
    varying = {name: dims for name, dims in subject.graph.inputs.items() if any(isinstance(dim, str) for dim in dims)}
    if not varying:
        return None
    sizes = {symbol: _sizes(symbol, subject) for symbol in _symbols(subject)}
    smallest, typical, largest = (
        _shapes(varying, {symbol: triple[end] for symbol, triple in sizes.items()}) for end in range(3)
    )
    return smallest, typical, largest


def _shapes(inputs: dict[str, tuple[int | str, ...]], sizes: dict[str, int]) -> str:
    return ",".join(
        f"{name}:{'x'.join(str(sizes[dim] if isinstance(dim, str) else dim) for dim in dims)}"
        for name, dims in inputs.items()
    )


def _symbols(subject: Subject) -> list[str]:
    names = [dim for dims in subject.graph.inputs.values() for dim in dims if isinstance(dim, str)]
    return list(dict.fromkeys(names))


def _sizes(symbol: str, subject: Subject) -> tuple[int, int, int]:
    if symbol == subject.samples.batch:
        largest = subject.samples.max_batch_size
        return 1, min(max(subject.batching.knee, 1), largest), largest
    typical = subject.answers[0].case.sizes.get(symbol, 1)
    return 1, typical, max(typical, _largest(symbol, subject))


def _largest(symbol: str, subject: Subject) -> int:
    upper = _upper(symbol, subject.graph)
    verified = max((answer.case.sizes.get(symbol, 1) for answer in subject.answers), default=1)
    return verified if upper is None else upper


def _upper(symbol: str, graph: Graph) -> int | None:
    return graph.ranges[symbol][1] if symbol in graph.ranges else None
