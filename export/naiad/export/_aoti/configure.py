"""The `config.pbtxt` of a `model.pt2`, by the rules of Triton's pytorch backend since 26.05.

Tensors have the names of their places in the package's call specification, `INPUT__0` and `OUTPUT__0`. The backend
gives every request of a batch the answer of the whole batch, so `max_batch_size` is 0: the batch is an ordinary
dimension, and clients send as many rows as they like. A package is made for one kind of processor: KIND_CPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export._aoti.package import Package
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

FIRST_RELEASE = "26.05"


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
    model: str, package: Package, samples: Samples, answers: Sequence[Answer], *, labels: Labels, wishes: Wishes
) -> Configured:
    """Return the configuration; samples and answers are `renamed`, labels are by Triton's names.

    Raises:
        InvalidExport: A label or a setting does not fit.
    """
    config = model_config_pb2.ModelConfig(
        name=model, backend="pytorch", platform="torch_aoti", default_model_filename=package.path.name
    )
    shapes = declared(package, samples, answers)
    config.input.extend(_tensors.inputs(shapes, samples, answers))
    config.output.extend(_tensors.outputs(shapes, samples, answers))
    instances = _instances.derive(package.latency, package.path.stat().st_size, wishes.cores)
    config.instance_group.add(count=instances.count, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    if instances.threads:
        config.parameters["INTRA_OP_THREAD_COUNT"].string_value = str(instances.threads)
    warmup = _warmup.add(config, samples, _warmup.rows(samples, answers), [1], package.path)
    name_labels(config, labels)
    _settings.apply(config, wishes.settings)
    return Configured(
        config=config,
        warmup=warmup,
        choices=(_instances.explain(instances), _explain_batching()),
        findings=tuple(_findings(package)),
        not_measured=_not_measured(package),
    )


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
    return (
        f"loading in NVIDIA's pytorch backend (Triton {FIRST_RELEASE} or later), whose PyTorch must read packages of "
        f"{package.versions['torch']}; the package was compared with PyTorch's answers in this machine's",
    )
