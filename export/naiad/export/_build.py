"""The steps from a model to a candidate: run it → capture → check → verify → measure → configure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export import _provenance
from naiad.export._capture import capture as _capture
from naiad.export._capture import graph as _graph
from naiad.export._check import check as _check
from naiad.export._check import summary as _summary
from naiad.export._check.targets import Target, find_target
from naiad.export._configure import configure as _configure
from naiad.export._configure import engines as _engines
from naiad.export._configure import labels as _labels
from naiad.export._configure import published as _published
from naiad.export._configure import sequences as _sequences
from naiad.export._configure import settings as _settings
from naiad.export._configure import warmup as _warmup
from naiad.export._precision import choose as _precision
from naiad.export._precision import served as _served
from naiad.export._repository import golden as _golden
from naiad.export._repository import space as _space
from naiad.export._runtime import measure as _measure
from naiad.export._source import reference as _reference
from naiad.export._source import samples as _samples
from naiad.export._source import size as _size
from naiad.export._source import subject as _subject
from naiad.export._source.datatypes import triton_name
from naiad.export._verify import gate as _gate
from naiad.export._verify.metric import Metric
from naiad.export._verify.parity import Comparison
from naiad.export._verify.tolerances import Tolerances
from naiad.export.errors import InvalidExport
from naiad.export.inputs import Input
from naiad.export.report import Finding, Report
from naiad.export.repository import Candidate, Repository

OnStep = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What was asked for."""

    model: str
    samples: Sequence[Any] | None
    dynamic: _samples.Dynamic | None
    max_batch_size: int | None
    outputs: tuple[str, ...] | None
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None
    settings: Mapping[str, object]
    tolerances: Tolerances
    precision: str
    opset: int
    target: Target = field(default_factory=find_target)
    allow_slower: bool = False
    exporter: str = "auto"
    inputs: Mapping[str, Input] = field(default_factory=dict)
    trust_pickle: bool = False
    source: Mapping[str, object] = field(default_factory=dict)
    cores: int | None = None
    accelerator: str = "cpu"
    states: Mapping[str, str] = field(default_factory=dict)
    metric: Metric | None = None
    known: dict[str, Any] = field(default_factory=dict)
    """What is known so far, as in the manifest: for the page of an export that is refused later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Captured:
    """A graph with the answers it must give."""

    subject: _subject.Subject
    samples: _samples.Samples
    answers: tuple[_reference.Answer, ...]
    graph: _graph.Graph
    findings: tuple[Finding, ...]
    precision: str = "fp32"
    metric: float = 0.0
    """The task metric of the subject itself, where one was asked for."""
    left_out: tuple[str, ...] = ()
    """What was not compared, to stay within time and memory."""


def build(model: Any, order: Order, repository: Repository, stage: Path, on_step: OnStep) -> tuple[Candidate, Report]:
    """Return a candidate that passed every check, with its files in `stage`, and what was measured on the way."""
    subject = _subject.open_subject(model, order.outputs, trust_pickle=order.trust_pickle)
    candidates = order.precision != "fp32"
    _space.require(
        stage, _size.num_bytes(model), candidates=candidates, repository=repository.location, model=order.model
    )
    if order.accelerator == "aoti":
        from naiad.export._aoti import build as _aoti

        return _aoti.build(subject, order, partial(_labels_by_output, order.labels), repository, stage, on_step)
    captured = _capture_and_check(subject, order, stage, on_step)
    order.known.update(_known(captured, order))
    captured, report = _verify_and_measure(captured, order, repository, stage, on_step)
    on_step("configure")
    configured, report = _configure_with(captured, order, report, repository, stage)
    graph, samples, answers = captured.graph, captured.samples, captured.answers
    golden = _sequences.first_steps(captured.subject, answers, order.states) if order.states else answers
    _golden.write(graph.path.parent / _golden.FILE, samples, golden)
    candidate = Candidate(
        model=order.model,
        config=configured.config,
        files=graph.path.parent,
        labels=stage / "labels",
        settings=order.settings,
        manifest=_manifest(order, captured, report, configured.config),
    )
    return candidate, report


def _configure_with(
    captured: _Captured, order: Order, report: Report, repository: Repository, stage: Path
) -> tuple[_configure.Configured, Report]:
    """Return the configuration, with the files it names in `stage`, and the report with what was chosen and found."""
    if _uses_tensorrt(order, repository):
        _mark(captured, order, repository, stage)
    labels = _labels_by_output(order.labels, tuple(captured.graph.outputs))
    wishes = _configure.Wishes(
        settings=order.settings,
        cores=order.cores,
        accelerator=order.accelerator,
        states=order.states,
        precision=captured.precision,
    )
    configured = _configure.configure(
        order.model,
        captured.graph,
        captured.samples,
        captured.answers,
        latency=report.latency,
        size_bytes=report.size_bytes,
        labels=labels,
        wishes=wishes,
    )
    shared = stage / "labels"
    _labels.write_labels(shared, configured.config, labels)
    _warmup.write(shared, configured.warmup)
    kept = repository.check_contract(order.model, configured.config, shared)
    fitting = _get_along(repository, order, configured.config, captured.graph.path)
    return configured, replace(
        report,
        findings=(*report.findings, *configured.findings, *kept, *fitting),
        choices=configured.choices,
        not_measured=configured.not_measured,
    )


def _get_along(repository: Repository, order: Order, derived: Any, graph: Path) -> tuple[Finding, ...]:
    """Check the graph against the configuration that an earlier version published, and say where that differs."""
    if order.model not in repository.models():
        return ()
    config = repository.config(order.model)
    _settings.apply(config, order.settings)
    _published.check_warmup(config, lambda name: repository.warmup_data(order.model, name), graph)
    asked = order.cores is not None or order.accelerator != "cpu" or order.states
    return _published.kept(config, derived) if asked else ()


def _capture_and_check(subject: _subject.Subject, order: Order, stage: Path, on_step: OnStep) -> _Captured:
    files = stage / "files"
    files.mkdir()
    samples = _subject.bind(subject, order.samples, order.dynamic, order.max_batch_size, order.inputs)
    with subject.evaluating() as trained:
        on_step(f"run in {subject.reference}")
        left_out: list[str] = []
        answers = _reference.answers(subject, samples, left_out=left_out)
        order.tolerances.check_outputs(answers[0].outputs)
        _reference.check(subject, answers, samples, order.tolerances.of("fp32"))
        _sequences.require(order.states, answers[0])
        metric = _gate.metric_of(subject, samples, order.metric) if order.metric else 0.0
        on_step("capture")
        graph = _capture.capture(
            subject,
            samples,
            answers,
            opset=order.opset,
            exporter=order.exporter,
            release=order.target,
            directory=stage / "capture",
            target=files,
        )
    on_step("check")
    findings = _check.check(graph, samples, answers, model=order.model, trained=trained, target=order.target)
    return _Captured(
        subject=subject,
        samples=samples,
        answers=answers,
        graph=graph,
        findings=(*samples.notes, *subject.findings(), *findings),
        metric=metric,
        left_out=tuple(left_out),
    )


def _verify_and_measure(
    captured: _Captured, order: Order, repository: Repository, stage: Path, on_step: OnStep
) -> tuple[_Captured, Report]:
    path, samples, answers = captured.graph.path, captured.samples, captured.answers
    setup = _setup(captured, order, repository)
    gate = _gate_of(captured, order, setup.level)
    on_step("verify")
    compared = gate.require(path, "fp32", stage / "trace")
    _reference.check_rows(answers, samples, order.tolerances.of("fp32"))
    choice = _choose_precision(gate, compared, order, setup, stage, on_step)
    captured = replace(captured, graph=choice.graph, precision=choice.precision)
    on_step("measure")
    return captured, Report(
        batches=tuple(sorted({answer.case.sizes[samples.batch] for answer in answers})) if samples.batch else (),
        num_cases=len(answers),
        parity=choice.comparison.parity,
        cases=choice.comparison.cases,
        tolerance=order.tolerances.of(choice.precision),
        metric=choice.comparison.metric,
        left_out=captured.left_out,
        latency=_measure.measure(path, samples, answers),
        findings=(*captured.findings, *choice.comparison.findings(), *choice.findings),
        size_bytes=_graph.size_bytes(captured.graph),
        precision=choice.results,
        graph=_summary.summarise(captured.graph),
    )


def _uses_tensorrt(order: Order, repository: Repository) -> bool:
    """Whether the model is to be served with TensorRT, by this export or by the configuration of earlier versions."""
    if order.accelerator == "tensorrt" or "tensorrt" in str(order.settings):
        return True
    if order.model not in repository.models():
        return False
    chosen = repository.config(order.model).optimization.execution_accelerators.gpu_execution_accelerator
    return any(accelerator.name == "tensorrt" for accelerator in chosen)


def _mark(captured: _Captured, order: Order, repository: Repository, stage: Path) -> None:
    """Give this version's TensorRT engines names of their own; what is published is verified again."""
    path = captured.graph.path
    _engines.mark(path)
    gate = _gate_of(captured, order, _setup(captured, order, repository).level)
    gate.require(path, captured.precision, stage / "marked")


