"""The steps from a list of steps to candidates: run in Python → export each → wire → verify the chain."""

import json
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export import _provenance
from naiad.export._configure import settings as _settings
from naiad.export._pipeline import chain as _chain
from naiad.export._pipeline import configs as _configs
from naiad.export._pipeline import package as _package
from naiad.export._pipeline import reference as _reference
from naiad.export._pipeline import samples as _samples
from naiad.export._pipeline import shapes as _shapes
from naiad.export._pipeline.served.model import Arrays
from naiad.export._report import page as _page
from naiad.export._repository import config as _config
from naiad.export._repository import golden as _golden
from naiad.export._repository import manifest as _manifest
from naiad.export._source.module import ModuleSubject
from naiad.export._verify.metric import Metric
from naiad.export._verify.tolerances import Tolerances
from naiad.export.errors import InvalidExport, InvalidRecipe, VerificationFailed
from naiad.export.report import MetricResult, Report, Tolerance
from naiad.export.repository import Candidate, Repository, StepCandidate
from naiad.export.steps import Function, Model, Step

OnStep = Callable[[str], None]
ExportModel = Callable[..., Any]
"""`naiad.export.export`, which knows this module and not the other way round."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What was asked for."""

    pipeline: str
    steps: Sequence[Step]
    samples: Sequence[Any]
    outputs: tuple[str, ...] | None
    dynamic: _shapes.Dynamic
    max_batch_size: int
    settings: Mapping[str, object]
    tolerance: Tolerance | Mapping[str, Any] | None
    metric: Metric | None
    options: Mapping[str, Any]
    """For the export of every model among the steps."""
    source: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Built:
    """A step that is ready to be published, and how to run it here."""

    candidate: StepCandidate
    link: _chain.Link
    report: Report | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What the Python pipeline did, from which everything else is made."""

    order: Order
    stages: list[_reference.Stage]
    cases: list[_samples.Case]
    inputs: list[str]
    """The tensors that go into the pipeline."""
    outputs: tuple[str, ...]
    """Those that come out."""
    shapes: _shapes.Shapes


def build(
    order: Order, stage: Path, export: ExportModel, on_step: OnStep
) -> tuple[list[StepCandidate], Candidate, Report]:
    """Return candidates that passed every check, one by one and together, with their files in `stage`."""
    on_step("run in Python")
    run = _run(order)
    built = []
    for each in run.stages:
        place = stage / each.step.name
        _make_places(place)
        if isinstance(each.step, Function):
            on_step(f"{each.step.name}: package")
            built.append(_function(run, each, place))
        else:
            built.append(_model(run, each, place, export, on_step))
    on_step("verify the pipeline")
    report = _verified(run, built)
    whole = stage / "the-whole"  # no step can have this name
    _make_places(whole)
    return [step.candidate for step in built], _ensemble(run, report, whole), report


def _run(order: Order) -> _Run:
    stages = _reference.stages(order.pipeline, order.steps)
    cases = _reference.run(stages, _samples.cases(order.samples, order.max_batch_size))
    inputs, outputs = _ends(stages, cases[0], order)
    shapes = _shapes.shapes(stages, cases, order.dynamic)
    return _Run(order=order, stages=stages, cases=cases, inputs=inputs, outputs=outputs, shapes=shapes)


def _ends(stages: Sequence[_reference.Stage], case: _samples.Case, order: Order) -> tuple[list[str], tuple[str, ...]]:
    made = {tensor for stage in stages for tensor in stage.outputs.values()}
    taken = {tensor for stage in stages for tensor in stage.inputs.values()}
    inputs = [name for name in case.tensors if name not in made]
    unused = [name for name in inputs if name not in taken]
    if unused:
        raise InvalidExport(f"the samples have {unused[0]!r}, which no step of {order.pipeline} takes; leave it out")
    outputs = order.outputs or tuple(stages[-1].outputs.values())
    wrong = [name for name in outputs if name not in made]
    if wrong or len(set(outputs)) != len(outputs):
        raise InvalidRecipe(
            f"the outputs of {order.pipeline} are {list(outputs)}; expected distinct names among those that its steps "
            f"give: {', '.join(name for name in case.tensors if name in made)}"
        )
    for stage in stages:
        if not {*taken, *outputs} & set(stage.outputs.values()):
            given = ", ".join(stage.outputs.values())
            raise InvalidRecipe(f"{stage.label} gives {given}, which nothing uses; leave the step out")
    return inputs, outputs


def _function(run: _Run, each: _reference.Stage, place: Path) -> _Built:
    step = each.step
    assert isinstance(step, Function)
    files = place / "files"
    requirements = _package.package(run.order.pipeline, each, run.shapes, run.cases, files)
    config = _configs.of_function(each, run.shapes, run.order.max_batch_size)
    about = {"kind": "function", "requirements": list(requirements)}
    candidate = Candidate(
        model=each.model,
        config=config,
        files=files,
        labels=place / "labels",
        settings=step.settings,
        manifest=_described(config, run.order) | {"step": {"pipeline": run.order.pipeline, **about}},
    )
    return _Built(
        candidate=StepCandidate(step=step.name, candidate=candidate, about=about),
        link=_chain.Link(stage=each, files=files),
    )


def _model(run: _Run, each: _reference.Stage, place: Path, export: ExportModel, on_step: OnStep) -> _Built:
    """Export a model into a repository of its own, with every check that an export has, and take it from there."""
    step, order = each.step, run.order
    assert isinstance(step, Model)
    options = {**order.options, **step.options}
    version = export(
        step.model,
        each.model,
        samples=[each.takes(case.tensors) for case in run.cases if case.whole],
        repository=place / "repository",
        dynamic=_dynamic(run, each, step),
        max_batch_size=order.max_batch_size,
        outputs=None if isinstance(step.outputs, Mapping) else list(step.outputs) or None,
        source=order.source,
        on_step=lambda name: on_step(f"{step.name}: {name}"),
        **options,
    )
    config = Repository(place / "repository").config(each.model)
    if config.backend != "onnxruntime":
        raise InvalidExport(
            f"{each.label} was exported for the backend {config.backend!r}; a pipeline takes ONNX graphs only"
        )
    _configs.take_graph(each, config, run.shapes)
    manifest = _moved(version.path, place)
    about = {"kind": "model", "precision": manifest.get("precision", "")}
    candidate = Candidate(
        model=each.model,
        config=config,
        files=place / "files",
        labels=place / "labels",
        settings=options.get("settings") or {},
        manifest=manifest | {"step": {"pipeline": order.pipeline, **about}},
    )
    return _Built(
        candidate=StepCandidate(step=step.name, candidate=candidate, about=about),
        link=_chain.Link(stage=each, files=place / "files", level=config.optimization.graph.level),
        report=version.report,
    )


def _dynamic(run: _Run, each: _reference.Stage, step: Model) -> Any:
    """Return what varies in a model's inputs; None for a file, which says it itself."""
    if step.dynamic is not None:
        return step.dynamic
    return run.shapes.dynamic(each) if isinstance(each.subject, ModuleSubject) else None


