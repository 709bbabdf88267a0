"""The highest rate at which a server keeps its objectives, as an interval: "p99<5ms up to 810–860 requests/s, 95 %".

Three steps, each with open loops, in which a server that falls behind cannot slow the arrivals down:

1. A short closed loop says about how much the server can do at all.
2. Short runs, each at twice (or half) the rate of the one before, find a rate that keeps the objectives and one that
   does not.
3. Runs between them, at the rates that tell most, narrow down the edge (`edge.py`): short ones at first, full ones
   when it is nearly known, until the interval is as narrow as was asked for, or the time is over.

A run in which the load generator was the limit says nothing about the server. It is never taken for one that missed
its objective: it bounds the search, and where nothing slower missed either, the answer is "at least".
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from naiad.loadtest._sweep.capacity import Capacity, RatePoint
from naiad.loadtest._sweep.edge import Edge, Evidence, Observation
from naiad.loadtest._sweep.outcome import check_searchable, outcomes_of, shortest_run_s
from naiad.loadtest._sweep.point import Point, Run, SweepProgress
from naiad.loadtest._sweep.runs import Runs
from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.plan import MAX_RATE_PER_S, LoadTest, Rate, Users, check_seconds
from naiad.loadtest.slo import Slo

__all__ = ["find_max"]

_CLOSED_USERS: Final = 16
_SHORT: Final = 0.4
"""Of a full run's length."""
_LOWEST_SHARE: Final = 1 / 256
"""Of the closed loop's rate: who misses the objective even there cannot keep it."""
_FULL_FROM: Final = 4.0
"""Runs are full ones when the interval is at most this many times as wide as asked for."""
_ROOM: Final = 1.6
"""How far outside the bracket the edge may be: one run at each end found it, and one may be wrong."""
_MAX_RUNS: Final = 60
_NEXT: Final = (0.5, 0.85, 0.3)
"""Where the next runs are, as quantiles of what is known: at the edge, below and above it."""


def find_max(
    test: LoadTest,
    slos: Slo | Sequence[Slo],
    *,
    low: float | None = None,
    high: float | None = None,
    confidence: float = 0.95,
    within: float = 0.05,
    repeats: int = 6,
    budget_s: float = 300.0,
    run: Run | None = None,
    clock: Callable[[], float] = time.monotonic,
    on_progress: Callable[[SweepProgress], None] | None = None,
) -> Capacity:
    """Find the highest rate of ``test`` that keeps all objectives, in an open loop.

    ``test.duration_s`` is the length of a full run, and arrivals are those of ``test.load`` where that is a
    :class:`Rate`, else Poisson's. The search ends when half the interval's width is ``within`` of the rate after at
    least ``repeats`` runs near the edge, or when ``budget_s`` are over. ``low`` and ``high`` bound it, in requests per
    second. Without an objective on errors, more than 1 % of failed requests miss the objective.

    Raises:
        InvalidSlo: an objective gets easier with the rate, such as one on the throughput.
        InvalidPlan: another argument is out of range.
        naiad.client.ClientError, InvalidData, EngineFailed: as for :func:`naiad.loadtest.run`.
    """
    slos = (slos,) if isinstance(slos, Slo) else tuple(slos)
    check_searchable(slos)
    _check(low, high, confidence, within, repeats, budget_s)
    with Runs(test, run) as measure:
        search = _Search(replace(test, slos=slos), measure, confidence, within, repeats, on_progress)
        search.ends_at = clock() + budget_s
        search.clock = clock
        try:
            return search.search(low, high)
        except KeyboardInterrupt:
            return search.result("interrupted")


