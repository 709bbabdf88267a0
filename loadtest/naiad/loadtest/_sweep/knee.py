"""The knee of a latency–throughput curve: where more load starts to buy waiting instead of work.

It is the load with the greatest *power*, throughput over mean latency (L. Kleinrock, "Power and deterministic rules of
thumb for probabilistic problems in computer communications", ICC 1979; "Internet congestion control using the power
metric", 2018). For M/M/1 it lies at half of the capacity, and with N users and no randomness at the N at which nobody
waits and nothing idles. It needs no smoothing, no scaling of the axes and no constant to choose, unlike methods that
look for the greatest curvature.

The greatest of noisy values is noisy. Points whose power is within the noise of the greatest one's share the title,
and the knee is said to lie among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from naiad.loadtest._sweep.point import Point

__all__ = ["Knee", "NoKnee", "find_knee"]

_FEWEST: Final = 3
_AS_GOOD: Final = 0.05
"""Powers this near to the greatest are the same where no interval says how sure they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Knee:
    """The load with the greatest throughput for its latency."""

    value: float
    low: float
    """The smallest and the largest load of which that may be true, given the noise."""
    high: float
    throughput_per_s: float
    p99_us: float | None

    @property
    def text(self) -> str:
        """The knee in words."""
        between = "" if self.low == self.high else f" (between {self.low:g} and {self.high:g})"
        p99 = "" if self.p99_us is None else f", p99 {self.p99_us / 1000:.2f} ms"
        return f"knee at {self.value:g}{between}: {self.throughput_per_s:,.0f} requests/s{p99}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "text": self.text}


@dataclass(frozen=True, slots=True)
class NoKnee:
    """Why there is none."""

    reason: str


def find_knee(points: Sequence[Point]) -> Knee | NoKnee:
    """Return the knee of a sweep's valid points, or say why none can be seen."""
    usable = sorted((point for point in points if point.usable), key=lambda point: point.value)
    if len(usable) < _FEWEST:
        return NoKnee(f"no knee: {len(usable)} of {len(points)} points are valid, and it takes {_FEWEST}")
    powers = [_power(point) for point in usable]
    best = max(range(len(usable)), key=powers.__getitem__)
    title = [index for index, power in enumerate(powers) if power >= powers[best] - _noise(usable[best], powers[best])]
    # Neighbours only: a far point of equal power has its own maximum, or none.
    low = high = best
    while low - 1 in title:
        low -= 1
    while high + 1 in title:
        high += 1
    if high == len(usable) - 1:
        return NoKnee(f"no knee up to {usable[-1].value:g}: throughput still grows as fast as latency; sweep further")
    if best == 0:
        return NoKnee(
            f"no knee from {usable[0].value:g} on: latency grows faster than throughput from the first point on; "
            "begin lower"
        )
    point = usable[best]
    return Knee(
        value=point.value,
        low=usable[low].value,
        high=usable[high].value,
        throughput_per_s=point.throughput_per_s,
        p99_us=point.p99_us,
    )


def _power(point: Point) -> float:
    assert point.mean_us
    return point.inferences_per_s / point.mean_us


def _noise(point: Point, power: float) -> float:
    """Return how far the power may be off: by as much as the median, whose interval is known."""
    if point.p50_interval_us is None or not point.p50_us:
        return _AS_GOOD * power
    low, high = point.p50_interval_us
    return max((high - low) / 2 / point.p50_us, _AS_GOOD) * power
