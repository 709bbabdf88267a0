"""``naiad history``: what changed over many load tests, and when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naiad.cli._console import err, out, print_json
from naiad.cli._exit import ExitCode, MeasuringCommand

if TYPE_CHECKING:
    from naiad.loadtest._gate.history import MetricTrend, Trend

COMMAND_CLASS = MeasuringCommand


def history(
    file: Annotated[Path, typer.Argument(help="What --history of loadtest or gate wrote.")],
    fail: Annotated[
        bool, typer.Option("--fail", help="Exit code 1 where the last runs are worse than those before.")
    ] = False,
    recent: Annotated[
        int, typer.Option(min=1, help="With --fail: how many runs ago the change may lie; older ones were accepted.")
    ] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print the series and their changes as JSON.")] = False,
) -> None:
    """Show where throughput and latency changed for good over the runs in a history file.

    Runs are compared with those of the same models under the same load on this machine; others are left out. A change
    is a split whose sides differ by a t-test at p = 0.001, so single outliers are none. Exit codes: 0 done; 1 with
    --fail, a metric got worse within the last runs; 5 error.

    Examples:

        naiad loadtest digits --history runs/history.jsonl

        naiad history runs/history.jsonl --fail
    """
    from naiad.loadtest import read_history, trends

    entries, num_foreign = read_history(file)
    found = trends(entries)
    num_here = sum(len(trend.entries) for trend in found)
    worse = [item for trend in found for item in trend.regressions(recent)]
    if json:
        content = {
            "runs": num_here,
            "runs_of_other_machines": len(entries) - num_here,
            "unreadable_lines": num_foreign,
            "regressed": bool(worse),
            "series": [trend.to_json() for trend in found],
        }
        print_json(content)
    else:
        _print(found, num_other=len(entries) - num_here, num_foreign=num_foreign)
    if fail and worse:
        raise typer.Exit(ExitCode.REGRESSION)


def _print(found: list[Trend], *, num_other: int, num_foreign: int) -> None:
    if num_other:
        err.print(f"{num_other} runs of other machines are left out", style="dim", markup=False)
    if num_foreign:
        err.print(f"{num_foreign} lines could not be read", style="yellow", markup=False)
    for trend in found:
        out.print(f"{trend.models}, {trend.load}: {len(trend.entries)} runs", markup=False, style="bold")
        for item in trend.metrics:
            _print_metric(trend, item)


def _print_metric(trend: Trend, item: MetricTrend) -> None:
    from naiad.loadtest._report.units import show

    out.print(f"  {item.metric:<12}{show(item.metric, item.values[-1])}", end="", markup=False)
    if not item.changes:
        out.print("  no change", style="dim")
        return
    out.print()
    for change in item.changes:
        entry = trend.entries[change.index]
        when = entry.at.astimezone().strftime("%Y-%m-%d %H:%M")
        label = f" ({entry.label})" if entry.label else ""
        worse = item.is_worse(change)
        out.print(f"    [{'red' if worse else 'green'}]{'worse' if worse else 'better'}[/] ", end="")
        out.print(
            f"since {when}{label}: {show(item.metric, change.before)} → {show(item.metric, change.after)} "
            f"({change.ratio - 1:+.1%}, p {change.p_value:.1g})",
            markup=False,
        )