def _moved(version: Path, place: Path) -> dict[str, Any]:
    """Move a version and what its model shares into a candidate's places, and return its manifest without the names."""
    (place / "files").rmdir()
    version.rename(place / "files")
    shared = shutil.ignore_patterns(_config.FILE)
    shutil.copytree(version.parent, place / "labels", ignore=shared, dirs_exist_ok=True)
    file = place / "files" / _manifest.FILE
    manifest = json.loads(file.read_text(encoding="utf-8"))
    for made_again in (file, file.parent / _page.FILE):  # with the number that it will have
        made_again.unlink(missing_ok=True)
    return {name: value for name, value in manifest.items() if name not in ("model", "version", "files", "contract")}


def _verified(run: _Run, built: Sequence[_Built]) -> Report:
    links = [step.link for step in built]
    tolerance = _tolerance(run, built)
    parity, compared = _chain.verify(links, run.cases, run.outputs, tolerance, pipeline=run.order.pipeline)
    return Report(
        batches=tuple(sorted({case.batch for case in run.cases if case.batch})),
        num_cases=len(run.cases),
        parity=parity,
        latency=(),
        findings=(),
        size_bytes=sum(path.stat().st_size for link in links for path in link.files.rglob("*")),
        cases=compared,
        tolerance=tolerance,
        metric=_measured(run, links, run.order.metric) if run.order.metric else None,
    )


