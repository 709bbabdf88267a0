"""When may a run end that has to know a percentile well?

Who looks again and again, and stops at the first narrow interval, stops by luck. So it is looked only when the window
has grown by half since the last look, and look k uses an interval that is wrong with a probability of at most
0.05 · 6 / (π² k²): over any number of looks these add up to 0.05, so that the interval of the look that ended the run
still holds with 95 % (a union bound; Robbins 1970 calls it a confidence sequence).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from naiad.loadtest._engine.messages import Interval
from naiad.loadtest._truth.confidence import ALPHA, quantile_interval
from naiad.loadtest._truth.slots import SLOT_S, slots_of
from naiad.loadtest.plan import Precision

__all__ = ["Reached", "Stopping", "alpha_of"]

_GROWTH: Final = 1.5


def alpha_of(looks: int) -> float:
    """Return how often the interval of a look may be wrong; 0 looks: of a run whose length was given."""
    return ALPHA if looks == 0 else ALPHA * 6 / (math.pi * looks) ** 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """How well the percentile is known at the end."""

    percentile: float
    within: float
    """What was wanted: half the interval's width over the percentile."""
    reached_within: float | None
    """What was reached; ``None`` where there were too few requests for an interval."""
    reached: bool
    looks: int
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        return asdict(self)


class Stopping:
    """Decides when the window, at least ``min_s`` and at most ``max_s`` long, may end."""

    def __init__(self, precision: Precision, *, min_s: float, max_s: float) -> None:
        self._precision, self._max_s = precision, max_s
        self._next_s = min_s
        self._looks = 0
        self._within: float | None = None

    @property
    def looks(self) -> int:
        """How often it was looked."""
        return self._looks

    @property
    def within(self) -> float | None:
        """Half the interval's width over the percentile, at the last look; ``None`` without one."""
        return self._within

    def decide(self, intervals: Sequence[Interval], window_start_s: float, now_s: float) -> Reached | None:
        """Return how well the percentile is known when the window may end at ``now_s``; ``None`` if it may not."""
        length_s = now_s - window_start_s
        if length_s < self._next_s - SLOT_S / 2:
            return None
        self._look(intervals, window_start_s, now_s)
        reached = self._within is not None and self._within <= self._precision.within
        if not reached and length_s < self._max_s - SLOT_S / 2:
            self._next_s = min(length_s * _GROWTH, self._max_s)
            return None
        return self._reached(reached, length_s)

    def _look(self, intervals: Sequence[Interval], start_s: float, end_s: float) -> None:
        self._looks += 1
        slots = slots_of(interval for interval in intervals if interval.end_s > start_s)
        window = [slot.latencies for slot in slots[round(start_s / SLOT_S) : round(end_s / SLOT_S)]]
        bounds = quantile_interval(window, self._precision.percentile / 100, alpha_of(self._looks))
        if bounds is not None:
            self._within = (bounds[1] - bounds[0]) / (bounds[0] + bounds[1])

    def _reached(self, reached: bool, length_s: float) -> Reached:
        name, wanted = f"p{self._precision.percentile:g}", f"(wanted: {self._precision.within:.1%})"
        if self._within is None:
            text = f"{name} is not known: too few requests in {length_s:.0f} s {wanted}"
        else:
            text = f"{name} is known within ± {self._within:.1%} after {length_s:.0f} s {wanted}"
        return Reached(
            percentile=self._precision.percentile,
            within=self._precision.within,
            reached_within=self._within,
            reached=reached,
            looks=self._looks,
            text=text,
        )
