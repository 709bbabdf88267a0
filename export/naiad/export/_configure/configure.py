"""The model's complete `config.pbtxt`, so that servers start with auto-complete off and warm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export._capture.graph import Graph
from naiad.export._configure import accelerators as _accelerators
from naiad.export._configure import advice as _advice
from naiad.export._configure import batching as _batching
from naiad.export._configure import instances as _instances
from naiad.export._configure import sequences as _sequences
from naiad.export._configure import settings as _settings
from naiad.export._configure import tensors as _tensors
from naiad.export._configure import warmup as _warmup
from naiad.export._configure.labels import Labels, name_labels
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples
from naiad.export.report import BatchLatency, Choice, Finding


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What a user may ask of the configuration."""

    settings: Mapping[str, object] = field(default_factory=dict)
    cores: int | None = None
    """Of the machine that will serve; None for this machine's."""
    accelerator: str = "cpu"
    states: Mapping[str, str] = field(default_factory=dict)
    """Outputs by the inputs that they become in the next request of a sequence."""
    precision: str = "fp32"
    on_gpu: bool = False
    """Whether the latency is a GPU's."""
    gpu_only: bool = False
    """Whether the graph has nodes for which the CPU has no kernels."""
    lacking: str = ""
    """Why no GPU was used for an accelerator that is one."""
    cuda_graph: Choice | None = None
    """Where CUDA graphs were verified."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Configured:
    """A configuration with what belongs to it."""

    config: Any
    """The ModelConfig; its version policy is left to the publishing."""
    warmup: dict[str, bytes]
    """Files for the model's `warmup/`, by name."""
    choices: tuple[Choice, ...]
    findings: tuple[Finding, ...]
    not_measured: tuple[str, ...]


def configure(
    model: str,
    graph: Graph,
    samples: Samples,
    answers: Sequence[Answer],
    *,
    latency: Sequence[BatchLatency],
    size_bytes: int,
    labels: Labels,
    wishes: Wishes,
) -> Configured:
    """Return the configuration of a verified graph.

    Raises:
        InvalidExport: A label, a state or a setting does not fit the model.
    """
    config = model_config_pb2.ModelConfig(
        name=model, backend="onnxruntime", max_batch_size=samples.max_batch_size, default_model_filename=graph.path.name
    )
    config.input.extend(_tensors.inputs(graph, samples, answers))
    config.output.extend(_tensors.outputs(graph, samples, answers))
    batching = _batching.derive(latency, samples.max_batch_size)
    instances = _instances.on_gpu() if wishes.on_gpu else _instances.derive(latency, size_bytes, wishes.cores)
    _instances.apply(config, instances, gpu_only=wishes.gpu_only)
    choices = [_instances.explain(instances), *_schedule(config, samples, batching, wishes)]
    subject = _accelerators.Subject(
        graph=graph, samples=samples, answers=answers, batching=batching, precision=wishes.precision
    )
    choices += _accelerators.apply(config, wishes.accelerator, subject)
    if wishes.cuda_graph is not None:
        config.parameters[wishes.cuda_graph.field].string_value = wishes.cuda_graph.value
        choices.append(wishes.cuda_graph)
    warmup = {} if wishes.states else _add_warmup(config, graph, samples, answers, batching)
    name_labels(config, labels)
    _settings.apply(config, wishes.settings)
    _advice.complete(config)
    return Configured(
        config=config,
        warmup={name: data for name, data in warmup.items() if _is_read(config, name)},
        choices=tuple(choices),
        findings=(
            *_advice.findings(config),
            *_accelerators.findings(wishes.accelerator, subject),
            *_gpu_findings(wishes),
        ),
        not_measured=_accelerators.not_measured(wishes.accelerator, on_gpu=wishes.on_gpu, lacking=wishes.lacking),
    )


def _gpu_findings(wishes: Wishes) -> tuple[Finding, ...]:
    if not wishes.gpu_only:
        return ()
    message = (
        f"ONNX Runtime has no kernels on the CPU for this graph in {wishes.precision}: its instances are KIND_GPU, and "
        "a server without a GPU refuses it"
    )
    return (Finding(check="GPU only", message=message),)


def _schedule(config: Any, samples: Samples, batching: _batching.Batching, wishes: Wishes) -> list[Choice]:
    if wishes.states:
        _sequences.apply(config, wishes.states, batching)
        return [_sequences.explain(wishes.states)]
    if not samples.batch:
        return []
    if samples.max_batch_size > 1:
        _batching.apply(config, batching)
    return [_batching.explain(batching, samples.max_batch_size)]


def _add_warmup(
    config: Any, graph: Graph, samples: Samples, answers: Sequence[Answer], batching: _batching.Batching
) -> dict[str, bytes]:
    """Warm up with one row, the batch that will be formed most, and the largest.

    A stateful model is not warmed up: Triton's warm-up requests belong to no sequence, and its backends refuse those.
    """
    batches = (1, *batching.preferred, samples.max_batch_size)
    return _warmup.add(config, samples, _warmup.rows(samples, answers), batches, graph.path)


def _is_read(config: Any, file: str) -> bool:
    """Whether a warm-up still reads a file, after the user's settings."""
    return any(tensor.input_data_file == file for item in config.model_warmup for tensor in item.inputs.values())
