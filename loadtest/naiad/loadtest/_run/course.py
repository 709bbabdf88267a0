"""Where a run stands: warm-up, window, end. Decides from what the engines hand over, and does nothing itself."""

from __future__ import annotations

import math
from typing import Final, Literal

from naiad.loadtest._engine.messages import Interval
from naiad.loadtest._truth.steady import Steadiness, SteadyDetector
from naiad.loadtest._truth.stopping import Reached, Stopping
from naiad.loadtest.plan import LoadTest, Trace, Users

__all__ = ["Course", "Phase"]

Phase = Literal["warmup", "window", "drain"]
_EDGE_S: Final = 0.25


class Course:
    """Follows the intervals of a run. All times are seconds since its start."""

    def __init__(self, test: LoadTest, *, ends_itself: bool = False) -> None:
        self._test, self._ends_itself = test, ends_itself
        self._ramp_s = _ramp_s(test)
        self._detector = (
            SteadyDetector(self._ramp_s + test.max_warmup_s, users=_users(test)) if test.warmup_s is None else None
        )
        self._stopping = (
            Stopping(test.precision, min_s=test.duration_s, max_s=test.max_duration_s) if test.precision else None
        )
        self._edges: dict[int, float] = {}  # by engine: up to where it has spoken
        self.intervals: list[Interval] = []
        self.window_start_s: float | None = None
        self.window_end_s: float | None = None
        self.precision: Reached | None = None
        self.num_errors = 0
        self._exhausted_s: float | None = None

    @property
    def edge_s(self) -> float:
        """Up to where all engines have spoken."""
        return min(self._edges.values(), default=0.0)

    @property
    def phase(self) -> Phase:
        """Which part of the run this is."""
        if self.window_end_s is not None:
            return "drain"
        return "warmup" if self.window_start_s is None else "window"

    @property
    def precision_so_far(self) -> float | None:
        """Half the width of the interval over the percentile, at the last look."""
        return None if self._stopping is None else self._stopping.within

    @property
    def looks(self) -> int:
        """How often it was looked whether the run may end."""
        return self._stopping.looks if self._stopping else 0

    @property
    def steadiness(self) -> Steadiness:
        """What is known about the warm-up."""
        if self._detector is not None:
            return self._detector.steadiness
        warmup_s = self._ramp_s + (self._test.warmup_s or 0.0)
        return Steadiness(steady=True, warmup_s=warmup_s, detected=False, reason="the warm-up's length was given")

    def add(self, interval: Interval) -> bool:
        """Take an interval; return whether all engines have come further by it."""
        before = self.edge_s
        self.intervals.append(interval)
        self.num_errors += sum(interval.errors.values())
        self._edges[interval.engine] = max(interval.end_s, self._edges.get(interval.engine, 0.0))
        if self._detector is not None and self.window_start_s is None:
            self._detector.add(interval)
        moved = self.edge_s > before
        if moved:
            self._look()
        return moved

    def _look(self) -> None:
        if self.window_start_s is None:
            self.window_start_s = self._begin()
        if self.window_start_s is not None and self.window_end_s is None:
            self.window_end_s = self._end(self.window_start_s)

    def _begin(self) -> float | None:
        """Return where the window begins once that is known: now, or where the run has become steady before."""
        if self._detector is None:
            begins_s = _up(self.steadiness.warmup_s)
            return begins_s if self.edge_s >= begins_s else None
        if not self._detector.decided:
            return None
        # The server's counters were read at whole seconds.
        return min(float(math.ceil(self.steadiness.warmup_s)), math.floor(self.edge_s))

    def _end(self, start_s: float) -> float | None:
        if self._ends_itself:
            return None
        if isinstance(self._test.load, Trace):
            limit_s = start_s + self._test.max_duration_s
            return self.edge_s if self.edge_s >= min(limit_s, self._exhausted_s or math.inf) else None
        if self._stopping is None:
            return self.edge_s if self.edge_s >= start_s + _up(self._test.duration_s) else None
        self.precision = self._stopping.decide(self.intervals, start_s, self.edge_s)
        return None if self.precision is None else self.edge_s

    def exhausted(self, at_s: float) -> None:
        """Take note that nothing more is due after ``at_s``: a run that is not steady by then is its own window."""
        self._exhausted_s = max(at_s, self._exhausted_s or 0.0)
        if self.window_start_s is None:
            self.window_start_s = 0.0

    def close(self) -> None:
        """End the window here, where it has not ended yet; if it has hardly begun, the whole run is the window."""
        if self.window_start_s is None or (self.window_end_s is None and self.edge_s <= self.window_start_s):
            self.window_start_s = 0.0
        if self.window_end_s is None:
            self.window_end_s = max(self.window_start_s, self.edge_s)

    @property
    def window(self) -> tuple[float, float]:
        """From when to when it is measured; of a run that ended before it was steady, all of it."""
        start_s = self.window_start_s or 0.0
        return start_s, max(start_s, self.edge_s if self.window_end_s is None else self.window_end_s)


def _ramp_s(test: LoadTest) -> float:
    """How long it takes until all users are there."""
    load = test.load
    return load.users / load.spawn_rate if isinstance(load, Users) and load.spawn_rate else 0.0


def _users(test: LoadTest) -> int:
    """How many users there will be."""
    return test.load.users if isinstance(test.load, Users) else 0


def _up(seconds: float) -> float:
    """Round up to an edge of the engines' intervals."""
    return math.ceil(round(seconds / _EDGE_S, 6)) * _EDGE_S
