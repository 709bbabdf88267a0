"""The page of a search: the outcome, every configuration in one chart, the front, and the A/B run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from naiad.loadtest._report.chart import Chart, Line, Table
from naiad.loadtest._report.drawing import draw
from naiad.loadtest._report.gpu_section import GPU_COLUMNS
from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.page import created, page
from naiad.loadtest._report.parts import card, facts, grid, pill, section, tile, tiles, verdict
from naiad.loadtest._report.scale import from_zero
from naiad.loadtest._report.units import show_us, unit_us

__all__ = ["tune_html"]

Content = Mapping[str, Any]
_STATES = {"measured": "good", "pruned": "doubt", "failed": "bad"}


def tune_html(content: Content) -> str:
    """Return the page for a search's JSON content."""
    trials = content["trials"]
    good = [trial for trial in trials if trial["goodput_per_s"]]
    parts: list[tuple[str, str, Child]] = [
        ("trials", "Configurations", [_chart(content, good), card(_table(content), class_="card spaced")]),
        ("confirmation", "A/B run", _confirmation(content["confirmation"])),
        ("settings", "What changes", _settings(content["winner"])),
    ]
    shown = [(name, title, part) for name, title, part in parts if part is not None]
    return page(
        title=f"{content['model']}: the configuration for {' and '.join(content['slos'])}",
        subtitle=f"{len(trials)} configurations · {created(content['created'])}",
        version=content["naiad_version"],
        links=[(name, title) for name, title, _ in shown],
        content=[
            verdict("passed" if content["winner"] else "no gain confirmed", content["text"], []),
            _tiles(content),
            [section(name, title, part) for name, title, part in shown],
        ],
    )


def _tiles(content: Content) -> Html:
    named = (("winner", "winner"), ("current", "as it is"), ("triton_default", "Triton's default"))
    known = [(title, content[name]) for name, title in named if content[name]]
    return tiles(
        *(tile(title, f"{trial['goodput_per_s']:,.0f}/s", trial["load"] or "kept nowhere") for title, trial in known)
    )


def _chart(content: Content, good: Sequence[Content]) -> Child:
    """Return p99 by goodput: up and to the left is worse."""
    known = [trial for trial in good if trial["p99_us"] is not None]
    if not known:
        return None
    on_front = set(content["front"])
    groups = (
        ("on the front", "blue", [trial for trial in known if trial["number"] in on_front]),
        ("others", "grey", [trial for trial in known if trial["number"] not in on_front]),
    )
    x, _ = from_zero(trial["goodput_per_s"] for trial in known)
    y, _ = from_zero([trial["p99_us"] for trial in known], unit_us)
    unit, _ = unit_us(max(trial["p99_us"] for trial in known))
    series = [
        Line(
            name=name,
            x=[trial["goodput_per_s"] for trial in trials],
            y=[trial["p99_us"] for trial in trials],
            color=color,
            only_dots=True,
        )
        for name, color, trials in groups
        if trials
    ]
    rows = [
        (
            x.position(trial["goodput_per_s"]),
            (trial["text"], f"{trial['goodput_per_s']:,.0f}/s", show_us(trial["p99_us"])),
        )
        for trial in sorted(known, key=lambda trial: trial["goodput_per_s"])
    ]
    chart = Chart(
        id="configurations",
        title="Goodput and p99 of each configuration",
        note="Each at the load where it answered the most within the objectives. Right and down is better.",
        x=x,
        y=y,
        x_title="requests/s within the objectives",
        y_title=f"p99 ({unit})",
        series=series,
        table=Table(id="configurations-figures", head=("configuration", "goodput", "p99"), rows=rows),
        columns=(2,) * len(series),
    )
    return el("div", draw(chart), class_="charts single")


def _table(content: Content) -> Html:
    of_gpu = [column for column in GPU_COLUMNS if any(trial.get(column[0]) is not None for trial in content["trials"])]
    rows = [
        [
            str(trial["number"]),
            [trial["text"], f" ({trial['label']})" if trial["label"] else ""],
            f"{trial['goodput_per_s']:,.0f}" if trial["goodput_per_s"] else "–",
            trial["load"] or "–",
            "–" if trial["p99_us"] is None else show_us(trial["p99_us"]),
            "–" if trial["cpu_us_per_request"] is None else f"{trial['cpu_us_per_request']:,.0f} µs",
            *(show(trial.get(field)) for field, _, show in of_gpu),
            pill("on the front" if trial["number"] in content["front"] else trial["state"], _STATES[trial["state"]]),
        ]
        for trial in sorted(content["trials"], key=lambda trial: -trial["goodput_per_s"])
    ]
    head = ("", "configuration", "goodput /s", "at", "p99", "CPU per request", *(name for _, name, _ in of_gpu), "")
    return grid(head, rows, numbers=(0, 2, *range(4, len(head) - 1)), name="trials-table")


def _confirmation(result: Content | None) -> Child:
    if result is None:
        return None
    rows: list[tuple[str, Child]] = [
        ("as it is", result["baseline"]["name"]),
        ("candidate", result["candidate"]["name"]),
        ("pairs of runs", str(result["num_pairs"])),
        *((metric["metric"], metric["text"]) for metric in result["metrics"]),
    ]
    return card(facts(rows))


def _settings(winner: Content | None) -> Child:
    if winner is None:
        return None
    return card(
        facts([(name, "removed" if value is None else str(value)) for name, value in winner["settings"].items()])
    )
