"""The whole way of one model: capture → check → verify → measure → configure → publish → promote."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from naiad.export import _device
from naiad.export._check.targets import EXPORT_OPSETS, FEATURES, Target, find_target
from naiad.export._configure import settings as _settings
from naiad.export._lint import staged as _staged
from naiad.export._precision.conversion import PRECISIONS
from naiad.export._report import writing as _writing
from naiad.export._verify.metric import Metric
from naiad.export._verify.tolerances import Tolerances, merged
from naiad.export.errors import InvalidExport
from naiad.export.inputs import Input
from naiad.export.recipe import Recipe
from naiad.export.report import Tolerance, Version
from naiad.export.repository import Repository, check_name

if TYPE_CHECKING:
    import torch

Dynamic = Mapping[str, Mapping[int, str]]
OnStep = Callable[[str], None]
"""Called with the name of each step as it begins."""

EXPORTERS = ("auto", "dynamo", "legacy")
ACCELERATORS = ("cpu", "cuda", "tensorrt", "aoti")


def export(
    model: "torch.nn.Module | torch.export.ExportedProgram | str | os.PathLike[str]",
    name: str,
    *,
    samples: Sequence[Any] | str | os.PathLike[str] | None = None,
    inputs: Mapping[str, Input] | None = None,
    repository: str | os.PathLike[str] | Repository,
    dynamic: Dynamic | None = None,
    max_batch_size: int | None = None,
    precision: str = "fp32",
    allow_slower: bool = False,
    outputs: Sequence[str] | None = None,
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    settings: Mapping[str, object] | None = None,
    tolerance: Tolerance | Mapping[str, Any] | None = None,
    metric: Metric | None = None,
    opset: int | None = None,
    target: str | Target | None = None,
    exporter: str = "auto",
    trust_pickle: bool = False,
    accelerator: str = "cpu",
    device: str = "auto",
    cores: int | None = None,
    states: Mapping[str, str] | None = None,
    promote: bool = True,
    source: Mapping[str, object] | None = None,
    on_step: OnStep | None = None,
    report: str | os.PathLike[str] | None = None,
) -> Version:
    """Publish a model as the next version of `name`, if ONNX Runtime answers as the model itself does.

    Args:
        model: Any module; it is exported in eval mode and left as it was. Or an ExportedProgram, or the path of a
            `.pt2`, `.onnx` or TorchScript (`.pt`) file.
        name: The model's name in the repository.
        samples: Real inputs, a list of tuples or of dicts by the names of `forward`; tensors or arrays. With
            `max_batch_size > 0` their first dimension is the batch; more rows make a better check. Or an `.npz` file of
            arrays by input name. By default they are made up, from `inputs` and what the model itself declares.
        inputs: What the inputs are, where samples must be made up: `{"ids": Input(dtype="int64", shape=["batch", 8])}`.
        repository: A Repository or its path; created where it is missing.
        dynamic: The dimensions that vary, by input: `{"x": {0: "batch", 1: "length"}}`. By default the batch.
        max_batch_size: The largest batch the server may form; 0 for a model without a batch dimension. By default 64,
            or 0 where a file fixes its first dimension.
        precision: "fp32" keeps the model's own types. "fp16", "bf16", "int8" (or "int8-dynamic", "int8-static") and
            "int4" publish the fastest of their candidates, if it is verified and faster; "auto" the fastest of all.
        allow_slower: Publish a precision that was named, although it is not faster: for its size.
        outputs: Names of the outputs, in order. By default dict keys or field names, else `output` or `output_0`, …
        labels: Class names of the only output, or by output.
        settings: Fields of `config.pbtxt` by dotted name. They apply to an existing model when it is promoted.
        tolerance: How far ONNX Runtime may be from PyTorch: a Tolerance for every precision, or a dict of what differs
            from the defaults, as in `{"atol": 1e-3, "outputs": {"probs": {"cosine": 0.99}}, "int8": {"atol": 0.2}}`.
        metric: What the model is for, and how much worse the published file may be at it.
        opset: Of the ONNX graph, 18 to 23; by default 20, or less where the target does not read it.
        target: The Triton release that is to serve it, such as "26.07", which is the default.
        exporter: "dynamo", "legacy" (TorchScript), or "auto": dynamo, and legacy where it cannot read the model.
        trust_pickle: Unpickle whatever a model file asks for, which runs code of its author.
        accelerator: "cpu", or "cuda" or "tensorrt" for servers with a GPU; such an entry is served on a CPU too. "aoti"
            compiles a `model.pt2` for this machine's processor or GPU instead of a graph.
        device: Where it is compiled, verified and timed: "cpu", "cuda", or "auto", which is the GPU if the accelerator
            is for one and this machine has one that can be used.
        cores: Of the machine that will serve, for instances and threads; by default as many as here.
        states: Outputs by the inputs that they become in a sequence's next request, as in `{"h": "h_out"}`: Triton
            keeps them, and clients send neither.
        promote: Serve the new version, and only it. The first version of a model is always served.
        source: More provenance for the manifest.
        on_step: Called with the name of each step as it begins.
        report: A file for the page `export-report.html`, which every version has; also when nothing is published.

    Raises:
        InvalidExport: An argument, a sample or a setting does not fit the model.
        CaptureFailed: PyTorch cannot export the model.
        CheckFailed: The graph would be wrong, or refused, at a size it would be served at.
        VerificationFailed: ONNX Runtime and PyTorch disagree.
        PrecisionRefused: No candidate of the precision that was named passes, or is faster.
        ContractChanged: The model is already published with other inputs or outputs.
        NotWritable: The repository cannot be written to.
        OutOfSpace: The disk is full.

    After any of them, and after an interrupt, the repository is as it was.
    """
    release = find_target(target)
    _check_arguments(precision, opset, release, settings or {}, accelerator)
    _check_device(device, accelerator)
    _check_exporter(exporter)
    place = _writing.check_place(report)
    from naiad.export import _build  # loads torch

    order = _build.Order(
        model=check_name(name),
        samples=_loaded(samples),
        dynamic=dynamic,
        max_batch_size=max_batch_size,
        outputs=None if outputs is None else tuple(outputs),
        labels=labels,
        settings=settings or {},
        tolerances=Tolerances(given=tolerance),
        metric=metric,
        precision=precision,
        allow_slower=allow_slower,
        opset=opset or release.default_opset,
        target=release,
        exporter=exporter,
        inputs=inputs or {},
        trust_pickle=trust_pickle,
        source=source or {},
        accelerator=accelerator,
        device=device,
        cores=cores,
        states=states or {},
        known={"model": name, "precision": precision},
    )
    repo = repository if isinstance(repository, Repository) else Repository(repository)
    with _writing.on_refusal(place, order.known), repo.stage() as stage:
        candidate, found = _build.build(model, order, repo, stage, on_step or _ignore)
        candidate, found = _staged.check(candidate, found, repo, stage, release)
        (on_step or _ignore)("publish")
        version = repo.publish(candidate, promote=promote)
    if place is not None:
        _writing.write(place, repo.report_page(version.model, version.number))
    return replace(version, report=found)


def export_recipe(
    recipe: Recipe,
    *,
    repository: str | os.PathLike[str] | Repository,
    options: Mapping[str, object] | None = None,
    model: Any = None,
    samples: Sequence[Any] | str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    trust_pickle: bool = False,
    name: str | None = None,
    max_batch_size: int | None = None,
    precision: str = "fp32",
    allow_slower: bool = False,
    settings: Mapping[str, object] | None = None,
    tolerance: Tolerance | Mapping[str, Any] | None = None,
    metric: str | None = None,
    max_drop: str | float | None = None,
    max_rise: str | float | None = None,
    opset: int | None = None,
    target: str | Target | None = None,
    exporter: str = "auto",
    accelerator: str = "cpu",
    device: str = "auto",
    cores: int | None = None,
    promote: bool = True,
    on_step: OnStep | None = None,
    report: str | os.PathLike[str] | None = None,
) -> Version:
    """Build a recipe's model with `options` and export it; arguments override the recipe's own constants.

    A `model` that the recipe built before, with these options, is exported as it is. `metric` is the name of one that
    the recipe's `evaluate` gives; `max_drop` and `max_rise` are those of `Metric`. The weights of a `checkpoint` go
    into the model that was built, see `load_checkpoint`; `samples` go before the recipe's own.

    Raises:
        RecipeError: The recipe's code raised, or does not follow the protocol.
        ExportError: As `export`.
    """
    repo = repository if isinstance(repository, Repository) else Repository(repository)
    model_name = check_name(name or recipe.name)
    settings = recipe.constant("SETTINGS", {}) | dict(settings or {})
    tolerance = tolerance if isinstance(tolerance, Tolerance) else merged(recipe.tolerances(), tolerance or {})
    task = _recipe_metric(recipe, metric, max_drop, max_rise)
    place = _writing.check_place(report)
    Tolerances(given=tolerance)
    release = find_target(target)
    _check_arguments(precision, opset, release, {} if recipe.has("pipeline") else settings, accelerator)
    _check_device(device, accelerator)
    _check_exporter(exporter)
    if recipe.has("pipeline"):
        from naiad.export._export_pipeline import export_pipeline_recipe

        if checkpoint is not None or model is not None:
            raise InvalidExport(f"{recipe.path} gives a pipeline; it loads the weights of its models in pipeline()")
        with _writing.on_refusal(place, {"model": model_name}):
            version = export_pipeline_recipe(
                recipe,
                repository=repo,
                name=model_name,
                build_options=options or {},
                samples=_loaded(samples),
                max_batch_size=max_batch_size,
                settings=settings,
                tolerance=tolerance or None,
                metric=task,
                options={
                    "precision": precision,
                    "allow_slower": allow_slower,
                    "opset": opset,
                    "target": release,
                    "exporter": exporter,
                    "accelerator": accelerator,
                    "device": device,
                    "cores": cores,
                },
                promote=promote,
                on_step=on_step,
            )
        if place is not None:
            _writing.write(place, repo.report_page(version.model, version.number))
        return version
    with repo.stage():  # refuse a repository that cannot be written to before the model is trained
        pass
    if model is None:
        (on_step or _ignore)("build")
        model = recipe.build(**(options or {}))
    origin = {**recipe.origin(), "options": dict(options or {})}
    if checkpoint is not None:
        origin["checkpoint"] = load_checkpoint(model, checkpoint, trust_pickle=trust_pickle)
    size = recipe.constant("MAX_BATCH_SIZE") if max_batch_size is None else max_batch_size
    return export(
        model,
        model_name,
        samples=_samples_of(recipe) if samples is None else samples,
        inputs=recipe.constant("INPUTS"),
        trust_pickle=trust_pickle,
        repository=repo,
        dynamic=recipe.constant("DYNAMIC"),
        max_batch_size=size,
        precision=precision,
        allow_slower=allow_slower,
        outputs=recipe.constant("OUTPUTS"),
        labels=recipe.constant("LABELS"),
        settings=settings,
        tolerance=tolerance,
        metric=task,
        opset=opset,
        target=release,
        exporter=exporter,
        accelerator=accelerator,
        device=device,
        cores=cores,
        states=recipe.constant("STATES"),
        promote=promote,
        source=origin,
        report=report,
        on_step=on_step,
    )


def _check_arguments(
    precision: str, opset: int | None, target: Target, settings: Mapping[str, object], accelerator: str
) -> None:
    """Refuse what can be refused before a model is built or run."""
    if accelerator not in ACCELERATORS:
        raise InvalidExport(f"accelerator must be one of {', '.join(ACCELERATORS)}; found {accelerator!r}")
    if precision not in PRECISIONS:
        raise InvalidExport(f"precision must be one of {', '.join(PRECISIONS)}; found {precision!r}")
    last = min(EXPORT_OPSETS.stop - 1, target.max_opset)
    if opset is not None and not EXPORT_OPSETS.start <= opset <= last:
        raise InvalidExport(f"opset must be from {EXPORT_OPSETS.start} to {last} for {target}; found {opset}")
    if accelerator == "aoti" and not target.supports("torch_aoti"):
        since = FEATURES["torch_aoti"]
        raise InvalidExport(f"{target} does not serve a model.pt2; the first release that does is {since}")
    _settings.check(settings)


def _check_device(device: str, accelerator: str) -> None:
    """Refuse a device that cannot be used, before a model is built."""
    _device.check(device, accelerator)
    if accelerator == "aoti" and device != "cpu":
        from naiad.export._aoti.build import require_device

        require_device(device)
    elif device == "cuda":
        from naiad.export._runtime.gpu import lacking

        _device.resolve(device, accelerator, partial(lacking, accelerator))


def _recipe_metric(
    recipe: Recipe, metric: str | None, max_drop: str | float | None, max_rise: str | float | None
) -> Metric | None:
    if metric is None:
        if max_drop is not None or max_rise is not None:
            raise InvalidExport("max_drop and max_rise are about a metric; name it too, as in --metric recipe:accuracy")
        return None
    if not recipe.has("evaluate"):
        raise InvalidExport(f"{recipe.path} has no evaluate(predict), which would give the metric {metric!r}")
    name = metric.removeprefix("recipe:")
    return Metric(name, recipe.evaluate, max_drop=max_drop, max_rise=max_rise)


def load_checkpoint(
    model: "torch.nn.Module", path: str | os.PathLike[str], *, trust_pickle: bool = False
) -> dict[str, object]:
    """Load weights into a model, all of them, and return the file's name and hash as the manifest has them.

    Args:
        model: Its `state_dict()` says which weights there must be, and of which shapes.
        path: `.safetensors`, or what `torch.save` wrote (`.pt`, `.pth`, `.ckpt`): a state dict, also inside of a
            Lightning checkpoint, and with the prefix of a wrapper.
        trust_pickle: Unpickle any class that the file asks for. That runs code of its author.

    Raises:
        InvalidExport: The file cannot be read or needs trust, or its weights are not the model's.
    """
    import torch

    from naiad.export._source import checkpoint

    if not isinstance(model, torch.nn.Module):
        raise InvalidExport(f"a checkpoint goes into a torch.nn.Module; found {type(model).__name__}")
    return checkpoint.load_checkpoint(model, path, trust_pickle=trust_pickle)


def _samples_of(recipe: Recipe) -> Sequence[Any] | None:
    """Return the recipe's samples; None where it says that they are to be made up."""
    return None if recipe.constant("INPUTS") is not None and not recipe.has("samples") else recipe.samples()


def _loaded(samples: Sequence[Any] | str | os.PathLike[str] | None) -> Sequence[Any] | None:
    if not isinstance(samples, str | os.PathLike):
        return samples
    from naiad.export._source.saved import load_samples

    return load_samples(samples)


def _check_exporter(exporter: str) -> None:
    if exporter not in EXPORTERS:
        raise InvalidExport(f"exporter must be one of {', '.join(EXPORTERS)}; found {exporter!r}")


def _ignore(step: str) -> None:
    del step
