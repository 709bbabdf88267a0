"""Several runs at rising load: the curve, where it bends, and how much the server can take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from naiad.loadtest._report.chart import Chart, Line, Mark, Table
from naiad.loadtest._report.drawing import draw
from naiad.loadtest._report.gpu_section import GPU_COLUMNS
from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.parts import card, grid, pill
from naiad.loadtest._report.scale import Linear, Log, from_zero
from naiad.loadtest._report.units import show_count, show_interval, show_share, show_us, unit_us

__all__ = ["sweep_charts", "sweep_section"]

Content = Mapping[str, Any]


def sweep_section(content: Content) -> Child:
    """Return the curve, what was found on it and every run in a table."""
    sweep = content["sweep"]
    if sweep is None or not sweep["points"]:
        return None
    rest = f"The rest of this page shows one of these runs: {content['test']['load']['text']}."
    found = [f"{sweep['text']}. {rest}"]
    return [
        [el("p", text, class_="found") for text in found],
        el("div", [draw(chart) for chart in sweep_charts(sweep)], class_="charts"),
        card(_table(sweep), _why_invalid(sweep), class_="card spaced"),
    ]


def sweep_charts(sweep: Content) -> list[Chart]:
    """Return latency by throughput, and throughput by load."""
    points = [point for point in sweep["points"] if point["throughput_per_s"] and point["p99_us"] is not None]
    if not points:
        return []
    return [_latency(sweep, points), _throughput(sweep, points)]


def _latency(sweep: Content, points: Sequence[Content]) -> Chart:
    highest = [(point["p99_interval_us"] or (0, point["p99_us"]))[1] for point in points]
    x, _ = from_zero(point["throughput_per_s"] for point in points)
    lowest = min(point["p50_us"] or point["p99_us"] for point in points)
    unit, factor = unit_us(max(highest))
    steep = max(highest) > 30 * lowest
    y: Linear | Log = Log(lowest * 0.8, max(highest) * 1.15, factor) if steep else from_zero(highest, unit_us)[0]
    rates = [point["throughput_per_s"] for point in points]
    intervals = [point["p99_interval_us"] or (None, None) for point in points]
    invalid = [point["p99_us"] if not point["valid"] else None for point in points]
    series = [
        Line(name="p50", x=rates, y=[point["p50_us"] for point in points], color="blue", dots=True),
        Line(
            name="p99",
            x=rates,
            y=[point["p99_us"] for point in points],
            color="red",
            dots=True,
            low=[low for low, _ in intervals],
            high=[high for _, high in intervals],
        ),
    ]
    columns = [1, 2]
    if any(invalid):
        series.append(Line(name="invalid run", x=rates, y=invalid, color="grey", only_dots=True))
        columns.append(3)
    return Chart(
        id="sweep-latency",
        title="Latency by throughput",
        note="Each point is a run; the vertical lines are 95 % intervals of p99.",
        x=x,
        y=y,
        x_title="requests/s",
        y_title=unit,
        series=series,
        table=_figures(sweep, points, [x.position(rate) for rate in rates], "sweep-latency-figures"),
        columns=columns,
        marks=_marks(sweep, "throughput_per_s"),
    )


def _throughput(sweep: Content, points: Sequence[Content]) -> Chart:
    values = [float(point["value"]) for point in points]
    wide = max(values) > 8 * min(values) and len(values) > 2
    x: Linear | Log = Log(min(values) * 0.9, max(values) * 1.1) if wide else from_zero(values)[0]
    y, _ = from_zero([point[field] for point in points for field in ("throughput_per_s", "offered_per_s")])
    series = [
        Line(name="achieved", x=values, y=[point["throughput_per_s"] for point in points], color="green", dots=True)
    ]
    columns = [4]
    if any(point["goodput_per_s"] is not None for point in points):
        series.append(
            Line(
                name="within the objectives",
                x=values,
                y=[point["goodput_per_s"] for point in points],
                color="violet",
                dots=True,
            )
        )
        columns.append(5)
    return Chart(
        id="sweep-throughput",
        title=f"Throughput by {_load_name(sweep)}",
        note="Where the curve stops rising, more load only waits longer.",
        x=x,
        y=y,
        x_title=_load_name(sweep),
        y_title="requests/s",
        series=series,
        table=_figures(sweep, points, [x.position(value) for value in values], "sweep-throughput-figures"),
        columns=columns,
        marks=_marks(sweep, "value"),
    )


def _load_name(sweep: Content) -> str:
    return "offered requests/s" if sweep["variable"] == "rate" else "users"


def _marks(sweep: Content, field: str) -> list[Mark]:
    found = [("knee", sweep["knee"]), ("maximum", sweep["maximum"])]
    known = [(name, item.get(field) or item["value"]) for name, item in found if item is not None]
    return [Mark(name=name, value=value) for name, value in known if value]


def _figures(sweep: Content, points: Sequence[Content], places: Sequence[float], name: str) -> Table:
    rows = [
        (
            place,
            (
                f"{_load_name(sweep)}: {show_count(point['value'])}",
                show_us(point["p50_us"]),
                show_us(point["p99_us"]),
                "; ".join(point["doubts"]) or "–",
                show_count(point["throughput_per_s"]),
                show_count(point["goodput_per_s"]),
            ),
        )
        for place, point in zip(places, points, strict=True)
    ]
    head = (_load_name(sweep), "p50", "p99", "invalid", "requests/s", "goodput/s")
    return Table(id=name, head=head, rows=sorted(rows, key=lambda row: row[0]))


def _table(sweep: Content) -> Html:
    named = (_load_name(sweep), "", "requests/s", "goodput/s", "p50", "p99", "95 % interval of p99", "failed")
    of_gpu = [column for column in GPU_COLUMNS if any(point.get(column[0]) is not None for point in sweep["points"])]
    rows = [
        [
            show_count(point["value"]),
            _judged(point),
            show_count(point["throughput_per_s"]),
            show_count(point["goodput_per_s"]),
            show_us(point["p50_us"]),
            show_us(point["p99_us"]),
            show_interval("p99", point["p99_interval_us"]) or "–",
            show_share(point["error_share"]),
            *(show(point.get(field)) for field, _, show in of_gpu),
        ]
        for point in sweep["points"]
    ]
    head = (*named, *(name for _, name, _ in of_gpu))
    return grid(head, rows, numbers=range(2, len(head)), name="sweep-table")


def _why_invalid(sweep: Content) -> list[Html]:
    return [
        el(
            "p",
            f"{_load_name(sweep)} {show_count(point['value'])} is invalid: {'; '.join(point['doubts'])}",
            class_="note",
        )
        for point in sweep["points"]
        if not point["valid"]
    ]


def _judged(point: Content) -> Child:
    if not point["valid"]:
        return pill("invalid", "doubt")
    if point["met"] is None:
        return None
    return pill("met", "good") if point["met"] else pill("missed", "bad")
