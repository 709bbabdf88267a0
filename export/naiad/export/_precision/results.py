"""Candidates as they are reported: what was measured, and why they were refused."""

import statistics
from collections.abc import Iterator, Sequence

from naiad.export._capture.graph import Graph, size_bytes
from naiad.export._precision.judge import speed_up
from naiad.export._precision.search import Trial
from naiad.export._runtime.place import PlaceOf, on_cpu
from naiad.export._verify.parity import Comparison
from naiad.export.report import PrecisionLatency, PrecisionResult

_QUARTERS = 4


def results_of(
    graph: Graph,
    baseline: Comparison,
    trials: Sequence[Trial],
    best: Trial | None,
    place_of: PlaceOf = on_cpu,
    *,
    timed: bool = True,
) -> Iterator[PrecisionResult]:
    """Yield what is reported of the graph as it was and of each candidate; `timed` is false where nothing could be."""
    not_timed = "" if timed else "not timed: no GPU here"
    turns = [trial.turns for trial in trials if trial.turns]
    yield PrecisionResult(
        precision="fp32",
        chosen=best is None,
        size_bytes=size_bytes(graph),
        parity=baseline.parity,
        metric=baseline.metric,
        latency=_joined([{batch: each.baseline_s for batch, each in item.items()} for item in turns]),
        speed_up=1.0 if turns else None,
        verified_on=place_of("fp32").name,
        timed_on=place_of("fp32").name if turns else not_timed,
    )
    for trial in trials:
        yield _result(trial, place_of(trial.conversion.precision).name, not_timed, chosen=trial is best)


def _result(trial: Trial, place: str, not_timed: str, *, chosen: bool) -> PrecisionResult:
    turns = trial.turns or {}
    return PrecisionResult(
        precision=trial.conversion.precision,
        method=trial.conversion.method,
        chosen=chosen,
        refused=trial.refused or (None if chosen else trial.no_gain),
        num_changed=trial.num_changed,
        left_in_fp32=trial.conversion.excluded,
        size_bytes=trial.size_bytes,
        parity=trial.comparison.parity if trial.comparison else (),
        metric=trial.comparison.metric if trial.comparison else None,
        latency=_joined([{batch: item.candidate_s for batch, item in turns.items()}]),
        num_threads=trial.num_threads,
        speed_up=round(speed_up(turns), 3) if turns else None,
        verified_on=place if trial.comparison else "",
        timed_on=place if turns else not_timed if trial.comparison else "",
    )


def _joined(timed: Sequence[dict[int, tuple[float, ...]]]) -> tuple[PrecisionLatency, ...]:
    by_batch: dict[int, list[float]] = {}
    for times in timed:
        for batch, seconds in times.items():
            by_batch.setdefault(batch, []).extend(seconds)
    return tuple(_latency(batch, seconds) for batch, seconds in by_batch.items())


def _latency(batch: int, seconds: Sequence[float]) -> PrecisionLatency:
    lower, median, upper = statistics.quantiles(seconds, n=_QUARTERS)
    return PrecisionLatency(
        batch=batch,
        median_ms=round(median * 1e3, 4),
        spread_ms=round((upper - lower) * 1e3, 4),
        rows_per_s=round(max(batch, 1) / median, 1),
    )
