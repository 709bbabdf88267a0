"""A straight line: how little a recipe and a caller need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from naiad.cli.demo.rest import infer_by_rest
from naiad.cli.demo.system import System

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.server import EmbeddedTriton

_NAME: Final = "linear_regression"
_ASKED: Final = (3.0, 10.0, -0.5)
"""What the page's example asks."""
_LARGEST_ERROR: Final = 1e-4


def run(stage: Stage) -> None:
    """Fit a line, serve it, ask it with plain JSON and through the client, and load-test it."""
    from naiad.export import load_recipe

    recipe = load_recipe(_NAME)
    with stage.step("fit a line to five points") as done:
        line = recipe.build()
        done(f"y = {line.weight.item():.6g} x + {line.bias.item():.1g}")
    version = stage.publish(recipe, model=line)
    with stage.serve(_NAME) as triton:
        _ask(stage, triton)
        stage.load_test(triton.grpc_url, golden=version.path / "golden.npz")


def _ask(stage: Stage, triton: EmbeddedTriton) -> None:
    import numpy as np

    x = np.array([_ASKED], np.float32).T
    with triton.client() as client, stage.step("ask with plain JSON, and through the client") as done:
        by_rest = infer_by_rest(triton.http_url, _NAME, {"input": x})["y"]
        by_grpc = client.model(_NAME)(input=x)["y"]
        done(f"{_ASKED[0]:g} → {by_rest[0, 0]:g}")
    error = float(np.abs(by_rest - 2 * x).max())
    answers = ", ".join(f"{asked:g} → {answer:g}" for asked, answer in zip(_ASKED, by_rest[:, 0].tolist(), strict=True))
    summary = stage.summary
    summary.row("asked with plain JSON", answers, rest_answers=by_rest[:, 0].tolist())
    summary.row("largest error of y = 2x", f"{error:.1g}", max_abs_error=error)
    summary.check(error < _LARGEST_ERROR, f"expected y = 2x, found an answer that is {error:.2g} off")
    summary.check(
        np.array_equal(by_rest, by_grpc), f"expected {by_rest.tolist()} from gRPC too, found {by_grpc.tolist()}"
    )


SYSTEM = System(
    name=_NAME,
    title="y = 2x from five points: the smallest recipe, asked with curl",
    shows=("the smallest recipe", "containers", "REST with plain JSON"),
    recipes=(_NAME,),
    about_s=25,
    run=run,
)
