"""From a report to an exit code, and the files that were asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from naiad.cli._exit import ExitCode

if TYPE_CHECKING:
    from naiad.loadtest import Report, Scenario

__all__ = ["INTERRUPTED", "check_outputs", "exit_code", "write_outputs"]

INTERRUPTED: Final = 130


def check_outputs(scenario: Scenario) -> None:
    """Refuse files that could not be written after the run, before the run.

    Raises:
        OutputNotWritable: one of them could not be.
    """
    from naiad.loadtest import check_writable

    for path in (scenario.html, scenario.json, scenario.csv, scenario.save_baseline, scenario.history):
        if path is not None:
            check_writable(path)


def exit_code(report: Report) -> int:
    """Return what a build should see; of several reasons, the one that makes the others doubtful goes first."""
    if report.interrupted:
        return INTERRUPTED
    if report.verdict == "passed":
        return ExitCode.PASSED
    if not report.measurement.latencies.count or report.incidents:
        return ExitCode.ERROR
    if report.verdict == "invalid":
        return ExitCode.INVALID
    if any(item.regressed for item in report.comparisons or ()):
        return ExitCode.REGRESSION
    if any(not result.met for result in report.slos):
        return ExitCode.OBJECTIVE_MISSED
    return ExitCode.ERROR  # too many requests failed, without an objective that says how many may


def write_outputs(scenario: Scenario, report: Report) -> None:
    """Write reports, the baseline where the run passed, and the history where it measured the server."""
    from naiad.loadtest import Baseline, append_history

    files: dict[str, Path] = {
        name: path
        for name, path in (("html", scenario.html), ("json", scenario.json), ("csv", scenario.csv))
        if path is not None
    }
    arguments: dict[str, Any] = dict(files)
    report.write(**arguments)
    if scenario.save_baseline is not None and report.ok:
        Baseline.of(report.test, report.measurement).write(scenario.save_baseline)
    if scenario.history is not None and report.valid and not report.interrupted and report.measurement.completed:
        append_history(scenario.history, report.test, report.measurement, label=scenario.label)
