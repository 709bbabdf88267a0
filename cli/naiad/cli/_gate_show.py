"""What a gate looks like on a terminal, while it goes on and when it is over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from naiad.cli._console import err, out

if TYPE_CHECKING:
    from naiad.loadtest import FalseAlarms, GateProgress, GateResult
    from naiad.loadtest._gate.metric import MetricResult

__all__ = ["print_false_alarms", "print_result", "watch_gate"]

_COLORS: Final = {"regression": "red", "no regression": "green", "inconclusive": "yellow", "invalid": "yellow"}


@contextmanager
def watch_gate(num_gates: int = 1) -> Iterator[Callable[[GateProgress], None] | None]:
    """Show how far a gate is, where somebody is looking: pairs, those discarded, and the interval so far."""
    if not err.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("warming up", total=None, figures="")
        number = 0

        def update(latest: GateProgress) -> None:
            nonlocal number
            if latest.phase == "warming up":
                number += 1
            gate = f"comparison {number}/{num_gates}, " if num_gates > 1 else ""
            bar.update(
                task,
                description=gate + latest.phase,
                total=latest.max_pairs,
                completed=latest.num_pairs,
                figures=_figures(latest),
            )
            if latest.discarded:
                bar.console.print(f"a pair was discarded: {latest.discarded}", markup=False, style="dim")

        yield update


def _figures(latest: GateProgress) -> str:
    parts = [f"{latest.num_pairs}/{latest.max_pairs} pairs"]
    if latest.num_discarded:
        parts.append(f"{latest.num_discarded} discarded")
    if latest.pair_s is not None:
        parts.append(f"at most {latest.pair_s * (latest.max_pairs - latest.num_pairs):.0f} s left")
    for item in latest.assessment.judgements[:1] if latest.assessment is not None else ():
        low, high = (f"{math.expm1(bound):+.0%}" if math.isfinite(bound) else "?" for bound in (item.low, item.high))
        parts.append(f"{item.rule.name} {math.expm1(item.effect):+.1%} ({low} … {high})")
    return " · ".join(parts)


def print_result(result: GateResult) -> None:
    """Print a row for each metric, what it rests on, and the verdict."""
    out.print(f"{result.candidate}\nagainst {result.baseline}", markup=False, style="dim")
    if result.metrics:
        out.print(_table(result))
    for objective in result.objectives:
        out.print(f"[{'green' if objective.met else 'red'}]{'✓' if objective.met else '✗'}[/] ", end="")
        out.print(objective.line, markup=False)
    for warning in result.warnings:
        out.print("[yellow]warning:[/] ", end="")
        out.print(warning, markup=False)
    seen = [item.smallest_effect for item in result.metrics if item.judged and math.isfinite(item.smallest_effect)]
    sees = f", sees changes from {max(seen):.0%} on" if seen else ""
    out.print(
        f"{result.num_pairs} pairs of {result.window_s:g} s, {len(result.discarded)} discarded{sees}; "
        f"{result.elapsed_s:.0f} s, seed {result.seed}",
        markup=False,
        style="dim",
    )
    out.print(f"[bold {_COLORS[result.verdict]}]{result.verdict}[/]: ", end="")
    out.print(result.reason, markup=False)


def _table(result: GateResult) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "baseline", "candidate", "change", "interval", "margin", ""):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for item in result.metrics:
        table.add_row(*_row(item), style=None if item.judged else "dim")
    return table


def _row(item: MetricResult) -> tuple[str | Text, ...]:
    low, high = item.interval
    verdict = Text(item.verdict, style=_COLORS[item.verdict]) if item.judged else Text("watched")
    return (
        item.name,
        item.written(median(item.baselines)),
        item.written(median(item.candidates)),
        f"{item.ratio - 1:+.1%}",
        f"{low - 1:+.0%} … " + (f"{high - 1:+.0%}" if math.isfinite(high) else "?"),
        f"{item.margin:.0%}" if item.judged else "",
        verdict,
    )


def print_false_alarms(alarms: FalseAlarms) -> None:
    """Print how often the gate erred."""
    out.print(f"[bold {'green' if alarms.ok else 'red'}]{'✓' if alarms.ok else '✗'}[/] ", end="")
    out.print(alarms.text, markup=False)
