"""The `config.pbtxt` of a `model.pt2`, by the rules of Triton's pytorch backend since 26.05.

Tensors have the names of their places in the package's call specification, `INPUT__0` and `OUTPUT__0`. The backend
gives every request of a batch the answer of the whole batch, so `max_batch_size` is 0: the batch is an ordinary
dimension, and clients send as many rows as they like. A package is made for one kind of processor: KIND_CPU, or
KIND_GPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export._aoti.package import Package, Place
from naiad.export._capture.graph import Graph
from naiad.export._configure import instances as _instances
from naiad.export._configure import settings as _settings
from naiad.export._configure import tensors as _tensors
from naiad.export._configure import warmup as _warmup
from naiad.export._configure.configure import Configured, Wishes
from naiad.export._configure.labels import Labels, name_labels
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples
from naiad.export.errors import InvalidExport
from naiad.export.report import Choice, Finding
from naiad.export.repository import Repository

FIRST_RELEASE = "26.05"
_MOST_GPU_INSTANCES = 2
_THREADS_BESIDE_GPU = 4
"""They only copy tensors into pinned memory, and more would take the server's cores."""
_GPU_MEMORY_SHARE = 0.25
"""That the weights of all instances may take; the rest is for what they compute with."""


def refuse_batching(settings: Mapping[str, object]) -> None:
    """Refuse settings that would have the server join requests.

    Raises:
        InvalidExport: There is one.
    """
    for name in settings:
        if name.partition(".")[0] in ("dynamic_batching", "sequence_batching"):
            raise InvalidExport(
                f"Triton's pytorch backend cannot do {name} for a model.pt2: the requests of a batch would get each "
                "other's answers; leave it out, or export with another accelerator"
            )


def refuse_other_instances(repository: Repository, model: str, settings: Mapping[str, object], place: Place) -> None:
    """Refuse a package for a GPU where earlier versions are served on processors, and the reverse.

    All versions of a model share one configuration, which an export leaves as it is.

    Raises:
        InvalidExport: They are served where this package cannot run.
    """
    if model not in repository.models():
        return
    config = repository.config(model)
    _settings.apply(config, settings)
    kinds = model_config_pb2.ModelInstanceGroup
    fit, unfit, other = ("KIND_GPU", "KIND_CPU", "cpu") if place.device == "cuda" else ("KIND_CPU", "KIND_GPU", "cuda")
    if any(group.kind == kinds.Kind.Value(unfit) for group in config.instance_group):
        raise InvalidExport(
            f"{model} is already published with instances of {unfit}, where a package compiled for {place.device} "
            f"cannot run; expected {fit}: export it under another name, or with --device {other}, or move all its "
            f"versions with --set instance_group.0.kind={fit}"
        )


def input_names(samples: Samples) -> dict[str, str]:
    """Return Triton's name of each input, in their order."""
    return {name: f"INPUT__{place}" for place, name in enumerate(samples.names)}


def output_names(answers: Sequence[Answer]) -> dict[str, str]:
    """Return Triton's name of each output, in their order."""
    return {name: f"OUTPUT__{place}" for place, name in enumerate(answers[0].outputs)}


def renamed(samples: Samples, answers: Sequence[Answer]) -> tuple[Samples, tuple[Answer, ...]]:
    """Return samples and answers as a server sees them: with Triton's names, and without a batch of its own."""
    inputs, outputs = input_names(samples), output_names(answers)
    served = Samples(
        rows=tuple(_keyed(row, inputs) for row in samples.rows),
        dynamic={inputs[name]: axes for name, axes in samples.dynamic.items()},
        batch=None,
        max_batch_size=0,
        generated=samples.generated,
    )
    return served, tuple(
        Answer(
            case=replace(answer.case, inputs=_keyed(answer.case.inputs, inputs)),
            outputs=_keyed(answer.outputs, outputs),
        )
        for answer in answers
    )


def configure(
    model: str,
    package: Package,
    samples: Samples,
    answers: Sequence[Answer],
    *,
    labels: Labels,
    wishes: Wishes,
    cuda_graph: bool = False,
) -> Configured:
    """Return the configuration; samples and answers are `renamed`, labels are by Triton's names.

    `cuda_graph` says whether the package's work on a GPU can be recorded, and was verified so.

    Raises:
        InvalidExport: A label or a setting does not fit.
    """
    config = model_config_pb2.ModelConfig(
        name=model, backend="pytorch", platform="torch_aoti", default_model_filename=package.path.name
    )
    shapes = declared(package, samples, answers)
    config.input.extend(_tensors.inputs(shapes, samples, answers))
    config.output.extend(_tensors.outputs(shapes, samples, answers))
    choices = (
        _on_gpu(config, package, wishes, cuda_graph=cuda_graph)
        if package.place.device == "cuda"
        else _on_cpu(config, package, wishes)
    )
    warmup = _warmup.add(config, samples, _warmup.rows(samples, answers), [1], package.path)
    name_labels(config, labels)
    _settings.apply(config, wishes.settings)
    return Configured(
        config=config,
        warmup=warmup,
        choices=(*choices, _explain_batching()),
        findings=tuple(_findings(package)),
        not_measured=_not_measured(package),
    )


