"""The gate's result as a comment on a pull request: a sentence and a table, in GitHub's Markdown."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Final

from naiad.loadtest._gate.metric import MetricResult
from naiad.loadtest._gate.result import GateResult
from naiad.loadtest._report.units import UNKNOWN

__all__ = ["to_markdown"]

_MARKS: Final = {"regression": "❌", "no regression": "✅", "inconclusive": "❔", "invalid": "⚠️"}
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>|#~])")


def to_markdown(result: GateResult) -> str:
    """Return the result as GitHub shows it: the verdict, why, a row for each metric, and what it rests on."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: GateResult) -> Iterator[str]:
    missed = [objective for objective in result.objectives if not objective.met]
    mark = "❌" if missed and result.ok else _MARKS[result.verdict]
    yield f"### {mark} naiad gate: {result.verdict}{', objective missed' if missed else ''}"
    yield ""
    yield f"{_plain(result.candidate)} against {_plain(result.baseline)}: {_plain(result.reason)}."
    yield ""
    if result.metrics:
        yield "| | baseline | candidate | change | interval | margin | verdict |"
        yield "|---|--:|--:|--:|--:|--:|---|"
        yield from map(_row, result.metrics)
        yield ""
    for objective in result.objectives:
        yield f"- {'✅' if objective.met else '❌'} {_plain(objective.line)}"
    if result.objectives:
        yield ""
    yield from (f"> ⚠️ {_plain(warning)}" for warning in result.warnings)
    yield f"<sub>{_plain(_basis(result))}</sub>"


def _row(item: MetricResult) -> str:
    low, high = item.interval
    cells = (
        f"**{_plain(item.name)}**" if item.judged else _plain(item.name),
        item.written(median(item.baselines)),
        item.written(median(item.candidates)),
        _change(item.ratio),
        f"{_change(low)} … {_change(high)}",
        f"{item.margin:.0%}" if item.judged else "",
        f"{_MARKS[item.verdict]} {item.verdict}" if item.judged else "watched",
    )
    return f"| {' | '.join(cells)} |"


def _change(ratio: float) -> str:
    return f"{(ratio - 1) * 100:+.1f} %" if math.isfinite(ratio) else UNKNOWN


def _basis(result: GateResult) -> str:
    reasons = Counter("noise" if pair.noise else "doubt" for pair in result.discarded)
    discarded = (
        f", {len(result.discarded)} discarded ({reasons['noise']} for noise, {reasons['doubt']} for a doubtful run)"
        if result.discarded
        else ""
    )
    smallest = [item.smallest_effect for item in result.metrics if item.judged and math.isfinite(item.smallest_effect)]
    sees = f"; the smallest change it sees is {max(smallest):.0%}" if smallest else ""
    return (
        f"{result.num_pairs} interleaved pairs of {result.window_s:g} s{discarded}; at most "
        f"{result.options.alpha:.0%} false alarms over all metrics and looks{sees}; "
        f"{result.elapsed_s:.0f} s on {result.machine}; seed {result.seed}"
    )


def _plain(text: str) -> str:
    """Return ``text`` as it is, where Markdown would make something of it."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
