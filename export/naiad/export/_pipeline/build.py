"""The steps from a list of steps to candidates: run in Python → export each → wire → verify the chain."""

import json
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export import _provenance
from naiad.export._configure import places as _places
from naiad.export._configure import settings as _settings
from naiad.export._pipeline import chain as _chain
from naiad.export._pipeline import configs as _configs
from naiad.export._pipeline import package as _package
from naiad.export._pipeline import reference as _reference
from naiad.export._pipeline import verify as _verify
from naiad.export._pipeline.run import Order as Order
from naiad.export._pipeline.run import Run
from naiad.export._pipeline.run import run as run_in_python
from naiad.export._report import page as _page
from naiad.export._repository import config as _config
from naiad.export._repository import golden as _golden
from naiad.export._repository import manifest as _manifest
from naiad.export._runtime.place import CPU, Place
from naiad.export._source.module import ModuleSubject
from naiad.export.errors import InvalidExport
from naiad.export.report import Report
from naiad.export.repository import Candidate, Repository, StepCandidate
from naiad.export.steps import Function, Model, Script

OnStep = Callable[[str], None]
ExportModel = Callable[..., Any]
"""`naiad.export.export`, which knows this module and not the other way round."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Built:
    """A step that is ready to be published, and how to run it here."""

    candidate: StepCandidate
    link: _chain.Link
    report: Report | None = None


def build(
    order: Order, stage: Path, export: ExportModel, on_step: OnStep
) -> tuple[list[StepCandidate], Candidate, Report]:
    """Return candidates that passed every check, one by one and together, with their files in `stage`."""
    on_step("run in Python")
    run = run_in_python(order)
    called = {of.stages[0].step.name: _step(of, of.stages[0], stage, export, on_step, {}) for of in run.called}
    built = [_step(run, each, stage, export, on_step, called) for each in run.stages]
    _configs.keep_on_gpu([(step.link.stage, step.candidate.candidate.config) for step in built])
    on_step("verify the pipeline")
    every = [*called.values(), *built]
    models = [(step.report.tolerance, str(step.candidate.about["precision"])) for step in every if step.report]
    for of in run.called:
        _verify.verify_called(of, called[of.stages[0].step.name].link, models)
    report = _verify.verify(run, [step.link for step in built], models)
    whole = stage / "the-whole"  # no step can have this name
    _make_places(whole)
    return [step.candidate for step in every], _ensemble(run, report, whole), report


def _step(
    run: Run, each: _reference.Stage, stage: Path, export: ExportModel, on_step: OnStep, called: Mapping[str, _Built]
) -> _Built:
    place = stage / each.step.name
    _make_places(place)
    if not isinstance(each.step, Function):
        return _model(run, each, place, export, on_step)
    on_step(f"{each.step.name}: package")
    return _function(run, each, place, {name: called[name] for name in each.calls})


def _function(run: Run, each: _reference.Stage, place: Path, called: Mapping[str, _Built]) -> _Built:
    step = each.step
    assert isinstance(step, Function)
    files = place / "files"
    calls = {name: _call(step, built, run.order.max_batch_size) for name, built in called.items()}
    requirements = _package.package(run.order.pipeline, each, run.shapes, run.cases, files, calls)
    config = _configs.of_function(each, run.shapes, run.order.max_batch_size)
    about = {"kind": "script" if calls else "function", "requirements": list(requirements)}
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
        link=_chain.Link(stage=each, files=files, called={name: built.link for name, built in called.items()}),
    )


def _call(step: Function, called: _Built, max_batch_size: int) -> dict[str, Any]:
    """Return what a script has to know of a step that it calls; the version is known when it is published."""
    assert isinstance(step, Script)
    config = called.candidate.candidate.config
    return {
        "model": called.link.stage.model,
        "version": 0,
        "optional": called.candidate.step in step.optional,
        "inputs": {tensor.name: _datatype(tensor) for tensor in config.input},
        "outputs": [tensor.name for tensor in config.output],
        # Triton has no empty dims: these are [batch, 1] on the way.
        "flat_inputs": [tensor.name for tensor in config.input if _is_flat(tensor)],
        "flat_outputs": [tensor.name for tensor in config.output if _is_flat(tensor)],
        "max_batch_size": max_batch_size,
    }


def _is_flat(tensor: Any) -> bool:
    return bool(tensor.HasField("reshape") and not tensor.reshape.shape)


def _model(run: Run, each: _reference.Stage, place: Path, export: ExportModel, on_step: OnStep) -> _Built:
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
    assert version.report is not None
    link = _chain.Link(
        stage=each,
        files=place / "files",
        level=config.optimization.graph.level,
        place=_place(config, version.report, place / "engines"),
    )
    return _Built(
        candidate=StepCandidate(step=step.name, candidate=candidate, about=about), link=link, report=version.report
    )


def _place(config: Any, report: Report, engines: Path) -> Place:
    """Return where a model of the chain is run: on the GPU that it was verified on, or on the CPU."""
    if report.verified_on in ("", CPU.name):
        return CPU
    return _places.of_config(config, report.verified_on, engines)


def _dynamic(run: Run, each: _reference.Stage, step: Model) -> Any:
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


def _ensemble(run: Run, report: Report, place: Path) -> Candidate:
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