def _on_cpu(config: Any, package: Package, wishes: Wishes) -> list[Choice]:
    instances = _instances.derive(package.latency, package.path.stat().st_size, wishes.cores)
    config.instance_group.add(count=instances.count, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    if instances.threads:
        config.parameters["INTRA_OP_THREAD_COUNT"].string_value = str(instances.threads)
    return [_instances.explain(instances)]


def _on_gpu(config: Any, package: Package, wishes: Wishes, *, cuda_graph: bool) -> list[Choice]:
    """Write the instances on each GPU, and what Naiad's backend does there."""
    memory_bytes = int(package.metadata["GPU_MEMORY_BYTES"])
    fits = _MOST_GPU_INSTANCES * package.path.stat().st_size <= memory_bytes * _GPU_MEMORY_SHARE
    count = _MOST_GPU_INSTANCES if fits else 1
    config.instance_group.add(count=count, kind=model_config_pb2.ModelInstanceGroup.KIND_GPU)
    threads = min(_THREADS_BESIDE_GPU, wishes.cores or _instances.this_machines_cores())
    config.parameters["INTRA_OP_THREAD_COUNT"].string_value = str(threads)
    config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value = "no"
    config.parameters["naiad.cuda_graph"].string_value = str(cuda_graph).lower()
    overlap = "one computes while the other handles its requests" if fits else "the weights take much of its memory"
    return [
        Choice(field="instance_group", value=f"{count} on each GPU", reason=overlap),
        Choice(field="cuda graph", value="on" if cuda_graph else "off", reason=_why(package, cuda_graph)),
    ]


def _why(package: Package, cuda_graph: bool) -> str:
    if cuda_graph:
        return "only the batch varies, and answers of the recorded work were verified"
    if package.recorded:
        return "the recorded work answers otherwise than the model"
    return f"the work cannot be recorded: {package.not_recorded}" if package.not_recorded else "other sizes vary, too"


def declared(package: Package, samples: Samples, answers: Sequence[Answer]) -> Graph:
    """Return the shapes of inputs and outputs, with a name for each dimension that varied between the cases."""
    feeds = answers[0].case.feeds()
    return Graph(
        path=package.path,
        inputs={
            name: tuple(samples.dynamic.get(name, {}).get(axis, size) for axis, size in enumerate(array.shape))
            for name, array in feeds.items()
        },
        outputs={name: _varying(name, answers) for name in answers[0].outputs},
        ranges=package.ranges,
        unused=(),
        opset=0,
        ir_version=0,
        exporter="aoti",
        versions=package.versions,
    )


def _varying(name: str, answers: Sequence[Answer]) -> tuple[int | str, ...]:
    shapes = [answer.outputs[name].shape for answer in answers]
    return tuple(
        size if all(shape[axis] == size for shape in shapes) else f"{name}_{axis}"
        for axis, size in enumerate(shapes[0])
    )


def _keyed(arrays: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {new: arrays[old] for old, new in names.items()}


def _explain_batching() -> Choice:
    reason = "Triton's pytorch backend cannot join the requests of a model.pt2; clients send whole batches"
    return Choice(field="max_batch_size", value="0", reason=reason)


def _findings(package: Package) -> list[Finding]:
    about = package.metadata
    processor = " ".join(filter(None, (about.get("AOTI_MACHINE"), about.get("AOTI_CPU_ISA"))))
    if package.place.device == "cuda":
        processor = f"{about['GPU']} (compute capability {about.get('AOTI_COMPUTE_CAPABILITY', 'unknown')})"
    message = (
        f"the package is machine code for {processor} and PyTorch {package.versions['torch']}: a server on another "
        f"processor, with another PyTorch, or a Triton before {FIRST_RELEASE} cannot load it"
    )
    limits = [
        f"the package is valid for {symbol} <= {high} only: a Python `if` or a constant limits it. `naiad serve` "
        "refuses more; NVIDIA's backend would answer wrongly"
        for symbol, high in largest(package).items()
    ]
    return [Finding(check="machine code", message=message), *(Finding(check="sizes", message=each) for each in limits)]


def largest(package: Package) -> dict[str, int]:
    """Return the upper ends of the sizes that the package is valid for, where there are any."""
    return {symbol: high for symbol, (_, high) in package.ranges.items() if high is not None}


def _not_measured(package: Package) -> tuple[str, ...]:
    precision = package.place.precision
    slower = (f"whether {precision} is faster than fp32: one package was compiled",) if precision != "fp32" else ()
    return (
        *slower,
        f"loading in NVIDIA's pytorch backend (Triton {FIRST_RELEASE} or later), whose PyTorch must read packages of "
        f"{package.versions['torch']}; the package was compared with PyTorch's answers in this machine's",
    )
