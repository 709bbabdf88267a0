"""Why a digit is what it is: attributions as a second output, held against their axiom, captum, and the eye."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from naiad.cli.demo.stage import served
from naiad.cli.demo.systems._turns import median_ms

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.client import Client
    from naiad.export import Recipe

__all__ = ["explain"]

_COMPARED: Final = 64
_TOLERANCE: Final = 1e-4
_UNEXPLAINED: Final = 0.02


def explain(stage: Stage, net: Any) -> None:
    """Publish a trained net with integrated gradients as a second output, serve it, and look at what it says."""
    from naiad.export import load_recipe

    recipe = load_recipe("mnist_explained")
    model = recipe.module.explained(net)
    stage.publish(recipe, what="export it with its reasons, checked against PyTorch", model=model)
    with stage.serve("mnist", "mnist_explained") as triton, triton.client() as client:
        _check(stage, recipe, client)
        _against_captum(stage, recipe, net, client)
        _cost(stage, recipe, client)
        _picture(stage, recipe, client)


def _check(stage: Stage, recipe: Recipe, client: Client) -> None:
    with stage.step("add up the attributions of test images") as done:
        found = recipe.evaluate(served(client, "mnist_explained"))
        done(f"{found['unexplained']:.4f} of the probability missing")
    count = len(recipe.held_out()[1])
    stage.summary.row(
        "explanation: completeness",
        f"attributions sum to the probability less that of a black image within {found['unexplained']:.4f} (mean of "
        f"{count} test images, as served)",
        unexplained=found["unexplained"],
        explained_accuracy_served=found["accuracy"],
    )
    stage.summary.check(
        found["unexplained"] < _UNEXPLAINED,
        f"expected attributions that sum to the probability within {_UNEXPLAINED}, found {found['unexplained']:.3f}",
    )


def _against_captum(stage: Stage, recipe: Recipe, net: Any, client: Client) -> None:
    """Compare with captum's own integrated gradients of the net in PyTorch, where captum is installed."""
    label = "explanation: against captum"
    if find_spec("captum") is None:
        stage.summary.row(label, "not compared: captum is not installed (naiad[gallery] has it)")
        return
    import numpy as np
    import torch
    from captum.attr import IntegratedGradients

    images = recipe.held_out()[0]["image"][:_COMPARED]
    with stage.step("compare with captum in PyTorch") as done:
        answer = client.infer("mnist_explained", {"image": images})
        expected = (
            IntegratedGradients(net)
            .attribute(
                torch.from_numpy(images),
                baselines=0.0,
                target=torch.from_numpy(answer["probabilities"].argmax(axis=1)),
                n_steps=recipe.module.STEPS,
                method="gausslegendre",
            )
            .detach()
            .numpy()
        )
        error = float(np.abs(answer["attribution"] - expected).max() / np.abs(expected).max())
        done(f"largest error {error:.1g} of the largest value")
    text = f"largest error {error:.1g} of the largest value, {len(images)} images, {recipe.module.STEPS} steps"
    stage.summary.row(label, text, captum_max_rel_error=error)
    stage.summary.check(error <= _TOLERANCE, f"the served attributions differ from captum's by {error:.2g}")


def _cost(stage: Stage, recipe: Recipe, client: Client) -> None:
    one = {"image": recipe.held_out()[0]["image"][:1]}
    names = ("mnist", "mnist_explained")
    found = median_ms({name: partial(client.model(name).infer, one) for name in names})
    plain, explained = (found[name] for name in names)
    stage.summary.row(
        "explanation: cost",
        f"a request of one image takes {explained:.1f} ms, without attribution {plain:.1f} ms",
        explained_request_ms={"plain": plain, "explained": explained},
    )


def _picture(stage: Stage, recipe: Recipe, client: Client) -> None:
    from naiad.cli.demo.systems._heat import write_heat

    inputs, digits = recipe.held_out()
    first = [digits.tolist().index(digit) for digit in range(10)]
    images = inputs["image"][first]
    path = stage.folder / "explained.png"
    write_heat(path, images, client.infer("mnist_explained", {"image": images}))
    stage.summary.paths["attributions"] = path
