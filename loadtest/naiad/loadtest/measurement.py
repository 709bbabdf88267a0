"""What a run measured: intervals as the engine hands them over, and their sum over the window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, Literal, Self

from naiad.loadtest.latencies import Latencies
from naiad.loadtest.server_times import ServerTimes

__all__ = ["Interval", "Measurement", "Phase", "Point"]

Phase = Literal["warmup", "window", "drain"]
_MAX_POINTS: Final = 240
_MIN_POINT_S: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """What ended between two moments (seconds since the engine started); it lies in one phase only.

    ``window`` holds what ended in the measured window, ``drain`` what was in flight when it closed.
    """

    phase: Phase
    start_s: float
    end_s: float
    users: int
    latencies: Latencies
    """Of the requests that succeeded."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """How many requests failed, by the name of the error's class."""
    examples: Mapping[str, str] = field(default_factory=dict)
    """One message for each class in ``errors``."""
    cpu_s: float = 0.0
    """CPU time of the engine process."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {
            "phase": self.phase,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "users": self.users,
            "latencies": self.latencies.encode(),
            "errors": dict(self.errors),
            "examples": dict(self.examples),
            "cpu_s": self.cpu_s,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` gave."""
        return cls(**{**fields, "latencies": Latencies.decode(fields["latencies"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A short stretch of the run, for curves; ``at_s`` is its middle, counted from the start of the window."""

    at_s: float
    throughput: float
    p50_us: float | None
    p99_us: float | None
    errors: int
    users: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """The measured window.

    Rates count what ended within the window. Percentiles and errors also count what was in flight when it closed, so
    that a server that hung at the end cannot hide.
    """

    window_s: float
    users: int
    rows_per_request: int
    completed: int
    """Requests that succeeded within the window."""
    latencies: Latencies
    errors: Mapping[str, int]
    examples: Mapping[str, str]
    points: Sequence[Point]
    cpu_share: float
    """CPU time of the engine process over the window's length: 1 is one core."""
    server: ServerTimes | None
    """``None`` where the server's statistics of the window could not be had."""

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return sum(self.errors.values())

    @property
    def throughput(self) -> float:
        """Requests per second that succeeded."""
        return self.completed / self.window_s if self.window_s else 0.0

    @property
    def inferences(self) -> float:
        """Inferences (rows) per second that succeeded."""
        return self.throughput * self.rows_per_request

    @property
    def error_share(self) -> float | None:
        """Failed requests as a fraction of all; ``None`` without any request."""
        total = self.latencies.count + self.failed
        return self.failed / total if total else None

    def value(self, metric: str) -> float | None:
        """Return a metric by its name in objectives: ``p99`` (µs), ``throughput`` (1/s), ``errors`` (fraction), …"""
        if metric.startswith("p"):
            return self.latencies.percentile_us(float(metric[1:]))
        return {
            "mean": self.latencies.mean_us,
            "max": self.latencies.max_us,
            "throughput": self.throughput,
            "inferences": self.inferences,
            "errors": self.error_share,
        }[metric]

    @classmethod
    def of(cls, intervals: Sequence[Interval], *, rows_per_request: int, server: ServerTimes | None) -> Self:
        """Sum up the intervals of the window and of the drain after it."""
        window = [interval for interval in intervals if interval.phase == "window"]
        counted = [interval for interval in intervals if window and interval.phase != "warmup"]
        window_s = window[-1].end_s - window[0].start_s if window else 0.0
        errors = sum((Counter(interval.errors) for interval in counted), Counter[str]())
        return cls(
            window_s=window_s,
            users=max((interval.users for interval in window), default=0),
            rows_per_request=rows_per_request,
            completed=sum(interval.latencies.count for interval in window),
            latencies=Latencies.merged(interval.latencies for interval in counted),
            errors=dict(errors.most_common()),
            examples={name: text for interval in counted for name, text in interval.examples.items()},
            points=_points(window),
            cpu_share=sum(interval.cpu_s for interval in window) / window_s if window_s else 0.0,
            server=server,
        )


def _points(window: Sequence[Interval]) -> list[Point]:
    if not window:
        return []
    start_s, end_s = window[0].start_s, window[-1].end_s
    width_s = max(_MIN_POINT_S, (end_s - start_s) / _MAX_POINTS)
    # An interval belongs to the stretch its middle lies in.
    stretches = groupby(window, key=lambda interval: int(((interval.start_s + interval.end_s) / 2 - start_s) / width_s))
    return [_point(list(group), start_s) for _, group in stretches]


def _point(intervals: Sequence[Interval], start_s: float) -> Point:
    latencies = Latencies.merged(interval.latencies for interval in intervals)
    length_s = sum(interval.end_s - interval.start_s for interval in intervals)
    return Point(
        at_s=(intervals[0].start_s + intervals[-1].end_s) / 2 - start_s,
        throughput=latencies.count / length_s if length_s else 0.0,
        p50_us=latencies.percentile_us(50),
        p99_us=latencies.percentile_us(99),
        errors=_sum_errors(intervals),
        users=intervals[-1].users,
    )


def _sum_errors(intervals: Iterable[Interval]) -> int:
    return sum(sum(interval.errors.values()) for interval in intervals)
