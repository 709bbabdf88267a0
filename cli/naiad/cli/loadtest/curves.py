"""A sweep, or the search for the highest rate: several runs and their curve."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from naiad.cli._console import out, print_json
from naiad.cli._exit import ExitCode
from naiad.cli.loadtest.figures import number, time_us, with_interval
from naiad.cli.loadtest.gpus import GPU_COLUMNS
from naiad.cli.loadtest.live import watch_sweep
from naiad.cli.loadtest.outcome import INTERRUPTED

if TYPE_CHECKING:
    from naiad.loadtest import Scenario

__all__ = ["sweep_and_show"]

_BAR: Final = 12


def sweep_and_show(plan: Scenario, *, as_json: bool, command: str) -> int:
    """Measure, print, write; return the exit code."""
    found = _measured(plan)
    content = found.to_json()
    if as_json:
        print_json(content)
    else:
        _print(content)
    _write(plan, found, command)
    if content["interrupted"]:
        return INTERRUPTED
    if not content["points"]:
        return ExitCode.ERROR
    if not any(point["valid"] for point in content["points"]):
        return ExitCode.INVALID
    if content["kind"] == "find-max" and content["maximum"]["low"] is None:
        return ExitCode.OBJECTIVE_MISSED
    return ExitCode.PASSED


def _measured(plan: Scenario) -> Any:
    from naiad.loadtest import Slo, find_max, sweep

    with watch_sweep() as on_progress:
        if plan.sweep is not None:
            return sweep(plan.test, plan.sweep, on_progress=on_progress)
        assert plan.find_max is not None
        return find_max(plan.test, Slo.parse(plan.find_max), on_progress=on_progress)


def _print(content: dict[str, Any]) -> None:
    variable, points = content["variable"], content["points"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    of_gpu = [column for column in GPU_COLUMNS if any(point.get(column[0]) is not None for point in points)]
    for name in (variable, "requests/s", "p50", "p99 (95 %)", "batch", "failed", *(name for _, name, _ in of_gpu)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("p99", no_wrap=True, overflow="crop")
    top = max((point["p99_us"] or 0.0 for point in points), default=0.0) or 1.0
    for point in points:
        *cells, last = _cells(point, top)
        table.add_row(
            *cells, *(show(point.get(field)) for field, _, show in of_gpu), last, style="" if point["valid"] else "dim"
        )
    out.print(table)
    out.print(content["text"], markup=False, style="bold")


def _cells(point: dict[str, Any], top_us: float) -> list[str | Text]:
    met = point["met"]
    mark = Text() if met is None else Text("✓ " if met else "✗ ", style="green" if met else "red")
    bar = "█" * max(1, round((point["p99_us"] or 0.0) / top_us * _BAR))
    note = "" if point["valid"] else " invalid: the load generator" if point["generator_limited"] else " invalid"
    return [
        f"{point['value']:,g}",
        number(point["throughput_per_s"]),
        time_us(point["p50_us"]),
        with_interval(point["p99_us"], point["p99_interval_us"]),
        number(point["mean_batch"]),
        f"{point['error_share']:.1%}" if point["error_share"] else "",
        mark + Text(bar, style="magenta") + Text(note),
    ]


def _write(plan: Scenario, found: Any, command: str) -> None:
    """Write the files that were asked for, where there is a run to tell of."""
    files: dict[str, Any] = {"html": plan.html, "json": plan.json, "csv": plan.csv}
    if found.report is not None:
        replace(found.report, sweep=found, command=command, scenario=plan.text or None).write(**files)
