"""When does the measured window begin? Warm-up is found out, while the run goes on.

Throughput and latency of each quarter second are looked at as they come in. What the truncation rule MSER leaves out
is warm-up (see :mod:`naiad.loadtest._truth.trend`); the rest must be at least as long, and have no trend left: none
that is significant, or none that matters. Looking again and again finds a quiet moment by chance, so that the rest has
to be long (2 s at least), and to stay so for some looks; a drift too slow to be seen by then is looked for once more
when the window is over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from naiad.loadtest._engine.messages import Interval
from naiad.loadtest._truth.slots import SLOT_S
from naiad.loadtest._truth.trend import end_of_warmup, trend_of
from naiad.loadtest.latencies import Latencies

__all__ = ["Steadiness", "SteadyDetector", "drift_of"]

_MIN_REST: Final = 8  # slots
_MIN_LEFT_OUT: Final = 2  # connections are made, caches are cold
_LOOKS_IN_A_ROW: Final = 3
_TOLERANCE: Final = 0.05  # of a logarithm: by how much two halves may differ, whatever the noise
_BLUR: Final = 0.05  # a trend known less well than this needs a longer rest to be seen
_CLEAR_REST: Final = 32  # slots
_MIN_COMPLETED: Final = 5

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Steadiness:
    """Whether the load had become steady when the window began."""

    steady: bool
    warmup_s: float
    """What was left out before the window, in seconds since the run's start."""
    detected: bool
    """Whether it was found out; ``False`` where the plan said how long."""
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        return asdict(self)


class SteadyDetector:
    """Decides as intervals come in. ``users`` is how many there will be: before, it is not steady."""

    def __init__(self, max_warmup_s: float, *, users: int = 0) -> None:
        self._max_warmup_s, self._users = max_warmup_s, users
        self._latencies: dict[int, Latencies] = {}
        self._in_slot: dict[int, dict[int, int]] = {}  # users of each engine
        self._newest = -1
        self._good_looks = 0
        self._since: float | None = None
        self._reason = "the run has just begun"
        self._now_s = 0.0

    def add(self, interval: Interval) -> None:
        """Take what an engine did; in any order of engines and models, but of time."""
        index = int((interval.start_s + interval.end_s) / 2 / SLOT_S)
        self._latencies.setdefault(index, Latencies()).add(interval.latencies)
        self._in_slot.setdefault(index, {})[interval.engine] = interval.users
        if index > self._newest:
            self._newest = index
            if self._since is None:
                self._look(index)  # all slots before this one are whole

    @property
    def decided(self) -> bool:
        """Whether the window may begin: it is steady, or the time for that is over."""
        return self._since is not None or self._now_s >= self._max_warmup_s

    @property
    def steady_since_s(self) -> float | None:
        """Since when, in seconds since the run's start; it lies in the past. ``None`` as long as it is not."""
        return self._since

    @property
    def steadiness(self) -> Steadiness:
        """What is known now."""
        if self._since is not None:
            reason = f"throughput and latency are level since {self._since:.2f} s after the start"
            return Steadiness(steady=True, warmup_s=self._since, detected=True, reason=reason)
        waited = f"not steady within {self._now_s:.0f} s: {self._reason}"
        return Steadiness(steady=False, warmup_s=self._now_s, detected=True, reason=waited)

    def _look(self, num_slots: int) -> None:
        self._now_s = num_slots * SLOT_S
        first = self._first_slot(num_slots)
        found = None if first is None else self._find(first, num_slots)
        self._good_looks = 0 if found is None else self._good_looks + 1
        if self._good_looks >= _LOOKS_IN_A_ROW:
            assert found is not None
            self._since = found * SLOT_S

    def _first_slot(self, num_slots: int) -> int | None:
        """Return the slot from which all users were there, and connections and caches had a moment."""
        for index in range(min(self._in_slot), num_slots):
            if sum(self._in_slot.get(index, {}).values()) >= self._users:
                return index + _MIN_LEFT_OUT
        self._reason = f"the number of users had not reached {self._users}"
        return None

    def _find(self, first: int, num_slots: int) -> int | None:
        """Return the slot since which everything is level; ``None``, and why, if it is not."""
        slots = [self._latencies.get(index, Latencies()) for index in range(first, num_slots)]
        if len(slots) < _MIN_REST or sum(slot.count for slot in slots) < _MIN_COMPLETED:
            self._reason = "too few requests were answered to tell"
            return None
        series = series_of(slots)
        left_out = max(end_of_warmup(values) for values in series.values())
        if left_out > len(slots) // 2 or len(slots) - left_out < _MIN_REST:
            self._reason = "the first half was still another level than the second"
            return None
        for name, values in series.items():
            if not _level(values[left_out:]):
                self._reason = f"{name} still had a trend"
                return None
        return first + left_out


def series_of(slots: Sequence[Latencies]) -> dict[str, Numbers]:
    """Return the logarithms of what has to be level; where nothing ended, latencies are those of the slot before."""
    counts = np.log([slot.count + 0.5 for slot in slots])
    return {
        "throughput": counts,
        "the median latency": _filled([slot.percentile_us(50) for slot in slots]),
        "the mean latency": _filled([slot.mean_us for slot in slots]),
    }


def _filled(values: Sequence[float | None]) -> Numbers:
    known = next((value for value in values if value is not None), 1.0)
    found = []
    for value in values:
        known = known if value is None else value
        found.append(math.log(max(known, 1.0)))
    return np.array(found)


def _level(values: Numbers) -> bool:
    trend = trend_of(values)
    if trend.error > _BLUR and values.size < _CLEAR_REST:
        return False
    return abs(trend.change) <= max(_TOLERANCE, 2 * trend.error)


def drift_of(slots: Sequence[Latencies]) -> dict[str, float]:
    """Return what moved by more than a fifth between the halves of a window, by more than chance would: the ratios."""
    if len(slots) < _MIN_REST:
        return {}
    found = {name: trend_of(values) for name, values in series_of(slots).items()}
    return {
        name: math.exp(trend.change)
        for name, trend in found.items()
        if trend.significant(3.0) and abs(trend.change) > math.log(1.2)
    }
