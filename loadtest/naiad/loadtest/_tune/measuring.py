"""How a candidate is measured: at the load where it answers the most within the objectives, in windows that get longer.

Without a given load that is a closed loop whose number of users is searched, too: double it while the objectives are
kept, halve it while they are not, and try one number in between. Each configuration is so judged at its own best load;
at a fixed number of users a configuration would win that is good at that number only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from naiad.loadtest._sweep.point import Point
from naiad.loadtest._tune.bench import Bench
from naiad.loadtest._tune.trial import Operating
from naiad.loadtest.plan import LoadTest, Rate, Users

if TYPE_CHECKING:
    from naiad.loadtest.report import Report
    from naiad.loadtest.slo import Slo

__all__ = ["Measuring"]

_ALLOWED_ERRORS: Final = 0.01
_FEWEST_REQUESTS: Final = 200
"""In a window; with fewer, a p99 is the slowest but one."""
_LONGEST_WINDOW_S: Final = 6.0
_WARMUP_S: Final = 0.25
_MOST_USERS: Final = 512
_MOST_STEPS_DOWN: Final = 4
_GROWTH: Final = 1.03
"""More users must bring that much more throughput to go on."""


class Measuring:
    """Measures candidates with one test after another; remembers which load was best."""

    def __init__(self, bench: Bench, test: LoadTest, *, window_s: float, searched: bool) -> None:
        self._bench, self._test, self._window_s = bench, test, window_s
        self._searched = searched
        self.users = test.load.users if isinstance(test.load, Users) else 1
        """Where the next candidate begins."""
        self._per_s: float | None = None

    def first(self, *, on_point: Callable[[Operating], None]) -> list[Operating]:
        """Measure in short windows, at the loads that tell where the candidate's best one is."""
        if not self._searched:
            return [self._tell(self._at(None, 1), on_point)]
        points = [self._tell(self._at(self.users, 1), on_point)]
        up = points[0].kept
        while True:
            last = points[-1]
            assert last.users is not None
            users = last.users * 2 if up else last.users // 2
            if not 1 <= users <= _MOST_USERS or (up and not last.kept):
                break
            points.append(self._tell(self._at(users, 1), on_point))
            if not up and points[-1].kept:
                break
            if up and points[-1].throughput_per_s < _GROWTH * last.throughput_per_s:
                break
        between = _between(points)
        if between is not None:
            points.append(self._tell(self._at(between, 1), on_point))
        return points

    def again(self, points: list[Operating], rung: int, *, on_point: Callable[[Operating], None]) -> list[Operating]:
        """Measure once more in windows of ``2**rung`` times the length, at the best load and below it while missed."""
        if not self._searched:
            return [self._tell(self._at(None, 2**rung), on_point)]
        best = max(points, key=lambda point: point.score)
        assert best.users is not None
        users, found = best.users, [self._tell(self._at(best.users, 2**rung), on_point)]
        while not found[-1].kept and users > 1 and len(found) < _MOST_STEPS_DOWN:
            users = max(users * 3 // 4, 1)
            found.append(self._tell(self._at(users, 2**rung), on_point))
        return found

    def _at(self, users: int | None, length: int) -> Operating:
        window_s = self._window_s * length
        if self._per_s:
            window_s = max(window_s, min(_FEWEST_REQUESTS / self._per_s, _LONGEST_WINDOW_S))
        load = self._test.load if users is None else Users(users=users)
        test = replace(
            self._test, load=load, duration_s=math.ceil(window_s * 4) / 4, warmup_s=_WARMUP_S, precision=None
        )
        report = self._bench.measure(test)
        if report.interrupted:
            raise KeyboardInterrupt
        self._per_s = report.measurement.throughput or self._per_s
        # The length asked for, not the one it took: what is compared are rungs.
        return operating(report, self._window_s * length)

    @staticmethod
    def _tell(point: Operating, on_point: Callable[[Operating], None]) -> Operating:
        on_point(point)
        return point


def operating(report: Report, window_s: float) -> Operating:
    """Return the figures of a run."""
    measured, load = report.measurement, report.test.load
    resources = measured.resources
    doubts = [doubt.text for doubt in report.doubts if doubt.invalid]
    point = Point.of(0.0, report)
    return Operating(
        users=load.users if isinstance(load, Users) else None,
        rate_per_s=load.per_s if isinstance(load, Rate) else None,
        throughput_per_s=measured.throughput,
        p99_us=measured.value("p99"),
        worst=_worst(report, report.test.slos),
        cpu_us=resources.cpu_us_per_request if resources else None,
        window_s=window_s,
        gpu_share=point.gpu_share,
        requests_per_second_per_watt=point.requests_per_second_per_watt,
        valid=report.valid,
        note="; ".join(doubts),
    )


def _worst(report: Report, slos: tuple[Slo, ...]) -> float | None:
    """Return the largest of measured over limit; ``None`` where nothing was answered."""
    measured = report.measurement
    if not measured.latencies.count:
        return None
    found = [] if any(slo.metric == "errors" for slo in slos) else [(measured.error_share or 0.0) / _ALLOWED_ERRORS]
    for slo in slos:
        value = measured.value(slo.metric)
        if value is None:
            return None
        over = (slo.limit, value) if slo.operator[0] == ">" else (value, slo.limit)
        found.append(over[0] / over[1] if over[1] > 0 else math.inf if over[0] > 0 else 0.0)
    return max(found)


def _between(points: list[Operating]) -> int | None:
    """Return a number of users between the most that kept the objectives and the fewest above that did not."""
    kept = max((point.users for point in points if point.kept and point.users), default=None)
    missed = min((point.users for point in points if not point.kept and point.users), default=None)
    if kept is None or missed is None or missed - kept < 2:
        return None
    return kept + (missed - kept) // 2