def _tolerance(run: _Run, built: Sequence[_Built]) -> Tolerance:
    """Return what was asked for, or what the pipeline's models may differ by: together no more than the loosest."""
    models = [(step.report.tolerance, str(step.candidate.about["precision"])) for step in built if step.report]
    given = run.order.tolerance
    if given is not None:
        asked = Tolerances(given=given)
        found = [asked.of(precision) for _, precision in models] or [asked.of("fp32")]
    else:
        found = [tolerance for tolerance, _ in models] or [Tolerance()]
    return replace(
        found[0],
        rtol=max(tolerance.rtol for tolerance in found),
        atol=max(tolerance.atol for tolerance in found),
        cosine=min(tolerance.cosine for tolerance in found),
        outputs=found[0].outputs if given is not None else {},
    )


def _measured(run: _Run, links: Sequence[_chain.Link], metric: Metric) -> MetricResult:
    """Compare a task metric of the Python pipeline with that of the chain."""
    pipeline, size = run.order.pipeline, run.order.max_batch_size

    def in_python(inputs: Mapping[str, Any]) -> Arrays:
        cases = _reference.run(run.stages, _samples.chunks(inputs, size))
        return _samples.joined([case.tensors for case in cases], run.outputs)

    def in_chain(inputs: Mapping[str, Any]) -> Arrays:
        return _samples.joined(_chain.run(links, _samples.chunks(inputs, size), pipeline=pipeline), run.outputs)

    result = metric.compare(metric.measure(in_python), metric.measure(in_chain))
    if not result.passed:
        raise VerificationFailed(
            f"{result.name} of {pipeline} is {result.candidate:g} on the server's side and {result.pytorch:g} in "
            f"Python; {result.limit} was allowed: nothing was published",
            model=pipeline,
        )
    return result


def _ensemble(run: _Run, report: Report, place: Path) -> Candidate:
    order = run.order
    config = _configs.of_ensemble(order.pipeline, run.stages, run.shapes, run.inputs, run.outputs, order.max_batch_size)
    _settings.apply(config, order.settings)
    _golden.write_pairs(
        place / "files" / _golden.FILE,
        (
            ({name: case.tensors[name] for name in run.inputs}, {name: case.tensors[name] for name in run.outputs})
            for case in run.cases
        ),
    )
    return Candidate(
        model=order.pipeline,
        config=config,
        files=place / "files",
        labels=place / "labels",
        settings=order.settings,
        manifest=_described(config, order) | {"report": report.to_dict()},
    )


def _make_places(directory: Path) -> None:
    for name in ("files", "labels"):
        (directory / name).mkdir(parents=True)


def _described(config: Any, order: Order) -> dict[str, Any]:
    batch = ["batch"] if order.max_batch_size else []
    tensors = {
        kind: [{"name": tensor.name, "dtype": _datatype(tensor), "shape": [*batch, *tensor.dims]} for tensor in listed]
        for kind, listed in (("inputs", config.input), ("outputs", config.output))
    }
    made = _provenance.making(order.source, {"python": platform.python_version()})
    samples = {"num_samples": len(order.samples), "generated": False}
    return {**tensors, "max_batch_size": order.max_batch_size, "samples": samples, **made}


def _datatype(tensor: Any) -> str:
    return str(model_config_pb2.DataType.Name(tensor.data_type)).removeprefix("TYPE_")
