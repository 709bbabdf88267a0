"""What pages are put together from: verdicts, tiles, tables, stacked bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.units import show_share, show_us

__all__ = [
    "STEPS",
    "bar",
    "breakdown",
    "card",
    "facts",
    "grid",
    "pill",
    "section",
    "tile",
    "tiles",
    "verdict",
    "warning_list",
]

STEPS: Final = {
    "generator": ("load generator", "lag", "between the time a request was due and the moment it left"),
    "network_and_grpc": ("network and gRPC", "network", "on the way, and in the gRPC layers of both sides"),
    "queue": ("queue", "queue", "waiting in the server for a batch or a free instance"),
    "compute_input": ("compute: input", "input", "copying inputs"),
    "compute_infer": ("compute: inference", "infer", "the model itself"),
    "compute_output": ("compute: output", "output", "copying outputs"),
    "server_other": ("server, other", "other", "the rest of the server's own time"),
}
_MOST_TILES: Final = 6  # in a row
_LOOKS: Final = {
    "passed": ("good", "✓"),
    "failed": ("bad", "✕"),
    "invalid": ("doubt", "?"),
    "regression": ("bad", "✕"),
    "no regression": ("good", "✓"),
    "inconclusive": ("doubt", "?"),
}


def verdict(word: str, sentence: str, reasons: Sequence[str]) -> Html:
    """Return the verdict with its reasons."""
    look, mark = _LOOKS.get(word, ("doubt", "?"))
    return el(
        "section",
        el("span", mark, class_="mark", aria_hidden="true"),
        el("strong", word.capitalize()),
        el("p", sentence) if sentence else None,
        el("ul", [el("li", reason) for reason in reasons]) if reasons else None,
        class_=f"verdict {look}",
        id="verdict",
        aria_label="Verdict",
    )


def warning_list(warnings: Sequence[str]) -> Html | None:
    """Return the warnings, if there are any."""
    return (
        el("ul", [el("li", text) for text in warnings], class_="warnings", aria_label="Warnings") if warnings else None
    )


def tile(name: str, value: str, below: str = "") -> Html:
    """Return one figure; its unit is written smaller, an interval below it."""
    number, _, unit = value.partition(" ") if not value.endswith("/s") else (value[:-2], "", "/s")
    return el(
        "div",
        el("dt", name),
        el("dd", number, el("small", f" {unit}") if unit else None, el("div", below, class_="range")),
        class_="tile",
    )


def tiles(*found: Html | None) -> Html:
    """Return several figures side by side."""
    shown = [item for item in found if item is not None]
    rows = -(-len(shown) // _MOST_TILES)
    return el("dl", shown, class_="tiles", style=f"--columns:{-(-len(shown) // max(rows, 1))}")


def section(name: str, title: str, *children: Child) -> Html:
    """Return a part of the page with a heading."""
    return el("section", el("h2", title), children, id=name)


def card(*children: Child, class_: str = "card") -> Html:
    """Return a framed part."""
    return el("div", children, class_=class_)


def pill(text: str, look: str) -> Html:
    """Return a short judgement: ``good``, ``bad`` or ``doubt``."""
    return el("span", text, class_=f"pill {look}")


def grid(
    head: Sequence[str], rows: Sequence[Sequence[Child]], *, numbers: Sequence[int] = (), name: str | None = None
) -> Html:
    """Return a table; the columns in ``numbers`` are aligned on the right."""
    look = ["number" if index in numbers else None for index in range(len(head))]
    header = el("tr", [el("th", text, scope="col", class_=kind) for text, kind in zip(head, look, strict=True)])
    body = [
        el("tr", [_cell(index, content, kind) for index, (content, kind) in enumerate(zip(row, look, strict=True))])
        for row in rows
    ]
    return el("div", el("table", el("thead", header), el("tbody", body), id=name), class_="scroll")


def _cell(index: int, content: Child, kind: str | None) -> Html:
    return el("th", content, scope="row") if index == 0 else el("td", content, class_=kind)


def facts(rows: Sequence[tuple[str, Child]]) -> Html:
    """Return names and values; what has no value is left out."""
    known = [(name, value) for name, value in rows if value not in (None, "")]
    body = [el("tr", el("th", name, scope="row"), el("td", value)) for name, value in known]
    return el("div", el("table", el("tbody", body), class_="facts"), class_="scroll")


def breakdown(runs: Sequence[tuple[str, Mapping[str, Any] | None]], *, name: str = "breakdown") -> Html | None:
    """Return where the mean latency went: a bar for each of ``runs`` (name, µs by step), to one scale, and a table."""
    known = [(run, times) for run, times in runs if times and sum(_steps(times).values()) > 0]
    if not known:
        return None
    longest = max(sum(_steps(times).values()) for _, times in known)
    rows = [
        [
            _step_name(step, explained=len(runs) == 1),
            *(_step_cell(_steps(times), step) for _, times in known),
        ]
        for step in STEPS
        if any(step in times for _, times in known)
    ]
    head = ["step", *(run for run, _ in known)]
    table = grid(head, rows, numbers=range(1, len(head)), name=f"{name}-table")
    return el("div", [bar(run, _steps(times), longest) for run, times in known], table, id=f"{name}-chart")


def _step_name(step: str, *, explained: bool) -> list[Child]:
    label, look, meaning = STEPS[step]
    note = el("div", meaning, class_="note") if explained else None
    return [el("i", class_=f"swatch step-{look}"), label, note]


def _steps(times: Mapping[str, Any]) -> dict[str, float]:
    return {step: times[step] for step in STEPS if times.get(step) is not None}


def _step_cell(times: Mapping[str, float], step: str) -> str:
    if step not in times:
        return "–"
    return f"{show_us(times[step])} · {show_share(round(times[step] / (sum(times.values()) or 1), 3))}"


def bar(name: str, times: Mapping[str, float], longest: float) -> Html:
    """Return a stacked bar of µs by step, to the scale on which ``longest`` fills the line."""
    total = sum(times.values())
    parts = [
        el(
            "i",
            class_=f"step-{STEPS[step][1]}",
            style=f"width:{100 * us / total:.3f}%",
            title=f"{STEPS[step][0]}: {show_us(us)}",
            data_step=step,
        )
        for step, us in times.items()
        if us > 0
    ]
    label = el("div", el("span", name), el("span", show_us(total)), class_="label")
    described = ", ".join(f"{STEPS[step][0]} {show_us(us)}" for step, us in times.items())
    stacked = el(
        "div", parts, class_="split", role="img", aria_label=described, style=f"width:{100 * total / longest:.2f}%"
    )
    return el("div", label, stacked, class_="split-row")
