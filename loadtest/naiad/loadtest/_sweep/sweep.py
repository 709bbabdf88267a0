"""The same test at one load after another, and where its knee is."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from naiad.loadtest._sweep.axis import Axis, parse_axis
from naiad.loadtest._sweep.knee import Knee, NoKnee, find_knee
from naiad.loadtest._sweep.point import Point, Run, SweepProgress
from naiad.loadtest._sweep.runs import Runs
from naiad.loadtest._sweep.written import Written
from naiad.loadtest.plan import LoadTest

if TYPE_CHECKING:
    from naiad.loadtest.report import Report

__all__ = ["Sweep", "sweep"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep(Written):
    """What was measured along an axis."""

    axis: Axis
    points: tuple[Point, ...]
    """Ascending by value, whatever the order they were measured in; fewer than asked for where it was interrupted."""
    knee: Knee | None
    text: str
    """The knee, or why there is none, in one line."""
    interrupted: bool = False
    report: Report | None = None
    """The run at the knee, without one that with the most throughput; ``None`` where there is none."""

    @classmethod
    def of(cls, axis: Axis, runs: Sequence[tuple[Point, Report]], *, interrupted: bool = False) -> Sweep:
        """Look for the knee."""
        ordered = sorted(runs, key=lambda run: run[0].value)
        points = tuple(point for point, _ in ordered)
        found = find_knee(points)
        knee, text = (None, found.reason) if isinstance(found, NoKnee) else (found, found.text)
        best = [run for run in ordered if knee is not None and run[0].value == knee.value] or sorted(
            ordered, key=lambda run: (run[0].valid, run[0].throughput_per_s)
        )
        report = best[-1][1] if best else None
        return cls(axis=axis, points=points, knee=knee, text=text, interrupted=interrupted, report=report)

    def representative(self) -> Report | None:
        """Return the report of the run at the knee."""
        return self.report

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, as in report.json."""
        return {
            "variable": self.axis.variable,
            "kind": "sweep",
            "points": [point.to_json() for point in self.points],
            "knee": self.knee.to_json() if self.knee else None,
            "maximum": None,
            "text": self.text,
            "interrupted": self.interrupted,
        }


def sweep(
    test: LoadTest,
    axis: Axis | str,
    *,
    run: Run | None = None,
    shuffle: bool = False,
    on_progress: Callable[[SweepProgress], None] | None = None,
) -> Sweep:
    """Measure ``test`` at every value of an axis, and find the knee of the curve.

    The engine processes are started once, and every run has connections of its own. With ``shuffle`` the values are
    measured in a random order (of the test's seed), so that a machine that slows down does not look like a knee.
    Ctrl-C ends it with the points there are. ``run`` measures one test; the default is :func:`naiad.loadtest.run`.

    Raises:
        InvalidPlan: the axis cannot be read, or a value is out of range.
        naiad.client.ClientError, InvalidData, EngineFailed: as for :func:`naiad.loadtest.run`.
    """
    axis = parse_axis(axis) if isinstance(axis, str) else axis
    values = list(axis.values)
    if shuffle:
        random.Random(test.seed).shuffle(values)  # noqa: S311 - no secret
    tests = [axis.at(test, value) for value in values]
    runs: list[tuple[Point, Report]] = []
    with Runs(test, run) as measure:
        for value, each in zip(values, tests, strict=True):
            _tell(on_progress, len(runs), len(values), f"{axis.variable}={value:g}")
            try:
                report = measure(each)
            except KeyboardInterrupt:
                return Sweep.of(axis, runs, interrupted=True)
            if report.interrupted:
                return Sweep.of(axis, runs, interrupted=True)
            runs.append((Point.of(value, report), report))
            _tell(on_progress, len(runs), len(values), f"{axis.variable}={value:g}: {runs[-1][0].text}")
    return Sweep.of(axis, runs)


def _tell(on_progress: Callable[[SweepProgress], None] | None, done: int, planned: int, text: str) -> None:
    if on_progress is not None:
        on_progress(SweepProgress(done=done, planned=planned, text=text))
