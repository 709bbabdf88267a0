"""The report: what was measured, the verdict on it, and the files that show both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from naiad.loadtest._report.content import SCHEMA_VERSION, read_content
from naiad.loadtest._report.files import check_writable, write_atomically
from naiad.loadtest._report.plan_json import target_json, test_json
from naiad.loadtest._report.units import show, show_share
from naiad.loadtest.machine import Machine
from naiad.loadtest.plan import LoadTest

if TYPE_CHECKING:
    from naiad.loadtest._data.target import Target
    from naiad.loadtest._truth.measurement import Measurement
    from naiad.loadtest.baseline import Comparison
    from naiad.loadtest.slo import SloResult

__all__ = ["Report"]

DEFAULT_ERROR_BUDGET: Final = 0.01  # of all requests, where no objective says how many may fail
Verdict = Literal["passed", "failed", "invalid"]


class Part(Protocol):
    """What is shown in the report without being looked into."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""


class Doubt(Protocol):
    """A reason to doubt that the result describes the server; ``invalid``: it surely does not."""

    @property
    def kind(self) -> str: ...

    @property
    def text(self) -> str: ...

    @property
    def invalid(self) -> bool: ...

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The result of a run. ``verdict`` and ``ok`` judge it; :meth:`failures` says in sentences what was wrong."""

    test: LoadTest
    targets: Sequence[Target]
    """What served the requests, one for each of ``test.mix``."""
    measurement: Measurement
    steadiness: Part | None = None
    precision: Part | None = None
    """How well the wanted percentile is known; ``None`` where no precision was asked for."""
    calibration: Part | None = None
    doubts: Sequence[Doubt] = ()
    slos: Sequence[SloResult] = ()
    comparisons: Sequence[Comparison] | None = None
    """Against a stored baseline; ``None`` without one."""
    sweep: Part | None = None
    """The runs at other loads, where this one stands for a sweep."""
    incidents: Sequence[str] = ()
    """What happened to the run that makes it a failed one: the server died, an interrupt, …"""
    notes: Sequence[str] = ()
    """What else happened that a reader should know."""
    interrupted: bool = False
    command: str | None = None
    """The command line that gives this run again, without secrets."""
    scenario: str | None = None
    """The scenario as TOML, without secrets."""
    machine: Machine = field(default_factory=Machine.this)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def target(self) -> Target:
        """What served the first model of the mix."""
        return self.targets[0]

    @property
    def ok(self) -> bool:
        """Whether the run took place as planned, describes the server, and reached everything asked of it."""
        return self.verdict == "passed"

    @property
    def valid(self) -> bool:
        """Whether it was the server that was measured."""
        return not any(doubt.invalid for doubt in self.doubts)

    @property
    def verdict(self) -> Verdict:
        """``passed``, ``failed``, or ``invalid``: something else than the server decided the result."""
        if self._broken():
            return "failed"
        if not self.valid:
            return "invalid"
        return "failed" if self._not_good_enough() else "passed"

    def failures(self) -> list[str]:
        """Return a sentence for each reason why it is no pass: what ended it, makes it invalid, or was missed."""
        return [*self._broken(), *(doubt.text for doubt in self.doubts if doubt.invalid), *self._not_good_enough()]

    def warnings(self) -> list[str]:
        """Return a sentence for each reason to be careful with the result."""
        unproven = (f"{_slo_line(slo)}: {slo.note}" for slo in self.slos if slo.met and not slo.proven and slo.note)
        return [*self.notes, *(doubt.text for doubt in self.doubts if not doubt.invalid), *unproven]

    def _broken(self) -> list[str]:
        found = list(self.incidents)
        measured = self.measurement
        if not measured.latencies.count:
            early = measured.counted is not None and not measured.window_s and not measured.failed
            found.append(_too_early(measured) if early else f"no request succeeded{_most_common(measured)}")
        return found

    def _not_good_enough(self) -> list[str]:
        found: list[str] = []
        if self.measurement.latencies.count and not any(result.slo.metric == "errors" for result in self.slos):
            found += self._too_many_errors()
        found += [f"objective missed: {_slo_line(result)}" for result in self.slos if not result.met]
        found += [f"regression: {_comparison_line(item)}" for item in self.comparisons or () if item.regressed]
        return found

    def _too_many_errors(self) -> list[str]:
        share = self.measurement.error_share or 0.0
        if share <= DEFAULT_ERROR_BUDGET:
            return []
        return [
            f"{show_share(share)} of the requests failed (more than {DEFAULT_ERROR_BUDGET:.0%}, the budget where no "
            f"objective on errors is given){_most_common(self.measurement)}"
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything as ``report.json`` has it; ``report.schema.json`` describes the fields."""
        measured = self.measurement.to_json()
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "run" if self.sweep is None else "sweep",
            "naiad_version": version("naiad"),
            "created": self.created.isoformat(timespec="seconds"),
            "name": self.test.name,
            "verdict": self.verdict,
            "failures": self.failures(),
            "warnings": self.warnings(),
            "interrupted": self.interrupted,
            "doubts": [doubt.to_json() for doubt in self.doubts],
            "test": test_json(self.test),
            "targets": [target_json(*pair) for pair in zip(self.test.mix, self.targets, strict=True)],
            "machine": self.machine.to_json(),
            "results": measured,
            "parts": self._parts(),
            "steadiness": _json(self.steadiness),
            "precision": _json(self.precision),
            "calibration": _json(self.calibration),
            "slos": [{**result.to_json(), "text": _slo_line(result)} for result in self.slos],
            "comparisons": None if self.comparisons is None else [_comparison_json(item) for item in self.comparisons],
            "cost": self._cost(),
            "limit": self._limit(),
            "sweep": _json(self.sweep),
            "reproduce": {"command": self.command, "scenario": self.scenario},
        }

    def _parts(self) -> list[dict[str, Any]]:
        if len(self.test.mix) < 2:
            return []
        parts = zip(self.test.mix, self.measurement.parts, strict=True)
        return [
            {"model": traffic.model, "version": traffic.version, "weight": traffic.weight, **part.to_json()}
            for traffic, part in parts
        ]

    def _cost(self) -> dict[str, Any]:
        from naiad.loadtest._truth.cost import Cost

        slos = [result.slo for result in self.slos]
        return Cost.of(self.measurement, self.test.price_per_hour, self.machine.cores, slos).to_json()

    def _limit(self) -> dict[str, Any] | None:
        from naiad.loadtest._truth.limit import limit_of

        found = limit_of(self.measurement, [one.kind for one in self.doubts if one.invalid], self.machine.cores)
        return _json(found)

    def write(
        self, *, html: Path | str | None = None, json: Path | str | None = None, csv: Path | str | None = None
    ) -> None:
        """Write the files that are named, each all or nothing.

        ``csv`` is the name of the points over time; the percentiles go beside it, as ``NAME-percentiles.csv``, and
        the runs of a sweep as ``NAME-sweep.csv``.

        Raises:
            OutputNotWritable: one cannot be written; the others are not touched.
        """
        from naiad.loadtest._report.writing import files_of

        found = files_of(self.to_json(), html=html, json=json, csv=csv)
        for path in found:
            check_writable(path)
        for path, text in found.items():
            write_atomically(path, text)

    @staticmethod
    def read(path: Path | str) -> dict[str, Any]:
        """Return the content of a ``report.json`` (or of the page that was made from it), for comparisons.

        Raises:
            InvalidReport: there is no such file, or it holds no report of this version.
        """
        return read_content(Path(path))


