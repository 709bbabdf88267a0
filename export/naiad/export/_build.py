"""The steps from a model to a candidate: run it → capture → check → verify → measure → configure."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from naiad.export import _hardware, _manifest
from naiad.export._capture import capture as _capture
from naiad.export._capture import graph as _graph
from naiad.export._check import check as _check
from naiad.export._check import summary as _summary
from naiad.export._configure import configure as _configure
from naiad.export._configure import engines as _engines
from naiad.export._configure import labels as _labels
from naiad.export._configure import published as _published
from naiad.export._configure import sequences as _sequences
from naiad.export._configure import warmup as _warmup
from naiad.export._order import Captured
from naiad.export._order import Order as Order
from naiad.export._precision import choose as _precision
from naiad.export._precision import served as _served
from naiad.export._repository import golden as _golden
from naiad.export._repository import space as _space
from naiad.export._runtime import measure as _measure
from naiad.export._runtime.place import Place
from naiad.export._source import reference as _reference
from naiad.export._source import size as _size
from naiad.export._source import subject as _subject
from naiad.export._verify import gate as _gate
from naiad.export._verify.parity import Comparison
from naiad.export.report import Finding, Report
from naiad.export.repository import Candidate, Repository

OnStep = Callable[[str], None]


def build(model: Any, order: Order, repository: Repository, stage: Path, on_step: OnStep) -> tuple[Candidate, Report]:
    """Return a candidate that passed every check, with its files in `stage`, and what was measured on the way."""
    subject = _subject.open_subject(model, order.outputs, trust_pickle=order.trust_pickle)
    candidates = order.precision != "fp32"
    _space.require(
        stage, _size.num_bytes(model), candidates=candidates, repository=repository.location, model=order.model
    )
    if order.accelerator == "aoti":
        from naiad.export._aoti import build as _aoti

        return _aoti.build(subject, order, partial(_labels.by_output, order.labels), repository, stage, on_step)
    captured = _capture_and_check(subject, order, stage, on_step)
    order.known.update(_manifest.known(captured, order))
    hardware = _hardware.find(captured, order, stage)
    captured, report = _verify_and_measure(captured, order, hardware, repository, stage, on_step)
    on_step("configure")
    configured, report = _configure_with(captured, order, hardware, report, repository, stage)
    graph, samples, answers = captured.graph, captured.samples, captured.answers
    golden = _sequences.first_steps(captured.subject, answers, order.states) if order.states else answers
    _golden.write(graph.path.parent / _golden.FILE, samples, golden)
    candidate = Candidate(
        model=order.model,
        config=configured.config,
        files=graph.path.parent,
        labels=stage / "labels",
        settings=order.settings,
        manifest=_manifest.manifest(order, captured, report, configured.config),
    )
    return candidate, report


def _configure_with(
    captured: Captured,
    order: Order,
    hardware: _hardware.Hardware,
    report: Report,
    repository: Repository,
    stage: Path,
) -> tuple[_configure.Configured, Report]:
    """Return the configuration, with the files it names in `stage`, and the report with what was chosen and found."""
    if _uses_tensorrt(order, repository):
        _mark(captured, order, hardware, repository, stage)
    tried = _hardware.try_out(captured, order, hardware, _setup(captured, order, repository).level)
    labels = _labels.by_output(order.labels, tuple(captured.graph.outputs))
    wishes = _configure.Wishes(
        settings=order.settings,
        cores=order.cores,
        accelerator=order.accelerator,
        states=order.states,
        precision=captured.precision,
        on_gpu=hardware.on_gpu,
        gpu_only=tried.gpu_only,
        lacking=hardware.lacking,
        cuda_graph=tried.cuda_graph,
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
    fitting = _get_along(
        repository, order, configured.config, captured.graph.path, hardware.place_of(captured.precision)
    )
    return configured, replace(
        report,
        findings=(*report.findings, *tried.findings, *configured.findings, *kept, *fitting),
        choices=configured.choices,
        not_measured=configured.not_measured,
    )


def _get_along(repository: Repository, order: Order, derived: Any, graph: Path, place: Place) -> tuple[Finding, ...]:
    """Check the graph against the configuration that an earlier version published, and say where that differs."""
    config = _published.check_warmup(repository, order.model, order.settings, graph, place)
    if config is None:
        return ()
    asked = order.cores is not None or order.accelerator != "cpu" or order.states
    return _published.kept(config, derived) if asked else ()


def _capture_and_check(subject: _subject.Subject, order: Order, stage: Path, on_step: OnStep) -> Captured:
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
    return Captured(
        subject=subject,
        samples=samples,
        answers=answers,
        graph=graph,
        findings=(*samples.notes, *subject.findings(), *findings),
        metric=metric,
        left_out=tuple(left_out),
    )


def _verify_and_measure(
    captured: Captured,
    order: Order,
    hardware: _hardware.Hardware,
    repository: Repository,
    stage: Path,
    on_step: OnStep,
) -> tuple[Captured, Report]:
    path, samples, answers = captured.graph.path, captured.samples, captured.answers
    setup = _setup(captured, order, repository)
    gate = _gate_of(captured, order, setup.level)
    on_step("verify")
    compared = gate.require(path, "fp32", stage / "trace")
    if hardware.on_gpu:
        on_step(f"verify with {hardware.place_of('fp32').name}")
        gate = replace(gate, place_of=hardware.place_of)
        compared = gate.require(path, "fp32", stage / "trace")
    _reference.check_rows(answers, samples, order.tolerances.of("fp32"))
    choice = _choose_precision(gate, compared, order, setup, stage, on_step)
    captured = replace(captured, graph=choice.graph, precision=choice.precision)
    place = hardware.place_of(choice.precision)
    on_step("measure")
    return captured, Report(
        batches=tuple(sorted({answer.case.sizes[samples.batch] for answer in answers})) if samples.batch else (),
        num_cases=len(answers),
        parity=choice.comparison.parity,
        cases=choice.comparison.cases,
        tolerance=order.tolerances.of(choice.precision),
        metric=choice.comparison.metric,
        left_out=captured.left_out,
        latency=_measure.measure(path, samples, answers, place=place),
        verified_on=place.name,
        timed_on=place.name if place.on_gpu else "one thread",
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


def _mark(captured: Captured, order: Order, hardware: _hardware.Hardware, repository: Repository, stage: Path) -> None:
    """Give this version's TensorRT engines names of their own; what is published is verified again."""
    path = captured.graph.path
    _engines.mark(path)
    gate = _gate_of(captured, order, _setup(captured, order, repository).level)
    gate = replace(gate, place_of=hardware.place_of)
    gate.require(path, captured.precision, stage / "marked")


def _setup(captured: Captured, order: Order, repository: Repository) -> _served.Served:
    """Return how the server will run the graph, by the configuration that earlier versions published."""
    published = repository.config(order.model) if order.model in repository.models() else None
    return _served.served(published, order.settings, captured.samples, captured.answers, order.cores)


def _gate_of(captured: Captured, order: Order, level: int) -> _gate.Gate:
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
        model=order.model,
        precision=order.precision,
        allow_slower=order.allow_slower,
        accelerator=order.accelerator,
        place_of=gate.place_of,
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
