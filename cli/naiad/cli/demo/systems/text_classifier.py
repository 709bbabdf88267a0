"""Texts to labels: what scikit-learn learned, and a small transformer, served as strings in, labels out."""

from __future__ import annotations

import importlib
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from naiad.cli.demo.stage import served
from naiad.cli.demo.system import System
from naiad.cli.demo.systems._text_service import show_service

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.client import Client
    from naiad.export import Recipe, Version
    from naiad.server import EmbeddedTriton

_BAG, _TRANSFORMER = "text_classifier", "text_transformer"
_ODD: Final = ("", "   ", "qwxz 0", "Ångström ΣΊΣΥΦΟΣ İstanbul 東京", "word " * 20_000)
"""Nothing, only spaces, no known word, other scripts (two of which change their length in lower case), very long."""
_MAX_DIFFERENCE: Final = 1e-5
_CALLS: Final = 200
_REQUESTS: Final = 500


def run(stage: Stage) -> None:
    """Learn from a CSV, publish, compare what is served with scikit-learn, load-test it, put it behind a gateway."""
    from naiad.export import load_recipe

    recipes = {name: load_recipe(name) for name in (_BAG, _TRANSFORMER)}
    data = _write_texts(stage)
    versions = {name: _publish(stage, recipe, data) for name, recipe in recipes.items()}
    with stage.serve(*recipes) as triton:
        _compare_with_sklearn(stage, recipes[_BAG], triton)
        _compare_models(stage, recipes, versions, triton)
        requests = _write_requests(stage, recipes[_BAG])
        stage.load_test(triton.grpc_url, data=requests)
    texts, _ = recipes[_BAG].held_out()
    show_service(stage, _BAG, {"text": texts["text"][:1]}, data=requests)


def _write_texts(stage: Stage) -> Path:
    """Return the CSV that is learned from: the user's, or one with sentences of documentation."""
    if given := stage.options.get("data"):
        return Path(given).expanduser().absolute()
    path = (stage.folder / "texts.csv").absolute()
    shared = importlib.import_module("_texts")  # it lies beside the recipes, and they have loaded it
    with stage.step("collect sentences of the documentation of four libraries") as done:
        texts = shared.docstrings()
        shared.write_csv(path, texts)
        done(f"{len(texts):,} sentences")
    stage.summary.paths["texts"] = path
    return path


def _publish(stage: Stage, recipe: Recipe, data: Path) -> Version:
    how = {_BAG: "learn which words speak for which label", _TRANSFORMER: "train a small transformer on the same texts"}
    return stage.publish(recipe, what=f"{how[recipe.name]}, and export it", options={"data": str(data)})


def _compare_with_sklearn(stage: Stage, recipe: Recipe, triton: EmbeddedTriton) -> None:
    """Ask the server for all held-out texts and for odd ones, and scikit-learn for the same."""
    import numpy as np

    texts, labels = recipe.held_out()
    odd = np.array([[text.encode()] for text in _ODD], object)
    asked = np.concatenate([texts["text"], odd])
    with triton.client() as client, stage.step("ask for texts it has never seen, compare with scikit-learn") as done:
        found = served(client, _BAG)({"text": asked})
        classifier = recipe.module.fitted()
        expected = classifier.predict_proba([text.decode() for text in asked.ravel()])
        names = np.array([name.decode() for name in found["label"].ravel()])
        # Of two labels that are equally likely, either is right: float32 and float64 may not choose the same.
        chosen = expected[np.arange(len(names)), np.searchsorted(classifier.classes_, names)]
        differing = int((expected.max(axis=1) - chosen > _MAX_DIFFERENCE).sum())
        error = float(np.abs(found["probability"].ravel() - expected.max(axis=1)).max())
        done(f"largest difference {error:.1g}")
    _note_equality(stage, len(asked), differing, error)
    _note_accuracy(stage, float((names[: len(labels)] == labels).mean()), _majority(labels), len(labels))


def _majority(labels: Any) -> float:
    """Return the accuracy of always saying the most frequent label."""
    import numpy as np

    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def _note_accuracy(stage: Stage, accuracy: float, majority: float, num_texts: int) -> None:
    stage.summary.row(
        "accuracy as served",
        f"{accuracy:.1%} of {num_texts:,} held-out texts; always the most frequent label: {majority:.1%}",
        accuracy_served=accuracy,
        accuracy_majority=majority,
        held_out_texts=num_texts,
    )
    if accuracy <= majority:  # of few or contradicting texts nothing can be learned: that is no fault of the service
        stage.summary.warnings.append("the texts teach it nothing: always saying the most frequent label is as good")


def _note_equality(stage: Stage, num_texts: int, differing: int, error: float) -> None:
    stage.summary.row(
        "compared with scikit-learn",
        f"{differing} of {num_texts:,} labels differ, probabilities by at most {error:.1g}",
        sklearn_labels_differing=differing,
        sklearn_max_difference=error,
    )
    stage.summary.check(
        not differing and error < _MAX_DIFFERENCE,
        f"expected scikit-learn's labels and probabilities, found {differing} other labels and a difference of "
        f"{error:.1g}",
    )


def _compare_models(
    stage: Stage, recipes: dict[str, Recipe], versions: dict[str, Version], triton: EmbeddedTriton
) -> None:
    """Show the bag of words beside the transformer: how often right, how large, how fast."""
    figures = {}
    with triton.client() as client, stage.step("compare the bag of words with the transformer") as done:
        for name, recipe in recipes.items():
            report = versions[name].report
            assert report is not None
            figures[name] = {
                "accuracy": recipe.evaluate(served(client, name, rows=32))["accuracy"],
                "size_bytes": report.size_bytes,
                "latency_ms": _median_ms(client, name, recipe.held_out()[0]["text"]),
            }
        done(", ".join(f"{each['accuracy']:.1%}" for each in figures.values()))
    rows = [
        {
            "model": name,
            "held-out texts right": f"{each['accuracy']:.1%}",
            "size": f"{each['size_bytes'] / 1e6:.1f} MB",
            "one text, one caller": f"{each['latency_ms']:.1f} ms",
        }
        for name, each in figures.items()
    ]
    stage.summary.table("Words counted, or a transformer", rows, models=figures)


def _median_ms(client: Client, model: str, texts: Any) -> float:
    """Return how long an answer takes in the median, one text at a time."""
    handle = client.model(model)
    taken = []
    for at in range(_CALLS):
        row = at % len(texts)
        started = time.perf_counter()
        handle.infer({"text": texts[row : row + 1]})
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


def _write_requests(stage: Stage, recipe: Recipe) -> Path:
    """Write held-out texts as the load test's requests."""
    path = stage.folder / "held-out.jsonl"
    texts, _ = recipe.held_out()
    lines = (json.dumps({"text": [each.decode()]}) for each in texts["text"].ravel()[:_REQUESTS])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


SYSTEM = System(
    name=_BAG,
    title="Texts to labels, learned from a CSV: strings in, label and probability out",
    shows=("scikit-learn as PyTorch", "strings in, labels out", "TLS, keys, audit, monitoring"),
    recipes=(_BAG, _TRANSFORMER),
    about_s=80,
    run=run,
    options={"data": "a CSV of your own, UTF-8, with the columns text and label"},
)
