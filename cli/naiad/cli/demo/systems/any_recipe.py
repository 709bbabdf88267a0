"""Any recipe: exported, served, its golden requests and its metrics held against PyTorch's, load-tested."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from naiad.cli.demo.stage import Stage, in_pytorch, served
from naiad.cli.demo.system import System

if TYPE_CHECKING:
    from naiad.export import Recipe, Version
    from naiad.server import EmbeddedTriton


def system_of(path: Path) -> System:
    """Return the system that a recipe's file is."""

    def run(stage: Stage) -> None:
        _run(stage, path)

    return System(name=path.stem, title="", shows=(), recipes=(str(path),), about_s=60, run=run)


def _run(stage: Stage, path: Path) -> None:
    """Do what every recipe allows."""
    from naiad.export import load_recipe

    recipe = load_recipe(path)
    model = None
    if recipe.has("build"):
        with stage.step(f"build {recipe.name}"):
            model = recipe.build()
    version = stage.publish(recipe, model=model)
    with stage.serve(version.model) as triton:
        _replay(stage, triton, version)
        if recipe.has("evaluate"):
            _evaluate(stage, triton, recipe, version, model)
        stage.load_test(triton.grpc_url, model=version.model, **_load(recipe, version))


def _replay(stage: Stage, triton: EmbeddedTriton, version: Version) -> None:
    with stage.step("replay the golden requests on the server"), triton.client() as client:
        found = stage.repository.verify_served(version.model, client)
    text = f"{sum(each.ok for each in found)} of {len(found)} versions answer as PyTorch did"
    stage.summary.row("golden requests", text, golden_ok=all(each.ok for each in found))
    stage.summary.check(all(each.ok for each in found), "the server does not answer the golden requests as PyTorch did")


def _evaluate(stage: Stage, triton: EmbeddedTriton, recipe: Recipe, version: Version, model: Any) -> None:
    import torch

    with stage.step("evaluate it as served") as done, triton.client() as client:
        metrics = recipe.evaluate(served(client, version.model, _rows(recipe)))
        done(", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    for name, value in metrics.items():
        stage.summary.row(f"{name} as served", f"{value:.4g}", **{f"{name}_served": value})
    if not isinstance(model, torch.nn.Module):
        return
    outputs = recipe.constant("OUTPUTS")
    for name, value in recipe.evaluate(in_pytorch(model, *outputs)).items() if outputs else ():
        stage.summary.row(f"{name} in PyTorch", f"{value:.4g}", **{f"{name}_pytorch": value})


def _rows(recipe: Recipe) -> int:
    return min(50, recipe.constant("MAX_BATCH_SIZE", 32)) or 1


def _load(recipe: Recipe, version: Version) -> dict[str, Any]:
    options: dict[str, Any] = {"users": 8}
    if recipe.constant("STATES"):
        return options | {"sequence": "5..20"}  # conversations of as many requests; their values are made up
    return options | {"golden": Path(version.path) / "golden.npz"}
