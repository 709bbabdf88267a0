"""What int8 changes: both versions side by side, with where each figure is from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from naiad.cli.demo.systems._turns import median_ms

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.client import Client
    from naiad.export.report import PrecisionResult

__all__ = ["Served", "compare", "in_turns"]

_ENCODER: Final = "sentences_encoder"
_ROUNDS: Final = {1: 60, 16: 15}
"""How often a request of each batch is timed."""
_MB: Final = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A version of the pipeline, and what came of asking it."""

    accuracy: float
    vectors: Any
    """Of the same texts for each version, [texts, 384], of length 1."""
    results: Mapping[str, Any]
    """Of the load test, as its report has them."""
    encoders_ms: Mapping[int, Mapping[str, float]]
    """By batch and precision: requests to both encoders, which this version serves side by side, in turns."""


def compare(stage: Stage, exact: Served, small: Served) -> None:
    """Add a table of both versions, and note whether int8 still means the same."""
    before, after = _timed(stage)
    assert before.latency  # a candidate that was published was timed, in turns with fp32
    cosine = (exact.vectors * small.vectors).sum(axis=1)
    least, mean = float(cosine.min()), float(cosine.mean())
    rows = [
        _row("encoder, MB", [f"{each.size_bytes / _MB:.1f}" for each in (before, after)]),
        *(
            _row(
                f"batch {one.batch} in ONNX Runtime alone, in turns, ms",
                [f"{each.median_ms:.1f}" for each in (one, other)],
            )
            for one, other in zip(before.latency, after.latency, strict=True)
        ),
        *(
            _row(f"batch {batch} to the encoder as served, in turns, ms", [f"{each:.1f}" for each in times.values()])
            for batch, times in small.encoders_ms.items()
        ),
        _row("questions that find their answer, as served", [f"{each.accuracy:.0%}" for each in (exact, small)]),
        _row("least and mean cosine to fp32, as served", ["1", f"{least:.4f}, {mean:.4f}"]),
        *_loads(exact, small),
    ]
    stage.summary.table(
        "fp32 against int8",
        rows,
        int8_published=True,
        int8_cosine_least=least,
        int8_cosine_mean=mean,
        int8_accuracy_served=small.accuracy,
        int8_speed_up=after.speed_up,
        encoder_request_ms={str(batch): times for batch, times in small.encoders_ms.items()},
        size_bytes={"fp32": before.size_bytes, "int8": after.size_bytes},
        latency_ms={
            each.precision: {str(one.batch): one.median_ms for one in each.latency} for each in (before, after)
        },
    )
    left = f", {len(after.left_in_fp32)} left in fp32" if after.left_in_fp32 else ""
    stage.summary.row(
        "int8", f"{after.speed_up:.2f} times as fast by the export's measure; {after.num_changed} nodes{left}"
    )
    stage.summary.check(least > 0.95, f"a vector in int8 is far from that in fp32: cosine {least:.3f}")


def in_turns(stage: Stage, client: Client, tokens: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    """Return the median time of a request to the encoder in fp32 and in int8, by batch and precision.

    The pipeline serves one version at a time. Its steps also serve the one before, so here both meet the same machine.
    """
    exact, small = stage.repository.served(_ENCODER)[-2:]
    models = {"fp32": client.model(_ENCODER, exact), "int8": client.model(_ENCODER, small)}
    found = {}
    with stage.step("ask both encoders in turns"):
        for batch, rounds in _ROUNDS.items():
            rows = {name: array.repeat(2, axis=0)[:batch] for name, array in tokens.items()}
            calls = {name: partial(model.infer, rows) for name, model in models.items()}
            found[batch] = median_ms(calls, rounds=rounds)
    return found


def _timed(stage: Stage) -> tuple[PrecisionResult, PrecisionResult]:
    """Return what the export measured of the encoder in fp32 and in the precision that it published."""
    report = stage.repository.version(_ENCODER, stage.repository.versions(_ENCODER)[-1]).report
    assert report is not None
    before, after = report.precision[0], next(each for each in report.precision if each.chosen)
    return before, after


def _loads(*versions: Served) -> list[dict[str, str]]:
    """Return rates and latencies of the load tests, which ran one after the other."""
    rows = [_row("load test of 8 users, requests/s", [f"{each.results['throughput_per_s']:,.0f}" for each in versions])]
    if all(each.results["completed"] for each in versions):
        rows += [
            _row(
                f"load test of 8 users, {name} in ms",
                [f"{each.results['latency_us'][name] / 1000:.1f}" for each in versions],
            )
            for name in ("p50", "p99")
        ]
    return rows


def _row(what: str, values: list[str]) -> dict[str, str]:
    return {"": what, "fp32": values[0], "int8": values[1]}
