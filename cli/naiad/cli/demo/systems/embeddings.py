"""Sentences to vectors of their meaning: a real encoder behind its tokenizer, and the same in int8."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from naiad.cli.demo.stage import served
from naiad.cli.demo.system import System
from naiad.cli.demo.systems._embeddings_int8 import Served, compare, in_turns

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Predict, Stage
    from naiad.export import Recipe, Version

QUERIES: Final = ("forgot my password", "tomorrow's weather", "I want my money back")
"""What the search is asked; hardly a word of it is in the answers."""

TEXTS: Final = (
    "",
    "Cat.",
    "Ünïcödé – 猫が眠っている 🐈, and a\ttab",
    "A sentence of the usual length, with a comma and a full stop.",
    "More words than the encoder takes, which therefore does not see the last of them. " * 40,
    "incomprehensibilities" * 9,
)
"""Empty, short, of many scripts, and longer than the 256 tokens that count."""

_TOLERANCE: Final = 1e-5
_PYTHON: Final = "embeddings"


def run(stage: Stage) -> None:
    """Publish the pipeline, serve it, compare it with Python, search with it, and measure the int8 candidate."""
    from naiad.export import PrecisionRefused, VerificationFailed, load_recipe

    recipe = load_recipe("sentences")
    first = stage.publish(recipe, what="export tokenizer and encoder as one pipeline")
    exact = _serve(stage, recipe, first, "fp32")
    try:
        # For integers each activation is rounded as it comes: static calibrations take minutes, and are no better here.
        second = stage.publish(
            recipe,
            what="export it in int8, if that is faster and good enough",
            precision="int8-dynamic",
            metric="accuracy",
            max_drop="10%",
        )
    except (PrecisionRefused, VerificationFailed) as refused:
        stage.summary.row("int8", f"refused: {refused}", int8_published=False)
        return
    compare(stage, exact, _serve(stage, recipe, second, "int8"))


def _serve(stage: Stage, recipe: Recipe, version: Version, precision: str) -> Served:
    """Serve a version of the pipeline, ask it what can be compared, and put it under load."""
    with stage.serve(version.model) as triton, triton.client() as client:
        ask = served(client, version.model, rows=recipe.constant("MAX_BATCH_SIZE"))
        accuracy = recipe.evaluate(ask)["accuracy"]
        if precision == "fp32":
            _compare_with_python(stage, ask)
            _search(stage, recipe, ask, accuracy)
        vectors = _vectors(ask, [*TEXTS[1:], *recipe.held_out()[0]["text"].ravel()])
        turns = in_turns(stage, client, _tokens(recipe.samples()[0]["text"].ravel())) if precision == "int8" else {}
        golden = version.path / "golden.npz"
        report = stage.load_test(triton.grpc_url, golden=golden, report=precision)
    results = report.to_json()["results"]
    return Served(accuracy=accuracy, vectors=vectors, results=results, encoders_ms=turns)


def _vectors(ask: Predict, texts: list[str]) -> Any:
    import numpy as np

    return ask({"text": np.array(texts, object)[:, None]})["embedding"]


def _compare_with_python(stage: Stage, ask: Predict) -> None:
    """Send odd texts together and each alone: the tokenizer and PyTorch in this process give the same vectors."""
    import numpy as np

    with stage.step("compare with tokenizer and PyTorch in Python") as done:
        expected = _in_python(list(TEXTS))
        together = _vectors(ask, list(TEXTS))
        alone = np.concatenate([_vectors(ask, [text]) for text in TEXTS])
        error = float(max(np.abs(together - expected).max(), np.abs(alone - expected).max()))
        done(f"largest error {error:.1g}")
    stage.summary.row(
        "as served, against Python",
        f"largest error {error:.1g} in 384 values, {len(TEXTS)} texts of 0 to {max(map(len, TEXTS)):,} letters",
        max_abs_error=error,
        dimensions=int(expected.shape[1]),
    )
    stage.summary.check(error <= _TOLERANCE, f"the served vectors differ from Python's by {error:.2g}")


def _in_python(texts: list[str]) -> Any:
    import torch

    from naiad.export import load_recipe

    model = load_recipe(_PYTHON).build()
    with torch.inference_mode():
        return model(**{name: torch.from_numpy(array) for name, array in _tokens(texts).items()}).numpy()


def _tokens(texts: Iterable[str]) -> Mapping[str, Any]:
    from naiad.export import load_recipe

    tokens: Mapping[str, Any] = load_recipe(_PYTHON).module.tokens(list(texts))
    return tokens


def _search(stage: Stage, recipe: Recipe, ask: Predict, accuracy: float) -> None:
    """Show what the vectors are for: the sentence that means most nearly what was asked."""
    inputs, right = recipe.held_out()
    answers = [str(text) for text in inputs["text"].ravel()[len(right) :]]
    with stage.step("search by meaning") as done:
        likeness = _vectors(ask, list(QUERIES)) @ _vectors(ask, answers).T
        done(f"{accuracy:.0%} of {len(right)} questions find their answer")
    found = [
        {"asked": query, "nearest": answers[row.argmax()], "likeness": f"{row.max():.2f}"}
        for query, row in zip(QUERIES, likeness, strict=True)
    ]
    nearest = {row["asked"]: row["nearest"] for row in found}
    stage.summary.table(f"Nearest of {len(answers)} sentences", found, nearest=nearest)
    stage.summary.row("questions that find their answer", f"{accuracy:.0%} of {len(right)}", accuracy_served=accuracy)


SYSTEM = System(
    name="embeddings",
    title="A sentence encoder with real weights: strings in, 384 floats out",
    shows=("pipeline with a tokenizer", "equal to Python", "semantic search", "int8 measured"),
    recipes=("embeddings", "sentences"),
    about_s=75,
    run=run,
)
