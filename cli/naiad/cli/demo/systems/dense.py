"""A dense classifier: versions compared, the best one promoted, and served by two replicas of which one is killed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from naiad.cli.demo.failover import fail_over
from naiad.cli.demo.rest import infer_by_rest
from naiad.cli.demo.stage import in_pytorch, served
from naiad.cli.demo.system import System
from naiad.cli.demo.traffic import switch_versions

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.export import Recipe, Version
    from naiad.server import EmbeddedTriton

_NAME: Final = "dense"
_TRIED: Final = (
    {"learning_rate": 1e-3, "epochs": 3, "weight_decay": 0.0},
    {"learning_rate": 1e-3, "epochs": 30, "weight_decay": 0.0},
    {"learning_rate": 1e-3, "epochs": 30, "weight_decay": 1.0},
)
"""Hyper-parameters: too few epochs; enough; enough, and held back from overfitting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidate:
    """A published version with what it was trained with and what came of it."""

    version: Version
    options: Mapping[str, float]
    metrics: Mapping[str, float]
    """Of held-out rows, in PyTorch."""

    @property
    def rank(self) -> tuple[float, float]:
        """The better, the larger: more rows right, then the smaller loss."""
        return self.metrics["accuracy"], -self.metrics["loss"]


def run(stage: Stage) -> None:
    """Train and publish three versions, compare them, promote the best, roll back under load, survive a kill -9."""
    from naiad.export import load_recipe

    recipe = load_recipe(_NAME)
    candidates = _publish_all(stage, recipe)
    first, best = candidates[0].version, max(candidates, key=lambda candidate: candidate.rank)
    one_row = {name: array[:1] for name, array in recipe.held_out()[0].items()}
    with stage.serve(_NAME) as triton:
        with _all_served(stage, triton, candidates):
            _compare(stage, recipe, triton, candidates)
        if best.version.number != first.number:
            switch_versions(stage, triton, first, best.version, one_row)
        _promote(stage, triton, best)
        _call(stage, recipe, triton)
        stage.load_test(triton.grpc_url, golden=best.version.path / "golden.npz")
    fail_over(stage, best.version, one_row)


@contextmanager
def _all_served(stage: Stage, triton: EmbeddedTriton, candidates: list[_Candidate]) -> Iterator[None]:
    """Serve all versions side by side for the time of a block; what was served before is again, also after Ctrl-C."""
    numbers = [candidate.version.number for candidate in candidates]
    with triton.client() as client:
        stage.repository.promote(_NAME, *numbers, reason="served side by side to be compared")
        try:
            client.load(_NAME)
            yield
        finally:
            stage.repository.rollback(_NAME, reason="compared")
        client.load(_NAME)


def _publish_all(stage: Stage, recipe: Recipe) -> list[_Candidate]:
    logs = _log_folder(stage)
    return [_publish(stage, recipe, options, logs, promote=not at) for at, options in enumerate(_TRIED)]