def _setup(captured: _Captured, order: Order, repository: Repository) -> _served.Served:
    """Return how the server will run the graph, by the configuration that earlier versions published."""
    published = repository.config(order.model) if order.model in repository.models() else None
    return _served.served(published, order.settings, captured.samples, captured.answers, order.cores)


def _gate_of(captured: _Captured, order: Order, level: int) -> _gate.Gate:
    return _gate.Gate(
        model=order.model,
        subject=captured.subject,
        graph=captured.graph,
        samples=captured.samples,
        answers=captured.answers,
        tolerances=order.tolerances,
        level=level,
        metric=order.metric,
        expected_metric=captured.metric,
        explains=order.precision not in ("fp32", "auto"),
    )


def _choose_precision(
    gate: _gate.Gate, baseline: Comparison, order: Order, setup: _served.Served, stage: Path, on_step: OnStep
) -> _precision.Choice:
    asked = _precision.Asked(
        model=order.model, precision=order.precision, allow_slower=order.allow_slower, accelerator=order.accelerator
    )
    return _precision.choose(
        gate.graph,
        baseline,
        gate.samples,
        asked,
        check=gate.check,
        served=setup,
        directory=stage / "precision",
        on_step=on_step,
    )


def _known(captured: _Captured, order: Order) -> dict[str, Any]:
    """Return what the manifest would say, before there is a configuration."""
    answer, graph = captured.answers[0], captured.graph
    pairs = (("inputs", answer.case.inputs, graph.inputs), ("outputs", answer.outputs, graph.outputs))
    tensors = {
        kind: [
            {"name": name, "dtype": triton_name(array.dtype), "shape": list(shapes.get(name) or array.shape)}
            for name, array in arrays.items()
        ]
        for kind, arrays, shapes in pairs
    }
    return {
        **tensors,
        "max_batch_size": captured.samples.max_batch_size,
        "onnx": _onnx(graph),
        "samples": {"num_samples": len(captured.samples.rows), "generated": captured.samples.generated},
        **_provenance.describe(captured.subject, graph, order.source),
    }


