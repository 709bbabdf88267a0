"""The report: what was measured, the verdict on it, and the files that show both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from naiad.loadtest._codec import without_secret
from naiad.loadtest._files import check_writable, write_atomically
from naiad.loadtest._html import render
from naiad.loadtest._units import show
from naiad.loadtest.baseline import Comparison
from naiad.loadtest.machine import Machine
from naiad.loadtest.measurement import Measurement
from naiad.loadtest.plan import LoadTest
from naiad.loadtest.slo import SloResult
from naiad.loadtest.target import Target
from naiad.loadtest.validity import foreign_load, generator_limits

__all__ = ["SCHEMA_VERSION", "Report"]

SCHEMA_VERSION: Final = 1
DEFAULT_ERROR_BUDGET: Final = 0.01  # of all requests, where no objective says how many may fail
PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The result of a run. ``ok`` is the verdict; :meth:`failures` says in plain sentences what was not good enough."""

    test: LoadTest
    target: Target
    measurement: Measurement
    slos: Sequence[SloResult] = ()
    comparisons: Sequence[Comparison] | None = None
    """Against the baseline; ``None`` without one."""
    incidents: Sequence[str] = ()
    """What happened to the run that makes it a failed one: the server died, an interrupt, …"""
    notes: Sequence[str] = ()
    """What else happened that a reader should know."""
    interrupted: bool = False
    machine: Machine = field(default_factory=Machine.this)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def ok(self) -> bool:
        """Whether the run took place as planned and everything asked of it was reached."""
        return not self.failures()

    def failures(self) -> list[str]:
        """Return a sentence for each reason why this is not a pass."""
        found = list(self.incidents)
        if not self.measurement.latencies.count:
            found.append(f"no request succeeded{_most_common(self.measurement)}")
        elif not any(result.slo.metric == "errors" for result in self.slos):
            found += self._too_many_errors()
        found += [f"objective missed: {_slo_line(result)}" for result in self.slos if not result.met]
        found += [f"regression: {_comparison_line(item)}" for item in self.comparisons or () if item.regressed]
        return found

    def warnings(self) -> list[str]:
        """Return a sentence for each reason to doubt that the result describes the server."""
        return [*self.notes, *generator_limits(self.measurement), *foreign_load(self.measurement)]

    def _too_many_errors(self) -> list[str]:
        share = self.measurement.error_share or 0.0
        if share <= DEFAULT_ERROR_BUDGET:
            return []
        return [
            f"{share:.2%} of the requests failed (more than {DEFAULT_ERROR_BUDGET:.0%}, the budget where no "
            f"objective on errors is given){_most_common(self.measurement)}"
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON has it; loadtest/README.md describes the fields."""
        return {
            "schema_version": SCHEMA_VERSION,
            "naiad_version": version("naiad"),
            "created": self.created.isoformat(timespec="seconds"),
            "verdict": "passed" if self.ok else "failed",
            "failures": self.failures(),
            "warnings": self.warnings(),
            "interrupted": self.interrupted,
            "test": self._test_json(),
            "machine": self.machine.to_json(),
            "results": _results_json(self.measurement),
            "server": _server_json(self.measurement),
            "breakdown_us": breakdown_us(self.measurement),
            "slos": [_slo_json(result) for result in self.slos],
            "baseline": None if self.comparisons is None else [_comparison_json(item) for item in self.comparisons],
            "curve": [
                {"percentile": percentile, "latency_us": us} for percentile, us in self.measurement.latencies.curve()
            ],
            "points": [_point_json(self.measurement, index) for index in range(len(self.measurement.points))],
            "histogram": self.measurement.latencies.encode(),
        }

    def _test_json(self) -> dict[str, Any]:
        test, signature = self.test, self.target.signature
        return {
            "model": test.model,
            "version": test.version,
            "served_versions": list(signature.metadata.versions),
            "backend": self.target.backend,
            "server_version": self.target.server_version,
            "url": without_secret(test.url),
            "users": test.users,
            "batch": test.batch,
            "warmup_s": test.warmup_s,
            "duration_s": test.duration_s,
            "timeout_s": test.timeout_s,
            "data": "random" if test.golden is None else "golden",
            "seed": test.seed,
            "answers_checked": test.check,
        }

    def write(self, *, html: Path | str | None = None, json: Path | str | None = None) -> None:
        """Write the files that are named, each all or nothing.

        Raises:
            OutputNotWritable: one cannot be written.
        """
        wanted = [Path(path) for path in (html, json) if path is not None]
        for path in wanted:
            check_writable(path)
        content = self.to_json()
        if json is not None:
            write_atomically(Path(json), to_text(content))
        if html is not None:
            write_atomically(Path(html), render(content))


def to_text(content: dict[str, Any]) -> str:
    """Return ``content`` as the text of a JSON file; numbers that JSON lacks would be an error."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def breakdown_us(measurement: Measurement) -> dict[str, float] | None:
    """Return where the mean latency went, in µs: outside the server and in each step within; ``None`` if unknown."""
    server, mean_us = measurement.server, measurement.latencies.mean_us
    if server is None or mean_us is None or not server.requests:
        return None
    return {
        "client_and_network": max(0.0, mean_us - server.total_us),
        "queue": server.queue_us,
        "compute_input": server.compute_input_us,
        "compute_infer": server.compute_infer_us,
        "compute_output": server.compute_output_us,
        "server_other": max(0.0, server.total_us - server.queue_us - server.compute_us),
    }


def _results_json(measurement: Measurement) -> dict[str, Any]:
    latencies = measurement.latencies
    percentiles = {f"p{percentile:g}": latencies.percentile_us(percentile) for percentile in PERCENTILES}
    return {
        "window_s": measurement.window_s,
        "requests": latencies.count,
        "failed_requests": measurement.failed,
        "throughput_per_s": measurement.throughput,
        "inferences_per_s": measurement.inferences,
        "latency_us": {"mean": latencies.mean_us, **percentiles, "max": latencies.max_us},
        "error_share": measurement.error_share,
        "errors": {
            name: {"count": count, "example": measurement.examples.get(name, "")}
            for name, count in measurement.errors.items()
        },
        "generator_cpu_share": measurement.cpu_share,
    }


def _server_json(measurement: Measurement) -> dict[str, Any] | None:
    server = measurement.server
    if server is None:
        return None
    return {
        "requests": server.requests,
        "failures": server.failures,
        "inferences": server.inferences,
        "executions": server.executions,
        "cache_hits": server.cache_hits,
        "total_us": server.total_us,
        "queue_us": server.queue_us,
        "compute_us": server.compute_us,
        "compute_input_us": server.compute_input_us,
        "compute_infer_us": server.compute_infer_us,
        "compute_output_us": server.compute_output_us,
        "in_flight": server.in_flight,
        "mean_batch": server.mean_batch,
        "batches": {str(size): count for size, count in server.batches.items()},
    }


def _point_json(measurement: Measurement, index: int) -> dict[str, Any]:
    point = measurement.points[index]
    return {
        "at_s": point.at_s,
        "throughput_per_s": point.throughput,
        "p50_us": point.p50_us,
        "p99_us": point.p99_us,
        "errors": point.errors,
        "users": point.users,
    }


def _slo_json(result: SloResult) -> dict[str, Any]:
    return {
        "slo": result.slo.text,
        "metric": result.slo.metric,
        "limit": result.slo.limit,
        "measured": result.measured,
        "met": result.met,
        "note": result.note,
        "text": _slo_line(result),
    }


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


def _most_common(measurement: Measurement) -> str:
    for name, count in measurement.errors.items():
        return f"; {count} × {name}: {measurement.examples.get(name, '')}"
    return ""
