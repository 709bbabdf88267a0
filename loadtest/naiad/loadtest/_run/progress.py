"""How far a run is, for those who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from naiad.loadtest._run.course import Course
from naiad.loadtest.latencies import Latencies
from naiad.loadtest.plan import LoadTest, Rate, Trace

__all__ = ["OnProgress", "Progress", "progress_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run is, and the figures of its latest quarter of a second."""

    phase: Literal["calibrating", "warmup", "window", "drain"]
    elapsed_s: float = 0.0
    """Since the phase began."""
    total_s: float | None = None
    """How long the phase will take, as far as known."""
    users: int = 0
    """0 in an open loop."""
    in_flight: int = 0
    offered_per_s: float | None = None
    """The rate asked for; ``None`` where users set it."""
    throughput: float = 0.0
    p50_us: float | None = None
    p99_us: float | None = None
    errors: int = 0
    """Since the run began."""
    steady: bool = False
    """Whether the warm-up is over, as far as known."""
    precision: float | None = None
    """Half the width of the confidence interval over the percentile that has to be known well, as far as known."""


OnProgress = Callable[[Progress], None]


def progress_of(test: LoadTest, course: Course) -> Progress:
    """Return where ``course`` stands."""
    edge_s, phase = course.edge_s, course.phase
    latest = [interval for interval in course.intervals[-_most(test) :] if interval.end_s == edge_s]
    latencies = Latencies.merged(interval.latencies for interval in latest)
    length_s = max((interval.end_s - interval.start_s for interval in latest), default=0.0)
    began_s = {"warmup": 0.0, "window": course.window_start_s or 0.0, "drain": course.window_end_s or 0.0}[phase]
    return Progress(
        phase=phase,
        elapsed_s=max(0.0, edge_s - began_s),
        total_s=_total_s(test, phase),
        users=sum({interval.engine: interval.users for interval in latest}.values()),
        in_flight=sum(interval.in_flight for interval in latest),
        offered_per_s=test.load.per_s if isinstance(test.load, Rate) else None,
        throughput=latencies.count / length_s if length_s else 0.0,
        p50_us=latencies.percentile_us(50),
        p99_us=latencies.percentile_us(99),
        errors=course.num_errors,
        steady=phase != "warmup",
        precision=course.precision_so_far,
    )


def _most(test: LoadTest) -> int:
    """How many intervals may belong to one edge: enough to look through, not all there ever were."""
    return 4 * 256 * len(test.mix)


def _total_s(test: LoadTest, phase: str) -> float | None:
    if phase == "warmup":
        return test.max_warmup_s if test.warmup_s is None else test.warmup_s
    if phase == "drain" or isinstance(test.load, Trace):
        return None
    return test.duration_s if test.precision is None else test.max_duration_s
