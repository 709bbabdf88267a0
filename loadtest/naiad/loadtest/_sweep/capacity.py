"""The answer of a search for the highest rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from naiad.loadtest._sweep.edge import Edge, Observation
from naiad.loadtest._sweep.point import Point
from naiad.loadtest._sweep.written import Written
from naiad.loadtest.slo import Slo

if TYPE_CHECKING:
    from naiad.loadtest.report import Report

__all__ = ["Capacity", "RatePoint"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RatePoint:
    """One run of the search."""

    point: Point
    observation: Observation
    full: bool
    """Whether it had the test's whole duration."""
    report: Report | None = field(default=None, repr=False)

    @property
    def rate_per_s(self) -> float:
        """What was asked for."""
        return self.observation.rate_per_s

    @property
    def valid(self) -> bool:
        """Whether it says something about the server."""
        return self.point.valid

    @property
    def kept(self) -> bool:
        """Whether the objectives were."""
        return self.observation.kept

    @property
    def text(self) -> str:
        """The outcome in one line."""
        verdict = "" if not self.valid else ", kept" if self.kept else ", missed"
        return f"{self.point.text}{verdict}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**self.point.to_json(), "met": self.kept if self.valid else None, "text": self.text, "full": self.full}


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity(Written):
    """The highest rate that keeps the objectives, in requests per second."""

    slos: tuple[Slo, ...]
    per_s: float | None
    """The best guess; ``None`` where no edge was found."""
    low: float | None
    """The edge lies above it with the stated confidence; without an edge: the highest rate that kept the objectives."""
    high: float | None
    confidence: float
    points: tuple[RatePoint, ...]
    """Every run, in the order they were made."""
    reason: str
    """Why there is no edge, or why the interval is wider than asked for; empty otherwise."""

    @property
    def found(self) -> bool:
        """Whether the edge was found."""
        return self.per_s is not None

    @property
    def text(self) -> str:
        """The answer in one line."""
        objectives = " and ".join(slo.text for slo in self.slos)
        why = f" ({self.reason})" if self.reason else ""
        if self.low is not None and self.high is not None:
            bounds = f"{_rate(self.low)}–{_rate(self.high)}"
            return f"{objectives} up to {bounds} requests/s, {self.confidence:.0%} confidence{why}"
        if self.low is not None:
            return f"{objectives} up to {_rate(self.low)} requests/s at least{why}"
        return f"{objectives} is not kept{why}"

    @classmethod
    def of(
        cls,
        slos: tuple[Slo, ...],
        points: Sequence[RatePoint],
        edge: Edge | None,
        *,
        confidence: float,
        within: float,
        reason: str,
    ) -> Self:
        """Return the answer that follows from the runs; ``edge`` is what they say together, where that is known."""
        if edge is None:
            low, reason = _without_edge(points, reason)
            return cls(
                slos=slos, per_s=None, low=low, high=None, confidence=confidence, points=tuple(points), reason=reason
            )
        low, high = edge.interval(confidence)
        if reason and edge.half_width(confidence) > within:
            reason = f"{reason} before it was known to ±{within:.0%}"
        elif edge.half_width(confidence) <= within:
            reason = ""
        return cls(
            slos=slos,
            per_s=edge.rate_per_s,
            low=low,
            high=high,
            confidence=confidence,
            points=tuple(points),
            reason=reason,
        )

    @property
    def report(self) -> Report | None:
        """The run nearest below the edge that kept the objectives; without one, the slowest there is."""
        kept = [point for point in self.points if point.valid and point.kept]
        best = max(kept, key=lambda point: point.rate_per_s, default=None)
        best = best or min(self.points, key=lambda point: point.rate_per_s, default=None)
        return best.report if best else None

    def representative(self) -> Report | None:
        """Return the report of the fastest run that kept the objectives."""
        return self.report

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, as in report.json."""
        maximum = {
            "slo": " and ".join(slo.text for slo in self.slos),
            "value": self.per_s,
            "low": self.low,
            "high": self.high,
            "confidence": self.confidence,
            "found": self.found,
            "reason": self.reason,
            "text": self.text,
        }
        points = sorted(self.points, key=lambda point: point.rate_per_s)
        return {
            "variable": "rate",
            "kind": "find-max",
            "points": [point.to_json() for point in points],
            "knee": None,
            "maximum": maximum,
            "text": self.text,
            "interrupted": self.reason.startswith("interrupted"),
        }


def _without_edge(points: Sequence[RatePoint], reason: str) -> tuple[float | None, str]:
    """Return the highest rate that kept the objectives, and why no edge is known."""
    valid = [point for point in points if point.valid]
    kept = max((point.rate_per_s for point in valid if point.kept), default=None)
    invalid = min((point.rate_per_s for point in points if not point.valid), default=None)
    if reason:
        return kept, reason
    if invalid is not None and all(point.kept for point in valid) and (kept is None or invalid > kept):
        limit = "the load generator was the limit" if _generator(points) else "the run was not valid"
        return kept, f"at {_rate(invalid)} requests/s {limit}: give it more engines, or another machine"
    if kept is not None:
        return kept, "the highest rate that was allowed keeps it, too"
    lowest = min(valid, key=lambda point: point.rate_per_s, default=None)
    if lowest is None:
        return None, "nothing was measured"
    return None, f"not even at {_rate(lowest.rate_per_s)} requests/s: {lowest.point.text}"


def _generator(points: Sequence[RatePoint]) -> bool:
    return any(point.point.generator_limited for point in points)


def _rate(value: float) -> str:
    """Return three digits: 1,234.5 as 1,230 and 0.1234 as 0.123."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"
