"""The same test at one load after another, and where its knee is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from naiad.loadtest._sweep.axis import Axis, parse_axis
from naiad.loadtest._sweep.knee import Knee, NoKnee, find_knee
from naiad.loadtest._sweep.point import Point, Run, SweepProgress
from naiad.loadtest._sweep.runs import Runs
from naiad.loadtest.plan import LoadTest

__all__ = ["Sweep", "sweep"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """What was measured along an axis."""

    axis: Axis
    points: tuple[Point, ...]
    """Ascending by value, whatever the order they were measured in; fewer than asked for where it was interrupted."""
    knee: Knee | None
    text: str
    """The knee, or why there is none, in one line."""
    interrupted: bool = False

    @classmethod
    def of(cls, axis: Axis, points: list[Point], *, interrupted: bool = False) -> Sweep:
        """Look for the knee."""
        ordered = tuple(sorted(points, key=lambda point: point.value))
        knee = find_knee(ordered)
        if isinstance(knee, NoKnee):
            return cls(axis=axis, points=ordered, knee=None, text=knee.reason, interrupted=interrupted)
        return cls(axis=axis, points=ordered, knee=knee, text=knee.text, interrupted=interrupted)

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
    points: list[Point] = []
    with Runs(test, run) as measure:
        for value, each in zip(values, tests, strict=True):
            _tell(on_progress, len(points), len(values), f"{axis.variable}={value:g}")
            try:
                report = measure(each)
            except KeyboardInterrupt:
                return Sweep.of(axis, points, interrupted=True)
            if report.interrupted:
                return Sweep.of(axis, points, interrupted=True)
            points.append(Point.of(value, report))
            _tell(on_progress, len(points), len(values), f"{axis.variable}={value:g}: {points[-1].text}")
    return Sweep.of(axis, points)


def _tell(on_progress: Callable[[SweepProgress], None] | None, done: int, planned: int, text: str) -> None:
    if on_progress is not None:
        on_progress(SweepProgress(done=done, planned=planned, text=text))
