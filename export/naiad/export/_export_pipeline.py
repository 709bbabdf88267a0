"""The whole way of a pipeline: run in Python → export each step → verify them together → publish them as one."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from naiad.export._check.targets import find_target
from naiad.export._configure import settings as _settings
from naiad.export._lint import staged as _staged
from naiad.export._verify.metric import Metric
from naiad.export.errors import InvalidExport
from naiad.export.recipe import Recipe
from naiad.export.report import Tolerance, Version
from naiad.export.repository import Repository, check_name

if TYPE_CHECKING:
    from naiad.export.steps import Step

DEFAULT_MAX_BATCH_SIZE = 32
_OF_ENSEMBLES = ("parameters", "metric_tags", "response_cache")


def export_pipeline(
    steps: "Sequence[Step]",
    name: str,
    *,
    samples: Sequence[Mapping[str, Any]],
    repository: str | os.PathLike[str] | Repository,
    outputs: Sequence[str] | None = None,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE,
    settings: Mapping[str, object] | None = None,
    tolerance: Tolerance | Mapping[str, Any] | None = None,
    metric: Metric | None = None,
    options: Mapping[str, Any] | None = None,
    promote: bool = True,
    source: Mapping[str, object] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Version:
    """Publish steps as the next version of the ensemble `name`, if together they answer as they do in Python.

    Each step is a model of its own, `<name>_<step>`; a version of the ensemble is wired to one version of each.

    Args:
        steps: `Function` and `Model` of `naiad.export.steps`, in the order in which they run.
        name: The pipeline's name in the repository.
        samples: Real inputs of the whole: dicts of arrays by tensor name. With `max_batch_size > 0` their first
            dimension is the batch.
        repository: A Repository or its path; created where it is missing.
        outputs: The tensors that clients get; by default those of the last step.
        dynamic: Dimensions of the pipeline's inputs that vary though the samples do not show it.
        max_batch_size: The largest batch of a request; 0 for steps without a batch dimension.
        settings: Fields of a step's `config.pbtxt` by its name and theirs, as in
            `{"encoder.dynamic_batching.max_queue_delay_microseconds": 500}`, or of the ensemble's.
        tolerance: How far the chain may be from Python, for any tensor, as for `export`; by default as its models may
            be.
        metric: What the pipeline is for, and how much worse the chain may be at it.
        options: For the export of each model, where its step does not say otherwise: precision, target, …
        promote: Serve the new version. The first version is always served.
        source: More provenance for the manifests.
        on_step: Called with the name of each step as it begins.

    Raises:
        InvalidRecipe: The steps do not fit together, or a function's code cannot travel.
        RecipeFailed: A step raised in Python.
        InvalidExport: An argument, a sample or a setting does not fit.
        VerificationFailed: A step differs from Python, or fails, on the server's side; `step` says which.
        ContractChanged: The pipeline or a step is already published with other inputs or outputs.
        ExportError: Else as `export`.

    After any of them, and after an interrupt, what is served is as it was.
    """
    _check(name, steps, max_batch_size)
    steps, own = _given(steps, settings or {})
    from naiad.export._configure import published as _published
    from naiad.export._export import export  # each loads PyTorch
    from naiad.export._pipeline import build as _build

    order = _build.Order(
        pipeline=name,
        steps=steps,
        samples=samples,
        outputs=None if outputs is None else tuple(outputs),
        dynamic=dynamic or {},
        max_batch_size=max_batch_size,
        settings=own,
        tolerance=tolerance,
        metric=metric,
        options=options or {},
        source=source or {},
    )
    told, release = on_step or _ignore, find_target(order.options.get("target"))
    repo = repository if isinstance(repository, Repository) else Repository(repository)
    with repo.stage() as stage:
        candidates, pipeline, report = _build.build(order, stage, export, told)
        for step in candidates:
            if (graph := step.candidate.files / "model.onnx").is_file():
                _published.check_warmup(repo, step.candidate.model, step.candidate.settings, graph)
        _staged.check_all([*(step.candidate for step in candidates), pipeline], repo, stage, release)
        told("publish")
        version = repo.publish_pipeline(candidates, pipeline, promote=promote)
    return replace(version, report=report)


def export_pipeline_recipe(
    recipe: Recipe,
    *,
    repository: Repository,
    name: str,
    build_options: Mapping[str, object],
    samples: Sequence[Any] | None,
    max_batch_size: int | None,
    settings: Mapping[str, object],
    tolerance: Tolerance | Mapping[str, Any] | None,
    metric: Metric | None,
    options: Mapping[str, Any],
    promote: bool,
    on_step: Callable[[str], None] | None,
) -> Version:
    """Build a recipe's pipeline and export it; arguments override the recipe's own constants."""
    with repository.stage():  # refuse a repository that cannot be written to before a model is trained
        pass
    (on_step or _ignore)("build")
    size = recipe.constant("MAX_BATCH_SIZE", DEFAULT_MAX_BATCH_SIZE) if max_batch_size is None else max_batch_size
    return export_pipeline(
        recipe.pipeline(**build_options),
        name,
        samples=(recipe.samples() or []) if samples is None else samples,
        repository=repository,
        outputs=recipe.constant("OUTPUTS"),
        dynamic=recipe.constant("DYNAMIC"),
        max_batch_size=size,
        settings=settings,
        tolerance=tolerance,
        metric=metric,
        options=options,
        promote=promote,
        source={**recipe.origin(), "options": dict(build_options)},
        on_step=on_step,
    )


def _given(steps: "Sequence[Step]", settings: Mapping[str, object]) -> "tuple[Sequence[Step], Mapping[str, object]]":
    """Return the steps with the settings that name them, and the ensemble's own."""
    own = dict(settings)
    given = []
    for step in steps:
        name = getattr(step, "name", "")
        mine = {path.partition(".")[2]: own.pop(path) for path in list(own) if path.partition(".")[0] == name}
        _settings.check(mine)
        given.append(step.with_settings(mine) if mine else step)
    wrong = [path for path in own if path.partition(".")[0] not in _OF_ENSEMBLES]
    if wrong:
        names = ", ".join(getattr(step, "name", "") for step in steps)
        raise InvalidExport(
            f"{wrong[0]!r} is no setting of an ensemble, which has {', '.join(_OF_ENSEMBLES)}; begin it with the name "
            f"of the step that is meant: {names}"
        )
    _settings.check(own)
    return given, own


def _check(name: str, steps: "Sequence[Step]", max_batch_size: int) -> None:
    """Refuse what can be refused before anything is loaded or run."""
    check_name(name)
    for step in steps if isinstance(steps, list | tuple) else ():
        check_name(f"{name}_{getattr(step, 'name', '')}")
    if max_batch_size < 0:
        raise InvalidExport(f"max_batch_size must be at least 0; found {max_batch_size}")


def _ignore(step: str) -> None:
    del step
