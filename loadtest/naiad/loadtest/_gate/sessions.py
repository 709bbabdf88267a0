"""Sessions: how one run of either side is measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from naiad.loadtest._gate.subjects import RunValues, Session, Side, Subject
from naiad.loadtest._gate.wheels import WheelSession, WheelSubject
from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.plan import LoadTest

if TYPE_CHECKING:
    from naiad.loadtest._engine.group import EngineGroup
    from naiad.loadtest._truth.measurement import Measurement
    from naiad.loadtest.report import Doubt, Report

__all__ = ["LoadSession", "open_session"]

_ALWAYS: Final = ("p50", "p90", "p99", "mean", "throughput")
_EDGE_S: Final = 0.25  # windows begin and end at its multiples
_LATE_SHARE: Final = 0.1


def open_session(
    baseline: Subject | WheelSubject, candidate: Subject | WheelSubject, group: EngineGroup | None = None
) -> Session:
    """Return the session for two subjects of one kind.

    Raises:
        InvalidPlan: one is a wheel and the other is not.
    """
    if isinstance(baseline, WheelSubject) and isinstance(candidate, WheelSubject):
        return WheelSession(baseline, candidate)
    if isinstance(baseline, Subject) and isinstance(candidate, Subject):
        return LoadSession(baseline, candidate, group)
    raise InvalidPlan("expected two servers (or versions) or two wheels of the client, found one of each")


class LoadSession:
    """Load tests whose engines are the same processes throughout; every run has connections of its own."""

    def __init__(self, baseline: Subject, candidate: Subject, group: EngineGroup | None = None) -> None:
        self._subjects: dict[Side, Subject] = {"baseline": baseline, "candidate": candidate}
        self._own, self._group = group is None, group

    def measure(self, side: Side, *, window_s: float, settle_s: float) -> RunValues:
        """Run one side once."""
        from naiad.loadtest._run.runner import run

        subject = self._subjects[side]
        if subject.prepare is not None:
            subject.prepare()
        test = _one_run(subject.test, window_s=window_s, settle_s=settle_s)
        return values_of(run(test, group=self._engines(test), calibration=False), subject.test)

    def _engines(self, test: LoadTest) -> EngineGroup:
        if self._group is None:
            from naiad.loadtest._engine.group import EngineGroup

            self._group = EngineGroup(test)
        return self._group

    def close(self) -> None:
        """End the engines that the session started."""
        if self._own and self._group is not None:
            self._group.close()


def _one_run(test: LoadTest, *, window_s: float, settle_s: float) -> LoadTest:
    rounded_s = math.ceil(window_s / _EDGE_S) * _EDGE_S
    return replace(test, warmup_s=settle_s, duration_s=rounded_s, precision=None)


def values_of(report: Report, test: LoadTest) -> RunValues:
    """Return what a gate needs of a run."""
    measured = report.measurement
    objectives = {slo.text: measured.value(slo.metric) for slo in test.slos}
    return RunValues(
        values=_present({name: measured.value(name) for name in _ALWAYS} | _others(measured, test)),
        completed=measured.completed,
        objectives=_present(objectives),
        doubts=(*report.incidents, *_doubts(report.doubts, measured)),
        failure=next((f"{name}: {text}" for name, text in measured.examples.items()), ""),
    )


def _doubts(doubts: Iterable[Doubt], measured: Measurement) -> list[str]:
    return [doubt.text for doubt in doubts if doubt.invalid and not _of_tail(doubt, measured)]


def _of_tail(doubt: Doubt, measured: Measurement) -> bool:
    """Whether it is about requests that left late, and only few did.

    A server that uses every core of this machine keeps the generator waiting for a time slice now and then, on both
    sides alike: that is in their p99, and not in what most requests say.
    """
    lag_us, latency_us = measured.lag.percentile_us(50), measured.latencies.percentile_us(50)
    few = lag_us is not None and latency_us is not None and lag_us <= _LATE_SHARE * latency_us
    return doubt.kind == "generator_lag" and few


def _others(measured: Measurement, test: LoadTest) -> dict[str, float | None]:
    from naiad.loadtest._truth.cost import energy_uj

    server, resources = measured.server, measured.resources
    return {
        "p99.9": measured.value("p99.9"),
        "inferences": measured.inferences,
        "goodput": measured.goodput(test.slos),
        "queue": None if server is None else server.queue_us,
        "compute": None if server is None else server.compute_us,
        "cpu": None if resources is None else resources.cpu_us_per_request,
        "energy": energy_uj(measured),
    }


def _present(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