def _manifest(order: Order, captured: _Captured, report: Report, config: Any) -> dict[str, Any]:
    graph = captured.graph
    return {
        "inputs": _tensors(config.input, graph.inputs),
        "outputs": _tensors(config.output, graph.outputs),
        "max_batch_size": captured.samples.max_batch_size,
        "precision": captured.precision,
        "onnx": _onnx(graph),
        "samples": {"num_samples": len(captured.samples.rows), "generated": captured.samples.generated},
        "not_measured": list(report.not_measured),
        "report": report.to_dict(),
        **_provenance.describe(captured.subject, graph, order.source),
    }


def _onnx(graph: _graph.Graph) -> dict[str, Any]:
    reason = {"reason": graph.reason} if graph.reason else {}
    return {"opset": graph.opset, "ir_version": graph.ir_version, "exporter": graph.exporter, **reason}


def _tensors(configured: Any, declared: Mapping[str, tuple[int | str, ...]]) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor.name,
            "dtype": model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_"),
            "shape": list(declared[tensor.name]),
        }
        for tensor in configured
    ]


def _labels_by_output(
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None, outputs: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    if labels is None:
        return {}
    if isinstance(labels, Mapping):
        return {name: tuple(map(str, names)) for name, names in labels.items()}
    if len(outputs) != 1:
        raise InvalidExport(
            f"the model has the outputs {list(outputs)}; give labels by output, as in {{'probs': [...]}}"
        )
    return {outputs[0]: tuple(map(str, labels))}
