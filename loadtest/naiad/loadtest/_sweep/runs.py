"""One run after another with the same engine processes, which take longer to start than a short run lasts."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from naiad.loadtest._engine.group import EngineGroup
    from naiad.loadtest._sweep.point import Run
    from naiad.loadtest._truth.calibration import Calibration
    from naiad.loadtest.plan import LoadTest
    from naiad.loadtest.report import Report

__all__ = ["Runs"]


class Runs:
    """Calls ``run`` where one is given, else the real one with an engine group of its own, started once."""

    def __init__(self, test: LoadTest, run: Run | None = None) -> None:
        self._test, self._run = test, run
        self._group: EngineGroup | None = None
        self._calibration: Calibration | bool = True

    def __enter__(self) -> Self:
        if self._run is None:
            from naiad.loadtest._engine.group import EngineGroup

            self._group = EngineGroup(self._test).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.__exit__(kind, error, traceback)

    def __call__(self, test: LoadTest) -> Report:
        """Measure."""
        if self._run is not None:
            return self._run(test)
        from naiad.loadtest._run.runner import run
        from naiad.loadtest._truth.calibration import Calibration

        report = run(test, group=self._group, calibration=self._calibration)
        if isinstance(report.calibration, Calibration):  # it is of this generator and machine: once is enough
            self._calibration = report.calibration
        return report
