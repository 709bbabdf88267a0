"""The page that lays two runs over each other, and says what differs between them besides the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from naiad.loadtest._report.chart import Chart, Line, Table
from naiad.loadtest._report.comparison import NEW, OLD, Ratio, cautions, differences, ratios
from naiad.loadtest._report.drawing import draw
from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.latency_charts import batches, distribution
from naiad.loadtest._report.page import created, page
from naiad.loadtest._report.parts import breakdown, card, grid, pill, section, tile, tiles, warning_list
from naiad.loadtest._report.scale import Linear, Log, from_zero
from naiad.loadtest._report.setup import title_of
from naiad.loadtest._report.time_charts import latency_axis
from naiad.loadtest._report.units import show, show_count, show_interval, show_ratio, show_share, show_us

__all__ = ["compare_html"]

Content = Mapping[str, Any]


def compare_html(old: Content, new: Content) -> str:
    """Return the page that compares two reports' JSON content."""
    found = ratios(old, new)
    parts: list[tuple[str, str, Child]] = [
        ("ratios", "Ratios", card(_table(found))),
        ("over-time", "Over time", _over_time(old, new)),
        ("latencies", "Latency", _distribution(old, new)),
        ("where", "Where the time went", _where(old, new)),
        ("setup", "The two runs", _runs(old, new)),
    ]
    return page(
        title=f"{title_of(new)}, compared",
        subtitle=" · ".join(
            f"{name}: {created(content['created'])}, {content['verdict']}" for name, content in ((OLD, old), (NEW, new))
        ),
        version=new["naiad_version"],
        links=[(name, title) for name, title, part in parts if part is not None],
        content=[
            warning_list(list(cautions(old, new))),
            tiles(
                *(_tile(item) for item in found if item.metric in {"throughput", "p50", "p99"}), _errors_tile(old, new)
            ),
            [section(name, title, part) for name, title, part in parts if part is not None],
        ],
    )


def _tile(item: Ratio) -> Html:
    name = "requests per second" if item.metric == "throughput" else item.metric
    return tile(name, show_ratio(item.ratio), f"{show(item.metric, item.old)} → {show(item.metric, item.new)}")


def _errors_tile(old: Content, new: Content) -> Html:
    shares = [content["results"]["error_share"] for content in (old, new)]
    return tile("failed", show_share(shares[1]), f"{show_share(shares[0])} before")


def _table(found: Sequence[Ratio]) -> Html:
    looks = {"better": "good", "worse": "bad", "no clear difference": "doubt"}
    rows = [
        [
            item.metric,
            pill(item.judgement, looks[item.judgement]),
            show(item.metric, item.old),
            show(item.metric, item.new),
            show_ratio(item.ratio),
            f"{show_ratio(item.interval[0])} … {show_ratio(item.interval[1])}" if item.interval else "–",
        ]
        for item in found
    ]
    return grid(("metric", "", OLD, NEW, "change", "95 % interval"), rows, numbers=range(2, 6), name="ratios-table")


def _over_time(old: Content, new: Content) -> Child:
    runs = [(OLD, "grey", old["results"]["points"]), (NEW, "blue", new["results"]["points"])]
    runs = [(name, color, [point for point in points if not point["warmup"]]) for name, color, points in runs]
    if any(len(points) < 2 for *_, points in runs):
        return None
    charts = [
        _curves(runs, "throughput", "Throughput", "throughput_per_s", "requests/s"),
        _curves(runs, "latency-p50", "Latency: p50", "p50_us", None),
        _curves(runs, "latency-p99", "Latency: p99", "p99_us", None),
    ]
    return el("div", [draw(chart) for chart in charts], class_="charts")


def _curves(
    runs: Sequence[tuple[str, str, Sequence[Content]]], name: str, title: str, field: str, unit: str | None
) -> Chart:
    x = Linear(0.0, max(points[-1]["at_s"] for *_, points in runs) * 1.01)
    values = [point[field] for *_, points in runs for point in points]
    y, found_unit = (from_zero(values)[0], unit) if unit else latency_axis(values)[:2]
    written = show_count if unit else show_us
    rows = [
        (
            x.position(point["at_s"]),
            (f"{point['at_s']:.2f} s", *(written(point[field]) if run == other else "–" for run, *_ in runs)),
        )
        for other, _, points in runs
        for point in points
    ]
    return Chart(
        id=name,
        title=title,
        note=f"Of the measurement, without the warm-up.{' The axis is logarithmic.' if isinstance(y, Log) else ''}",
        x=x,
        y=y,
        x_title="seconds of the measurement",
        y_title=found_unit,
        series=[
            Line(name=run, x=[p["at_s"] for p in points], y=[p[field] for p in points], color=color)
            for run, color, points in runs
        ],
        table=Table(
            id=f"{name}-points", head=("second", *(run for run, *_ in runs)), rows=sorted(rows, key=lambda row: row[0])
        ),
        columns=range(1, len(runs) + 1),
        zoom=(x.low, x.high),
    )


def _distribution(old: Content, new: Content) -> Child:
    runs = [(OLD, "grey", old["results"]), (NEW, "blue", new["results"])]
    chart = distribution([(name, color, item["curve"], item["latency_us"]["count"]) for name, color, item in runs])
    sizes = batches([(name, color, item["server"]) for name, color, item in runs])
    drawn = [draw(found) for found in (chart, sizes) if found is not None]
    return el("div", drawn, class_="charts") if drawn else None


def _where(old: Content, new: Content) -> Child:
    bars = breakdown([(OLD, old["results"]["breakdown_us"]), (NEW, new["results"]["breakdown_us"])])
    return card(bars) if bars is not None else None


def _runs(old: Content, new: Content) -> Child:
    rows = [
        ["measured", *(created(content["created"]) for content in (old, new))],
        ["verdict", *(str(content["verdict"]) for content in (old, new))],
        ["load", *(content["test"]["load"]["text"] for content in (old, new))],
        [
            "p99 (95 % interval)",
            *(show_interval("p99", content["results"]["intervals"].get("p99")) or "–" for content in (old, new)),
        ],
        *differences(old, new),
    ]
    return card(grid(("", OLD, NEW), rows, name="differences-table"))
