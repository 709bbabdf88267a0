"""Handwritten digits: the whole way on a small real model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naiad.cli.demo.stage import in_pytorch, served
from naiad.cli.demo.system import System
from naiad.cli.demo.traffic import switch_versions

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.export import Recipe, Version
    from naiad.server import EmbeddedTriton


def run(stage: Stage) -> None:
    """Train, export, serve, call, promote, roll back and load-test a classifier of handwritten digits."""
    from naiad.export import load_recipe

    recipe = load_recipe("digits")
    first = _publish(stage, recipe, seed=0, promote=True)
    with stage.serve("digits") as triton:
        _call_held_out(stage, recipe, triton)
        second = _publish(stage, recipe, seed=1, promote=False)
        one_digit = {name: array[:1] for name, array in recipe.held_out()[0].items()}
        switch_versions(stage, triton, first, second, one_digit)
        stage.load_test(triton.grpc_url, golden=first.path / "golden.npz")


def _publish(stage: Stage, recipe: Recipe, *, seed: int, promote: bool) -> Version:
    with stage.step(f"train a net on handwritten digits (seed {seed})") as done:
        model = recipe.build(seed=seed)
        accuracy = recipe.evaluate(in_pytorch(model, "probabilities"))["accuracy"]
        done(f"{accuracy:.2%} right on held-out digits")
    if promote:
        stage.summary.row("accuracy in PyTorch", f"{accuracy:.2%}", accuracy_pytorch=accuracy)
    return stage.publish(recipe, model=model, options={"seed": seed}, promote=promote)


def _call_held_out(stage: Stage, recipe: Recipe, triton: EmbeddedTriton) -> None:
    with triton.client() as client, stage.step("send the held-out digits through the client") as done:
        accuracy = recipe.evaluate(served(client, "digits"))["accuracy"]
        done(f"{accuracy:.2%} right")
    stage.summary.row("accuracy as served", f"{accuracy:.2%}", accuracy_served=accuracy)
    stage.summary.check(
        accuracy == stage.summary.figures["accuracy_pytorch"],
        "the served model is not as accurate as the one in PyTorch",
    )


SYSTEM = System(
    name="digits",
    title="Handwritten digits, 8 × 8 pixels: the whole way in half a minute",
    shows=("export", "promote and rollback under load", "load test"),
    recipes=("digits",),
    about_s=35,
    run=run,
)
