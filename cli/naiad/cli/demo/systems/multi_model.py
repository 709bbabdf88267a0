"""Several models that cooperate: as an ensemble, and as a script that does without one of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from naiad.cli.demo.stage import Predict, served
from naiad.cli.demo.system import System

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.client import Client
    from naiad.export import Recipe
    from naiad.loadtest import Report

_ENSEMBLE: Final = "multi_model"
_SCRIPT: Final = "multi_model_script"
_OPTIONAL: Final = "multi_model_script_enhancer"
_FORMS: Final = ("ensemble", "script", "script without enhancer")
_SINGLE_CALLS: Final = 100
_ALLOWED: Final = 1e-6


def run(stage: Stage) -> None:
    """Publish both forms, compare their answers with and without the optional model, and load-test both."""
    from naiad.export import load_recipe

    recipe = load_recipe(_ENSEMBLE)
    golden = stage.publish(recipe).path / "golden.npz"
    stage.publish(_SCRIPT)
    with stage.serve(_ENSEMBLE, _SCRIPT) as triton:
        with triton.client() as client:
            answers = _ask(stage, recipe, client)
        _compare(stage, recipe, answers)
        for model in (_ENSEMBLE, _SCRIPT):
            name = "report" if model == _ENSEMBLE else "script"
            report = stage.load_test(triton.grpc_url, scenario=f"gallery/{model}.toml", golden=golden, report=name)
            _note_steps(stage, model, report)


def _ask(stage: Stage, recipe: Recipe, client: Client) -> dict[str, Any]:
    """Send all held-out scenes to each form; the optional model is unloaded for the last, and loaded again."""
    inputs = recipe.held_out()[0]
    one = {name: array[:1] for name, array in inputs.items()}
    found = {}
    with stage.step(
        "send the held-out scenes to the ensemble, and to the script with and without its enhancer"
    ) as done:
        for form, model in zip(_FORMS, (_ENSEMBLE, _SCRIPT, _SCRIPT), strict=True):
            if form == _FORMS[-1]:
                client.unload(_OPTIONAL)
            arrays = served(client, model, rows=30)(inputs)
            found[form] = {"arrays": arrays, "single_call_ms": _single_call_ms(client, model, one)}
        client.load(_OPTIONAL)
        again = served(client, _SCRIPT, rows=30)(inputs)
        done("the enhancer was unloaded and loaded again meanwhile")
    stage.summary.check(
        bool((again["enhanced"] == found["script"]["arrays"]["enhanced"]).all()),
        "loaded again, the optional model is not asked as before",
    )
    return found


def _single_call_ms(client: Client, model: str, one: Mapping[str, Any]) -> float:
    handle, times = client.model(model), []
    for _ in range(_SINGLE_CALLS):
        started = time.perf_counter()
        handle.infer(one)
        times.append(time.perf_counter() - started)
    return sorted(times)[_SINGLE_CALLS // 2] * 1000


def _compare(stage: Stage, recipe: Recipe, answers: Mapping[str, Any]) -> None:
    import numpy as np

    rows, figures = [], {}
    for form, each in answers.items():
        arrays = each["arrays"]
        quality = recipe.evaluate(_answered(arrays))
        enhanced = int(arrays["enhanced"].sum()) if "enhanced" in arrays else 0
        figures[form.replace(" ", "_")] = {
            **quality,
            "scenes_enhanced": enhanced,
            "single_call_ms": round(each["single_call_ms"], 3),
        }
        rows.append(
            {
                "form": form,
                "digits right": f"{quality['accuracy']:.1%}",
                "boxes right": f"{quality['boxes']:.1%}",
                "scenes enhanced": str(enhanced),
                "one call at a time": f"{each['single_call_ms']:.1f} ms (p50)",
            }
        )
    ensemble, script, without = (answers[form]["arrays"] for form in _FORMS)
    count = len(ensemble["box"])
    boxes = all(np.array_equal(ensemble["box"], each["box"]) for each in (script, without))
    apart = float(np.abs(ensemble["probabilities"] - without["probabilities"]).max())
    summary = stage.summary
    summary.table(f"The same {count} held-out scenes", rows, forms=figures)
    summary.row(
        "ensemble and script without the optional model",
        f"equal boxes, probabilities at most {apart:.1g} apart on {count} scenes",
        scenes=count,
        boxes_equal=boxes,
        max_abs_difference=apart,
    )
    summary.check(boxes, "ensemble and script find different boxes")
    summary.check(apart <= _ALLOWED, f"ensemble and script give probabilities {apart:.2g} apart")
    summary.check(not without["enhanced"].any(), "the script used a model that was not loaded")
    better, plain = (figures[form]["accuracy"] for form in ("script", "ensemble"))
    summary.check(better > plain, "the script with its optional model is no better than without it")


def _answered(arrays: Mapping[str, Any]) -> Predict:
    """Return what gives answers that are there already."""

    def predict(inputs: Mapping[str, Any]) -> Any:
        del inputs
        return arrays

    return predict


def _note_steps(stage: Stage, model: str, report: Report) -> None:
    """Show the time of a request in each step, as the load test's report has it."""
    results = report.to_json()["results"]
    steps = [each for each in results.get("steps") or [] if each["requests"]]  # not those of the version before
    figures = [
        {"step": str(each["model"]), "time_us": each["time_us"], "calls": each["calls_per_request"]} for each in steps
    ]
    rows = [
        {
            "step": each["step"].removeprefix(f"{model}_"),
            "mean time of a request": "–" if each["time_us"] is None else f"{each['time_us'] / 1000:.2f} ms",
            "calls a request": "–" if each["calls"] is None else f"{each['calls']:.2f}",
        }
        for each in figures
    ]
    stage.summary.table(f"Step by step under load: {model}", rows, **{f"steps_of_{model}": figures})
    stage.summary.check(bool(steps), f"the load test's report has no steps of {model}")


SYSTEM = System(
    name="multi_model",
    title="A detector, a classifier and an optional enhancer: as an ensemble and as a script",
    shows=("an ensemble", "a script with an optional model", "latency step by step"),
    recipes=(_ENSEMBLE, _SCRIPT),
    about_s=70,
    run=run,
)