class _Search:
    """The runs so far, and what follows from them."""

    clock: Callable[[], float]
    ends_at: float

    def __init__(
        self,
        test: LoadTest,
        measure: Run,
        confidence: float,
        within: float,
        repeats: int,
        on_progress: Callable[[SweepProgress], None] | None,
    ) -> None:
        self._test, self._measure, self._on_progress = test, measure, on_progress
        self._confidence, self._within, self._repeats = confidence, within, repeats
        self._points: list[RatePoint] = []
        self._edge: Edge | None = None

    def search(self, low: float | None, high: float | None) -> Capacity:
        """Run until the edge is known, the time is over, or it is clear that there is none."""
        first = (low * high) ** 0.5 if low and high else low or self._closed_loop() / 2
        lowest = low or first * 2 * _LOWEST_SHARE
        highest = high or MAX_RATE_PER_S
        kept, missed = self._bracket(min(first, highest), lowest, highest)
        if kept is None or missed is None:
            return self.result("")
        ceiling = min((point.rate_per_s for point in self._points if not point.valid), default=highest)
        self._narrow(max(kept / _ROOM, lowest), min(missed * _ROOM, ceiling, highest), min(ceiling, highest))
        return self.result("")

    def _closed_loop(self) -> float:
        """Return about how many requests per second the server answers."""
        users = self._test.load.users if isinstance(self._test.load, Users) else _CLOSED_USERS
        self._tell(f"a closed loop of {users} users")
        duration_s = _quarters(self._test.duration_s * _SHORT)
        report = self._measure(replace(self._test, load=Users(users=users), duration_s=duration_s, precision=None))
        if report.interrupted:
            raise KeyboardInterrupt
        return max(report.measurement.throughput, 1.0)

    def _bracket(self, rate: float, lowest: float, highest: float) -> tuple[float | None, float | None]:
        """Return a rate that keeps the objectives and one that does not, a factor of two apart."""
        kept: float | None = None
        missed: float | None = None
        while (kept is None or missed is None) and not self._over:
            point = self._at(rate, full=False)
            if not point.valid:
                if kept is None and rate > lowest:
                    rate = max(rate / 2, lowest)
                    continue
                return kept, missed
            if point.kept:
                kept = rate
                if missed is None and rate >= highest:
                    return kept, None
                rate = min(rate * 2, highest)
            else:
                missed = rate
                if kept is None and rate <= lowest:
                    return None, missed
                rate = max(rate / 2, lowest)
        return kept, missed

    def _narrow(self, low: float, high: float, highest: float) -> None:
        """Measure where it tells most, until the interval is narrow enough."""
        evidence = Evidence(low, high, self._observations)
        for turn in range(_MAX_RUNS):
            self._edge = evidence.edge
            width = self._edge.half_width(self._confidence)
            near = sum(point.valid and point.full and point.observation.near for point in self._points)
            if (width <= self._within and near >= self._repeats) or self._over:
                return
            if self._edge.quantile(0.9) > 0.97 * high and high < highest:  # a hiccup ended the bracket too early
                high = min(2 * high, highest)
                evidence = Evidence(low, high, self._observations)
            rate = self._edge.quantile(_NEXT[turn % len(_NEXT)])
            point = self._at(rate, full=width <= _FULL_FROM * self._within)
            if point.valid:
                evidence.add(point.observation)

    @property
    def _observations(self) -> list[Observation]:
        return [point.observation for point in self._points if point.valid]

    def _at(self, rate: float, *, full: bool) -> RatePoint:
        """Measure a rate, long enough for the percentiles asked for."""
        rate = float(f"{rate:.4g}")
        self._tell(f"{rate:,.4g} requests/s")
        wanted_s = self._test.duration_s * (1.0 if full else _SHORT)
        duration_s = _quarters(max(wanted_s, shortest_run_s(self._test.slos, rate)))
        given = self._test.load if isinstance(self._test.load, Rate) else Rate(per_s=rate)
        test = replace(
            self._test,
            load=replace(given, per_s=rate),
            duration_s=duration_s,
            precision=None,
            seed=self._test.seed + len(self._points),  # other arrivals in each run
        )
        report = self._measure(test)
        if report.interrupted:
            raise KeyboardInterrupt
        point = RatePoint(
            point=Point.of(rate, report),
            observation=Observation(
                rate_per_s=rate,
                outcomes=outcomes_of(report.measurement, self._test.slos, duration_s / self._test.duration_s),
            ),
            full=full,
            report=report,
        )
        self._points.append(point)
        self._tell(f"{rate:,.4g}/s: {point.text}")
        return point

    def result(self, reason: str) -> Capacity:
        """Return what is known now."""
        return Capacity.of(
            self._test.slos,
            self._points,
            self._edge,
            confidence=self._confidence,
            within=self._within,
            reason=reason or ("the time was over" if self._over else ""),
        )

    @property
    def _over(self) -> bool:
        return self.clock() >= self.ends_at

    def _tell(self, text: str) -> None:
        if self._on_progress is None:
            return
        if self._edge is not None:
            text += f" ({self._edge.rate_per_s:,.0f}/s ± {self._edge.half_width(self._confidence):.0%})"
        self._on_progress(SweepProgress(done=len(self._points), planned=None, text=text))


def _quarters(seconds: float) -> float:
    """Return the next multiple of a quarter second, which windows are made of."""
    return math.ceil(seconds * 4) / 4


def _check(
    low: float | None, high: float | None, confidence: float, within: float, repeats: int, budget_s: float
) -> None:
    for name, rate in (("low", low), ("high", high)):
        if rate is not None and not 0 < rate <= MAX_RATE_PER_S:
            raise InvalidPlan(f"{name} is a number of requests per second above 0, found {rate}")
    if low is not None and high is not None and low >= high:
        raise InvalidPlan(f"low is below high, found {low:g} and {high:g}")
    if not 0.5 <= confidence < 1:
        raise InvalidPlan(f"confidence is a fraction from 0.5 and below 1, like 0.95, found {confidence}")
    if not 0 < within < 1:
        raise InvalidPlan(f"within is a fraction like 0.05, found {within}")
    if repeats < 3:
        raise InvalidPlan(f"repeats is at least 3 runs near the edge, found {repeats}")
    check_seconds("budget_s", budget_s)
