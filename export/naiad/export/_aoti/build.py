"""The steps from a model to a `model.pt2`: run it → compile → verify → configure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonclient.grpc import model_config_pb2

from naiad.export import _device, _provenance
from naiad.export._aoti import configure as _configure
from naiad.export._aoti import package as _package
from naiad.export._aoti import toolchain as _toolchain
from naiad.export._check import check as _check
from naiad.export._configure import labels as _labels
from naiad.export._configure import warmup as _warmup
from naiad.export._configure.configure import Configured, Wishes
from naiad.export._repository import golden as _golden
from naiad.export._source import reference as _reference
from naiad.export._source import subject as _subject
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples
from naiad.export._verify import parity as _verify
from naiad.export.errors import CheckFailed, InvalidExport
from naiad.export.report import Report, Tolerance
from naiad.export.repository import Candidate, Repository

if TYPE_CHECKING:
    from naiad.export._order import Order


def build(
    subject: _subject.Subject,
    order: "Order",
    labels: Callable[[tuple[str, ...]], dict[str, tuple[str, ...]]],
    repository: Repository,
    stage: Path,
    on_step: Callable[[str], None],
) -> tuple[Candidate, Report]:
    """Return a candidate whose package answers as the subject does; `labels` gives class names by output."""
    place = _check_order(order)
    _configure.refuse_other_instances(repository, order.model, order.settings, place)
    tolerance = order.tolerances.of(order.precision)
    samples, answers, package = _compile(subject, order, place, stage, on_step)
    _refuse_sizes(package, samples, answers, order.model)
    on_step("verify")
    compared = _verify.compare_answers(package.answers, samples, answers, tolerance, model=order.model)
    if compared.failure is not None:
        raise _verify.refusal(compared.failure, order.model, compared)
    recorded = verified_recordings(package, samples, answers, tolerance, order.model)
    on_step("configure")
    served, replies = _configure.renamed(samples, answers)
    names = _configure.output_names(answers)
    classes = {names.get(name, name): texts for name, texts in labels(tuple(names)).items()}
    configured = _configure.configure(
        order.model,
        package,
        served,
        replies,
        labels=classes,
        cuda_graph=recorded,
        wishes=Wishes(settings=order.settings, cores=order.cores, accelerator=order.accelerator),
    )
    configured = replace(configured, findings=(*subject.findings(), *configured.findings))
    report = _report(samples, answers, package, compared, configured, tolerance)
    shared = stage / "labels"
    _labels.write_labels(shared, configured.config, classes)
    _warmup.write(shared, configured.warmup)
    repository.check_contract(order.model, configured.config, shared)
    _golden.write(package.path.parent / _golden.FILE, served, replies)
    manifest = _manifest(subject, order, package, samples, answers, configured, report)
    return Candidate(
        model=order.model,
        config=configured.config,
        files=package.path.parent,
        labels=shared,
        settings=order.settings,
        manifest=manifest,
    ), report


def _check_order(order: "Order") -> _package.Place:
    """Return where to compile; refuse what cannot be, before any work."""
    if order.precision not in _package.PRECISIONS:
        raise InvalidExport(
            f"the accelerator aoti compiles in {', '.join(_package.PRECISIONS)}; found precision={order.precision!r}: "
            "choose one of them, or leave it out"
        )
    if order.states:
        raise InvalidExport("Triton's pytorch backend keeps no states of a model.pt2; leave states out")
    _configure.refuse_batching(order.settings)
    device = require_device(order.device)
    _package.require_compiler()
    return _package.Place(device=device, precision=order.precision)


def require_device(device: str) -> str:
    """Return "cpu" or "cuda", for what was asked for.

    Raises:
        InvalidExport: This machine has no GPU that can be used though one was asked for, or cannot compile for its own.
    """
    found = _device.resolve(device, "aoti", _toolchain.lacks_gpu)
    missing = _toolchain.lacks_tools() if found == "cuda" else ""
    if missing:
        raise InvalidExport(f"the model cannot be compiled for the GPU: {missing}, or choose --device cpu")
    return found


def _compile(
    subject: _subject.Subject,
    order: "Order",
    place: _package.Place,
    stage: Path,
    on_step: Callable[[str], None],
) -> tuple[Samples, tuple[Answer, ...], _package.Package]:
    files = stage / "files"
    files.mkdir()
    samples = _subject.bind(subject, order.samples, order.dynamic, order.max_batch_size)
    with subject.evaluating():
        on_step(f"run in {subject.reference}")
        answers = _reference.answers(subject, samples)
        _reference.check(subject, answers, samples, order.tolerances.of("fp32"))
        on_step("compile")
        package = _package.make(subject, samples, answers, place=place, directory=stage / "capture", target=files)
    return samples, answers, package


def verified_recordings(
    package: _package.Package, samples: Samples, answers: Sequence[Answer], tolerance: Tolerance, model: str
) -> bool:
    """Whether CUDA graphs of the package answer as the subject does, too."""
    if not package.recorded:
        return False
    return _verify.compare_answers(package.recorded, samples, answers, tolerance, model=model).passed


def _refuse_sizes(package: _package.Package, samples: Samples, answers: Sequence[Answer], model: str) -> None:
    errors = _check.outside(_configure.declared(package, samples, answers), samples)
    if errors:
        raise CheckFailed(f"{model} cannot be published: {'; '.join(errors)}", model=model, findings=tuple(errors))


def _report(
    samples: Samples,
    answers: Sequence[Answer],
    package: _package.Package,
    compared: _verify.Comparison,
    configured: Configured,
    tolerance: Tolerance,
) -> Report:
    gpu = package.metadata.get("GPU", "")
    place = f"PyTorch's compiled package on {gpu}" if gpu else ""
    return Report(
        verified_on=place,
        timed_on=place,
        batches=samples.batches if samples.batch else (),
        num_cases=len(answers),
        parity=compared.parity,
        cases=compared.cases,
        tolerance=tolerance,
        latency=package.latency,
        findings=configured.findings,
        size_bytes=package.path.stat().st_size,
        choices=configured.choices,
        not_measured=configured.not_measured,
    )


def _manifest(
    subject: _subject.Subject,
    order: "Order",
    package: _package.Package,
    samples: Samples,
    answers: Sequence[Answer],
    configured: Configured,
    report: Report,
) -> dict[str, Any]:
    served, replies = _configure.renamed(samples, answers)
    shapes = _configure.declared(package, served, replies)
    return {
        "inputs": _tensors(configured.config.input, shapes.inputs, _configure.input_names(samples)),
        "outputs": _tensors(configured.config.output, shapes.outputs, _configure.output_names(answers)),
        "max_batch_size": 0,
        "precision": order.precision,
        "package": package.metadata,
        "largest_sizes": _configure.largest(package),
        "samples": {"num_samples": len(samples.rows), "generated": samples.generated},
        "not_measured": list(report.not_measured),
        "report": report.to_dict(),
        **_provenance.making({**subject.describe(), **order.source}, package.versions),
    }


def _tensors(
    configured: Any, declared: Mapping[str, tuple[int | str, ...]], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    own = {triton: name for name, triton in names.items()}
    return [
        {
            "name": tensor.name,
            "argument": own[tensor.name],
            "dtype": model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_"),
            "shape": list(declared[tensor.name]),
        }
        for tensor in configured
    ]