def _log_folder(stage: Stage) -> Path | None:
    """Return where this run's event files go; None where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        stage.summary.row("TensorBoard", "not installed (pip install 'naiad[gallery]'), so there are no logs for it")
        return None
    logs = stage.folder / "tensorboard" / time.strftime("%Y-%m-%d-%H%M%S")
    logs.mkdir(parents=True, exist_ok=True)
    stage.summary.row("TensorBoard", f"tensorboard --logdir {shlex.quote(str(logs))}", tensorboard_logs=str(logs))
    return logs


def _publish(
    stage: Stage, recipe: Recipe, options: Mapping[str, float], logs: Path | None, *, promote: bool
) -> _Candidate:
    written = logs and logs / "in-training"
    with stage.step(f"train a dense classifier ({_words(options)})") as done:
        model = recipe.build(**options, log_dir=None if written is None else str(written))
        metrics = recipe.evaluate(in_pytorch(model, "probabilities"))
        done(f"{metrics['accuracy']:.1%} right on held-out rows")
    version = stage.publish(recipe, model=model, options=dict(options), promote=promote)
    if written is not None:
        written.rename(written.with_name(f"version-{version.number}"))
    return _Candidate(version=version, options=options, metrics=metrics)


def _words(options: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in options.items())


def _compare(stage: Stage, recipe: Recipe, triton: EmbeddedTriton, candidates: list[_Candidate]) -> None:
    """Call all versions with the held-out rows, and compare what they are and what they answer."""
    rows, figures = [], []
    with triton.client() as client, stage.step("send held-out rows to each of the three versions") as done:
        for candidate in candidates:
            metrics = recipe.evaluate(served(client, _NAME, version=candidate.version.number))
            figures.append(_figures(candidate, metrics))
            rows.append(_row(candidate, metrics))
        done(", ".join(f"version {each['version']}: {each['accuracy_served']:.1%}" for each in figures))
    stage.summary.table("Versions", rows, versions=figures)
    for each in figures:
        stage.summary.check(
            each["accuracy_served"] == each["accuracy_pytorch"],
            f"version {each['version']} is not as accurate served as in PyTorch: {each['accuracy_served']:.4f} and "
            f"{each['accuracy_pytorch']:.4f}",
        )
    _compare_answers(stage, [candidate.version.number for candidate in candidates])


def _figures(candidate: _Candidate, metrics: Mapping[str, float]) -> dict[str, Any]:
    return {
        "version": candidate.version.number,
        **candidate.options,
        "accuracy_pytorch": candidate.metrics["accuracy"],
        "accuracy_served": metrics["accuracy"],
        "loss_served": metrics["loss"],
        "max_abs_error": _parity(candidate.version),
        "size_bytes": _size_bytes(candidate.version),
    }


def _row(candidate: _Candidate, metrics: Mapping[str, float]) -> dict[str, str]:
    return {
        "version": str(candidate.version.number),
        **{name.replace("_", " "): f"{value:g}" for name, value in candidate.options.items()},
        "right as served": f"{metrics['accuracy']:.1%}",
        "loss": f"{metrics['loss']:.3f}",
        "largest error": f"{_parity(candidate.version):.1g}",
        "size": f"{_size_bytes(candidate.version) / 1000:.0f} kB",
    }


def _parity(version: Version) -> float:
    assert version.report is not None
    return max(parity.max_abs_error for parity in version.report.parity)


def _size_bytes(version: Version) -> int:
    return sum(file.stat().st_size for file in version.path.glob("model.onnx*"))


def _compare_answers(stage: Stage, numbers: list[int]) -> None:
    """Compare what the versions answer to the golden inputs, as `naiad models diff` does."""
    rows, figures = [], []
    pairs = [(a, b) for at, a in enumerate(numbers) for b in numbers[at + 1 :]]
    with stage.step("compare the versions' answers"):
        for a, b in pairs:
            answer = stage.repository.diff(_NAME, a, b).answers[0]
            figures.append(
                {"a": a, "b": b, "max_abs_difference": answer.max_abs_difference, "changed_share": answer.changed_share}
            )
            rows.append(
                {
                    "versions": f"{a} → {b}",
                    "largest difference of a probability": f"{answer.max_abs_difference:.2f}",
                    "rows decided otherwise": f"{answer.num_changed} of {answer.num_rows}",
                }
            )
    stage.summary.table("Answers (naiad models diff)", rows, diffs=figures)


def _promote(stage: Stage, triton: EmbeddedTriton, best: _Candidate) -> None:
    reason = f"{best.metrics['accuracy']:.1%} of held-out rows right, the most of three"
    stage.repository.promote(_NAME, best.version.number, reason=reason)
    with triton.client() as client:
        client.load(_NAME)
    stage.summary.row("promoted", f"version {best.version.number}: {reason}", promoted=best.version.number)


def _call(stage: Stage, recipe: Recipe, triton: EmbeddedTriton) -> None:
    """Ask the same over REST with plain JSON and over gRPC."""
    import numpy as np

    inputs = {name: array[:8] for name, array in recipe.held_out()[0].items()}
    with triton.client() as client, stage.step("ask the same over REST and gRPC") as done:
        by_grpc = client.model(_NAME).infer(inputs)["probabilities"]
        by_rest = infer_by_rest(triton.http_url, _NAME, inputs)["probabilities"]
        difference = float(np.abs(by_grpc - by_rest).max())
        done(f"largest difference {difference:g}")
    stage.summary.row("REST and gRPC", f"largest difference {difference:g}", rest_grpc_max_difference=difference)
    stage.summary.check(difference == 0, f"REST and gRPC answer differently: {difference:g} apart")


SYSTEM = System(
    name=_NAME,
    title="A dense classifier, 100 → 128 → 64 → 10: three versions, the best one behind a gateway",
    shows=("versions compared", "TensorBoard", "rollback under load", "REST and gRPC", "balancing and failover"),
    recipes=(_NAME,),
    about_s=45,
    run=run,
)
