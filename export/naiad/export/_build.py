"""The steps from a module to a candidate: run in PyTorch → capture → check → verify → measure → configure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from tritonclient.grpc import model_config_pb2

from naiad.export import _provenance
from naiad.export._capture import capture as _capture
from naiad.export._check import check as _check
from naiad.export._configure import configure as _configure
from naiad.export._repository import golden as _golden
from naiad.export._runtime import measure as _measure
from naiad.export._source import reference as _reference
from naiad.export._source import samples as _samples
from naiad.export._verify import parity as _verify
from naiad.export.errors import InvalidExport
from naiad.export.report import Finding, Report, Tolerance
from naiad.export.repository import Candidate, Repository

OnStep = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What was asked for."""

    model: str
    samples: Sequence[Any]
    dynamic: _samples.Dynamic | None
    max_batch_size: int
    outputs: tuple[str, ...] | None
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None
    settings: Mapping[str, object]
    tolerance: Tolerance
    precision: str
    opset: int
    source: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Captured:
    """A graph with the answers it must give."""

    samples: _samples.Samples
    answers: tuple[_reference.Answer, ...]
    graph: _capture.Graph
    findings: tuple[Finding, ...]


def build(
    model: torch.nn.Module, order: Order, repository: Repository, stage: Path, on_step: OnStep
) -> tuple[Candidate, Report]:
    """Return a candidate that passed every check, with its files in `stage`, and what was measured on the way."""
    model = _unwrapped(model)
    captured = _capture_and_check(model, order, stage, on_step)
    report = _verify_and_measure(captured, order, on_step)
    on_step("configure")
    graph, samples, answers = captured.graph, captured.samples, captured.answers
    labels = _labels_by_output(order.labels, tuple(graph.outputs))
    config = _configure.configure(
        order.model, graph, samples, answers, latency=report.latency, labels=labels, settings=order.settings
    )
    _configure.write_labels(stage / "labels", config, labels)
    repository.check_contract(order.model, config, stage / "labels")
    _golden.write(graph.path.parent / _golden.FILE, samples, answers)
    candidate = Candidate(
        model=order.model,
        config=config,
        files=graph.path.parent,
        labels=stage / "labels",
        settings=order.settings,
        manifest=_manifest(model, order, captured, report, config),
    )
    return candidate, report


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return the module inside torch.compile() and the parallel wrappers, whose forward() has no names."""
    if type(model).__name__ == "OptimizedModule":
        return _unwrapped(cast(torch.nn.Module, model._orig_mod))
    if isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return _unwrapped(model.module)
    return model


def _capture_and_check(model: torch.nn.Module, order: Order, stage: Path, on_step: OnStep) -> _Captured:
    files = stage / "files"
    files.mkdir()
    samples = _samples.bind(model, order.samples, order.dynamic, order.max_batch_size)
    with _reference.evaluating(model) as trained:
        on_step("run in PyTorch")
        answers = _reference.answers(model, samples, order.outputs)
        _reference.check(model, answers, samples, order.tolerance)
        on_step("capture")
        names = tuple(answers[0].outputs)
        graph = _capture.capture(model, samples, names, opset=order.opset, directory=stage / "capture", target=files)
    on_step("check")
    findings = _check.check(graph, samples, answers, model=order.model, trained=trained)
    return _Captured(samples=samples, answers=answers, graph=graph, findings=findings)


def _verify_and_measure(captured: _Captured, order: Order, on_step: OnStep) -> Report:
    path, samples, answers = captured.graph.path, captured.samples, captured.answers
    on_step("verify")
    compared = _verify.verify(path, samples, answers, order.tolerance, model=order.model)
    _reference.check_rows(answers, samples, order.tolerance)
    on_step("measure")
    return Report(
        batches=samples.batches if samples.batch else (),
        num_cases=len(answers),
        parity=compared.parity,
        cases=compared.cases,
        tolerance=order.tolerance,
        latency=_measure.measure(path, samples, answers),
        findings=captured.findings,
        size_bytes=_capture.size_bytes(captured.graph),
    )


def _manifest(model: torch.nn.Module, order: Order, captured: _Captured, report: Report, config: Any) -> dict[str, Any]:
    graph = captured.graph
    return {
        "inputs": _tensors(config.input, graph.inputs),
        "outputs": _tensors(config.output, graph.outputs),
        "max_batch_size": order.max_batch_size,
        "precision": order.precision,
        "onnx": {"opset": graph.opset, "ir_version": graph.ir_version, "exporter": graph.exporter},
        "samples": {"num_samples": len(captured.samples.rows), "generated": False},
        "report": report.to_dict(),
        **_provenance.describe(model, graph, order.source),
    }


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