def _json(part: Part | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if part is None:
        return None
    return dict(part) if isinstance(part, Mapping) else part.to_json()


def _comparison_json(item: Comparison) -> dict[str, Any]:
    return {
        "metric": item.metric,
        "baseline": item.baseline,
        "measured": item.measured,
        "margin": item.margin,
        "regressed": item.regressed,
        "text": _comparison_line(item),
    }


def _slo_line(result: SloResult) -> str:
    if result.measured is None:
        return f"{result.slo.text} ({result.note or 'nothing was measured'})"
    return f"{result.slo.text} ({show(result.slo.metric, result.measured)} measured)"


def _comparison_line(item: Comparison) -> str:
    change = item.worse_by
    how = f"{abs(change):.0%} {'worse' if change > 0 else 'better'}" if change != float("inf") else "nothing left"
    now, before = show(item.metric, item.measured), show(item.metric, item.baseline)
    return f"{item.metric} {now}, baseline {before}: {how} (margin {item.margin:.0%})"


def _too_early(measurement: Measurement) -> str:
    num_answers = measurement.counted.client if measurement.counted else 0
    return f"the run ended before anything could be measured ({num_answers:,} requests were answered)"


def _most_common(measurement: Measurement) -> str:
    for name, count in measurement.errors.items():
        return f"; {count} × {name}: {measurement.examples.get(name, '')}"
    return ""
