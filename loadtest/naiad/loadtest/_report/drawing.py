"""Draws charts: SVG for the shapes, HTML for the words, a table for the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from naiad.loadtest._report.chart import Band, Bars, Chart, Line, Mark, Table
from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.scale import Scale, Tick

__all__ = ["draw", "figures", "side_by_side"]

_WIDTH: Final = 1000
_HEIGHT: Final = 1000
_MIN_LABEL_GAP: Final = 0.05  # of the axis; closer labels would run into each other on a phone


def draw(chart: Chart) -> Html:
    """Return the chart as a figure."""
    low, high = chart.zoom or (None, None)
    return el(
        "figure",
        el("figcaption", el("h3", chart.title), el("p", chart.note, class_="note") if chart.note else None),
        _legend(chart),
        el(
            "div",
            el("span", chart.y_title, class_="ytitle"),
            el("div", _y_labels(chart.y), class_="ylabels", aria_hidden="true"),
            el("div", _svg(chart), _words(chart), class_="plot", tabindex="0", role="group", aria_label=chart.title),
            el("div", _x_labels(chart.x.ticks(), chart.x), class_="xlabels", aria_hidden="true"),
            el("span", chart.x_title, class_="xtitle"),
            class_="canvas",
        ),
        figures(chart.table) if chart.shows_table else None,
        class_="chart",
        id=chart.id,
        data_table=chart.table.id,
        data_columns=",".join(map(str, chart.columns)),
        data_low=low,
        data_high=high,
    )


def side_by_side(charts: Sequence[Chart]) -> Child:
    """Return charts in two columns; those over time have their figures in one table below."""
    if not charts:
        return None
    shared = None
    if not charts[0].shows_table:
        shared = el("div", figures(charts[0].table, "All points over time"), class_="shared")
    return [el("div", [draw(chart) for chart in charts], class_="charts"), shared]


def figures(table: Table, name: str = "Figures") -> Html:
    """Return the figures of a chart, or of several, folded away."""
    rows = (
        el("tr", el("th", cells[0], scope="row"), [el("td", cell) for cell in cells[1:]], data_x=f"{x:.5f}")
        for x, cells in table.rows
    )
    head = el("thead", el("tr", [el("th", name, scope="col") for name in table.head]))
    content = el("div", el("table", head, el("tbody", rows), id=table.id, class_="figures"), class_="scroll")
    return el("details", el("summary", f"{name} ({len(table.rows)} rows)"), content)


def _legend(chart: Chart) -> Html | None:
    if len(chart.series) < 2:
        return None
    keys = (
        el(
            "button",
            el("i", class_=f"key {series.color}{' dashed' if isinstance(series, Line) and series.dashed else ''}"),
            series.name,
            type="button",
            aria_pressed="true",
            data_series=index,
        )
        for index, series in enumerate(chart.series)
    )
    return el("div", keys, class_="legend")


def _svg(chart: Chart) -> Html:
    grid = "".join(f"M0 {_y(chart.y, value)}H{_WIDTH}" for value, _ in chart.y.ticks())
    parts = [
        el("title", chart.title),
        el("desc", chart.note or f"{chart.y_title} by {chart.x_title}"),
        [_band(chart, band) for band in chart.bands],
        el("path", d=grid, class_="grid"),
        [_mark(chart, mark) for mark in chart.marks],
        [
            el("g", _shapes(chart, series), class_=f"series {series.color}", data_series=index, data_name=series.name)
            for index, series in enumerate(chart.series)
        ],
    ]
    return el("svg", parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", preserveAspectRatio="none", role="img")


def _shapes(chart: Chart, series: Line | Bars) -> list[Html]:
    if isinstance(series, Bars):
        return [_bar(chart, edges, y) for edges, y in zip(series.edges, series.y, strict=True)]
    return _line(chart, series)


def _bar(chart: Chart, edges: tuple[float, float], y: float) -> Html:
    left, right = (_WIDTH * chart.x.position(edge) for edge in edges)
    top = _HEIGHT * (1 - _inside(chart.y.position(y)))
    return el(
        "rect", x=f"{left:.1f}", y=f"{top:.1f}", width=f"{max(right - left, 0.5):.1f}", height=f"{_HEIGHT - top:.1f}"
    )


def _line(chart: Chart, line: Line) -> list[Html]:
    places = [None if y is None else (_x(chart.x, x), _y(chart.y, y)) for x, y in zip(line.x, line.y, strict=True)]
    found = []
    if line.low:
        found.append(el("path", d=_whiskers(chart, line), class_="whiskers"))
    if not line.only_dots:
        found += _strokes(line, places)
    if line.dots or line.only_dots or len(line.x) == 1:
        # A line of no length with round ends is a dot that stays round however the drawing is stretched.
        dots = "".join(f"M{place[0]} {place[1]}h0.01" for place in places if place is not None)
        found.append(el("path", d=dots, class_="dots"))
    return found


def _strokes(line: Line, places: Sequence[tuple[str, str] | None]) -> list[Html]:
    if line.dashed_from is None:
        return [el("path", d=_path(places), class_="line dashed" if line.dashed else "line")]
    sure, unsure = places[: line.dashed_from + 1], places[line.dashed_from :]
    return [el("path", d=_path(sure), class_="line"), el("path", d=_path(unsure), class_="line dashed")]


def _path(places: Sequence[tuple[str, str] | None]) -> str:
    written, pen_down = [], False
    for place in places:
        if place is not None:
            written.append(f"{'L' if pen_down else 'M'}{place[0]} {place[1]}")
        pen_down = place is not None
    return "".join(written)


def _whiskers(chart: Chart, line: Line) -> str:
    ends = zip(line.x, line.low, line.high, strict=True)
    return "".join(
        f"M{_x(chart.x, x)} {_y(chart.y, low)}V{_y(chart.y, high)}"
        for x, low, high in ends
        if low is not None and high is not None
    )


def _band(chart: Chart, band: Band) -> Html:
    left, right = (_WIDTH * _inside(chart.x.position(value)) for value in (band.start, band.end))
    return el("rect", x=f"{left:.1f}", y=0, width=f"{right - left:.1f}", height=_HEIGHT, class_="band")


def _mark(chart: Chart, mark: Mark) -> Html:
    path = f"M{_x(chart.x, mark.value)} 0V{_HEIGHT}" if mark.axis == "x" else f"M0 {_y(chart.y, mark.value)}H{_WIDTH}"
    return el("path", d=path, class_="rule")


def _words(chart: Chart) -> list[Html]:
    """Return the names of bands and marks, laid over the drawing."""
    words = [
        el("span", band.name, class_="word", style=f"left:{_percent(_inside(chart.x.position(band.start)))};top:0")
        for band in chart.bands
    ]
    for index, mark in enumerate(chart.marks):
        place = _inside((chart.x if mark.axis == "x" else chart.y).position(mark.value))
        if mark.axis == "x":
            side = f"right:{_percent(1 - place)}" if place > 0.7 else f"left:{_percent(place)}"
            words.append(el("span", mark.name, class_="word at-mark", style=f"{side};bottom:{1.3 * index:g}em"))
        else:
            words.append(el("span", mark.name, class_="word above", style=f"right:0;bottom:{_percent(place)}"))
    return words


def _y_labels(scale: Scale) -> list[Html]:
    return [el("span", label, style=f"bottom:{_percent(scale.position(value))}") for value, label in scale.ticks()]


def _x_labels(ticks: Sequence[Tick], scale: Scale) -> list[Html]:
    labels, last = [], -1.0
    for value, label in ticks:
        place = scale.position(value)
        if place - last >= _MIN_LABEL_GAP:
            labels.append(el("span", label, style=f"left:{_percent(place)}"))
            last = place
    return labels


def _x(scale: Scale, value: float) -> str:
    return f"{_WIDTH * scale.position(value):.1f}"


def _y(scale: Scale, value: float) -> str:
    return f"{_HEIGHT * (1 - _inside(scale.position(value))):.1f}"


def _inside(place: float) -> float:
    return min(max(place, 0.0), 1.0)


def _percent(place: float) -> str:
    return f"{100 * place:.2f}%"
