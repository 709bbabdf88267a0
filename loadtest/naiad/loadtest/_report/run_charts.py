"""The charts of a run: over time, and by percentile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from naiad.loadtest._report.chart import Band, Bars, Chart, Line, Mark, Table
from naiad.loadtest._report.scale import Categories, Linear, Log, Rarity, from_zero
from naiad.loadtest._report.units import show_bytes, show_count, show_share, show_us, unit_us

__all__ = ["distribution", "histogram", "batches", "over_time", "percentile_name"]

_MIN_BEYOND: Final = 10  # a percentile with fewer requests beyond it hangs on single requests
Points = Sequence[Mapping[str, Any]]
Content = Mapping[str, Any]

# What the table of all points has: field, heading, how a value is written.
_COLUMNS: Final = (
    ("offered_per_s", "offered/s", show_count),
    ("throughput_per_s", "requests/s", show_count),
    ("p50_us", "p50", show_us),
    ("p99_us", "p99", show_us),
    ("service_p99_us", "p99 of the service time", show_us),
    ("in_flight", "in flight", show_count),
    ("users", "users", show_count),
    ("errors", "errors", show_count),
    ("server_cpu_cores", "server CPU cores", show_count),
    ("server_rss_bytes", "server memory", show_bytes),
    ("gpu_share", "GPU busy", show_share),
)


def over_time(results: Content, slos: Sequence[Content] = (), prefix: str = "") -> list[Chart]:
    """Return the curves over time that there is data for; they share one x-axis and one table."""
    points = results["points"]
    if len(points) < 2:
        return []
    return _TimeCharts(points, slos, prefix, open_loop=results["users"] is None).charts()


class _TimeCharts:
    def __init__(self, points: Points, slos: Sequence[Content], prefix: str, *, open_loop: bool) -> None:
        self._points, self._slos, self._prefix, self._open_loop = points, slos, prefix, open_loop
        self._at_s = [point["at_s"] for point in points]
        self._half_s = min(after - before for before, after in pairwise(self._at_s)) / 2
        self._x = Linear(self._at_s[0] - self._half_s, self._at_s[-1] + self._half_s)
        self._columns = [column for column in _COLUMNS if self._known(column[0])]
        self._table = Table(
            id=f"{prefix}points",
            head=("second", *(heading for _, heading, _ in self._columns)),
            rows=[
                (
                    self._x.position(point["at_s"]),
                    (
                        f"{point['at_s']:.2f} s{' (warm-up)' if point['warmup'] else ''}".replace("-", "−"),
                        *(show(point[field]) for field, _, show in self._columns),
                    ),
                )
                for point in points
            ],
        )

    def charts(self) -> list[Chart]:
        """Return every chart that has data."""
        found = [self._throughput(), self._latency(), self._in_flight()]
        if any(point["errors"] for point in self._points):
            found.append(self._errors())
        if self._known("server_cpu_cores"):
            found.append(self._chart("cpu", "CPU of the server", "cores", [("server_cpu_cores", "cores", "green")]))
        if self._known("server_rss_bytes"):
            found.append(self._memory())
        if self._known("gpu_share"):
            share = Linear(0.0, 1.06, 0.01)
            found.append(self._chart("gpu", "GPU of the server", "% of the time busy", [("gpu_share", "GPU busy", "violet")], y=share))
        return found

    def _throughput(self) -> Chart:
        series = [("throughput_per_s", "achieved", "green")]
        if self._known("offered_per_s"):
            series.insert(0, ("offered_per_s", "offered", "grey"))
        note = "Arrivals that were due, and answers that came." if len(series) == 2 else "Answers per second."
        return self._chart("throughput", "Throughput", "requests/s", series, note=note, shows_table=True)

    def _latency(self) -> Chart:
        series = [("p50_us", "p50", "blue"), ("p99_us", "p99", "red")]
        note = "From the request's sending to its answer."
        if self._open_loop:
            note = "From the moment a request was due to its answer; the service time counts from the moment it left."
            if self._known("service_p99_us") and any(p["service_p99_us"] != p["p99_us"] for p in self._points):
                series.append(("service_p99_us", "p99 of the service time", "amber"))
        largest = max((point["p99_us"] or 0.0 for point in self._points), default=0.0)
        limits = [
            Mark(name=slo["slo"], value=slo["limit"], axis="y")
            for slo in self._slos
            if slo["metric"] in {"p50", "p99"} and slo["limit"] < 3 * largest
        ]
        y, unit = from_zero([largest, *(mark.value for mark in limits)], unit_us)
        return self._chart("latency", "Latency", unit, series, note=note, y=y, marks=limits)

    def _in_flight(self) -> Chart:
        series = [("in_flight", "in flight", "violet")]
        if self._known("users"):
            series.insert(0, ("users", "users", "grey"))
        return self._chart("in-flight", "Requests in flight", "requests", series, note="Sent and not yet answered, at the end of each interval.")

    def _memory(self) -> Chart:
        largest = max(point["server_rss_bytes"] or 0 for point in self._points)
        unit, factor = ("GiB", 2.0**30) if largest >= 2**30 else ("MiB", 2.0**20)
        y = Linear(0.0, largest * 1.06, factor)
        return self._chart("memory", "Memory of the server", unit, [("server_rss_bytes", "resident", "teal")], y=y)

    def _errors(self) -> Chart:
        edges = [(max(at_s - self._half_s, self._x.low), at_s + self._half_s) for at_s in self._at_s]
        errors = [float(point["errors"]) for point in self._points]
        y, _ = from_zero(errors)
        return self._put("errors", "Failed requests", "Per interval.", "requests", [Bars(name="errors", edges=edges, y=errors, color="red")], ("errors",), y)

    def _chart(
        self,
        name: str,
        title: str,
        unit: str,
        series: Sequence[tuple[str, str, str]],
        *,
        note: str = "",
        y: Linear | None = None,
        marks: Sequence[Mark] = (),
        shows_table: bool = False,
    ) -> Chart:
        lines = [
            Line(name=label, x=self._at_s, y=[point[field] for point in self._points], color=color, dashed=color == "grey")
            for field, label, color in series
        ]
        if y is None:
            y, _ = from_zero(value for line in lines for value in line.y)
        return self._put(name, title, note, unit, lines, [field for field, _, _ in series], y, marks, shows_table)

    def _put(
        self,
        name: str,
        title: str,
        note: str,
        unit: str,
        series: Sequence[Line | Bars],
        fields: Sequence[str],
        y: Linear,
        marks: Sequence[Mark] = (),
        shows_table: bool = False,
    ) -> Chart:
        known = [field for field, _, _ in self._columns]
        warmup = [Band(name="warm-up", start=self._x.low, end=0.0)] if self._x.low < 0 else []
        return Chart(
            id=f"{self._prefix}{name}",
            title=title,
            note=note,
            x=self._x,
            y=y,
            x_title="seconds of the measurement",
            y_title=unit,
            series=series,
            table=self._table,
            columns=[known.index(field) + 1 for field in fields],
            bands=warmup,
            marks=marks,
            zoom=(self._x.low, self._x.high),
            shows_table=shows_table,
        )

    def _known(self, field: str) -> bool:
        if field == "users" and self._open_loop:
            return False
        return any(point.get(field) is not None for point in self._points)


def distribution(curves: Sequence[tuple[str, str, Sequence[Content], int]], prefix: str = "") -> Chart | None:
    """Return latency by percentile; ``curves`` are (name, colour, curve, number of requests)."""
    curves = [item for item in curves if item[2]]
    if not curves:
        return None
    count = max(count for *_, count in curves)
    x = Rarity(count)
    values = [point["latency_us"] for _, _, curve, _ in curves for point in curve]
    unit, factor = unit_us(max(values))
    low, high = max(min(values) * 0.9, 0.5), max(values) * 1.15
    y: Log | Linear = Log(low, high, factor) if high / low > 4 else from_zero(values, unit_us)[0]
    series, end = [], 100.0 * (1 - _MIN_BEYOND / count) if count > _MIN_BEYOND else 0.0
    for name, color, curve, _ in curves:
        known = [point for point in curve if point["percentile"] <= end]
        rare = curve[max(len(known) - 1, 0) :]
        series.append(_percentiles(name, color, known or curve[:1]))
        series.append(_percentiles(f"{name}, fewer than {_MIN_BEYOND} requests beyond", color, rare, dashed=True))
    return Chart(
        id=f"{prefix}distribution",
        title="Latency by percentile",
        note=f"Each step to the right is ten times rarer. Dashed: fewer than {_MIN_BEYOND} requests lie beyond, so single ones decide.",
        x=x,
        y=y,
        x_title="percentile",
        y_title=unit,
        series=series,
        table=_curve_table(curves, x, f"{prefix}percentiles"),
        columns=[column for column in range(1, len(curves) + 1) for _ in range(2)],
    )


def _percentiles(name: str, color: str, curve: Sequence[Content], *, dashed: bool = False) -> Line:
    return Line(name=name, x=[point["percentile"] for point in curve], y=[point["latency_us"] for point in curve], color=color, dashed=dashed)


def _curve_table(curves: Sequence[tuple[str, str, Sequence[Content], int]], x: Rarity, name: str) -> Table:
    known = [{point["percentile"]: point["latency_us"] for point in curve} for _, _, curve, _ in curves]
    percentiles = sorted(set().union(*known))
    rows = [
        (x.position(percentile), (percentile_name(percentile), *(show_us(values.get(percentile)) for values in known)))
        for percentile in percentiles
    ]
    return Table(id=name, head=("percentile", *(item[0] for item in curves)), rows=rows)


def percentile_name(percentile: float) -> str:
    """Return ``p99.9``, or what the ends are called."""
    return {0.0: "min", 100.0: "max"}.get(percentile, f"p{percentile:.10g}")


def histogram(bins: Sequence[Content], prefix: str = "") -> Chart | None:
    """Return how many requests took how long."""
    if len(bins) < 2:
        return None
    edges = [(float(item["from_us"]), float(item["to_us"])) for item in bins]
    unit, factor = unit_us(edges[-1][1])
    x = Log(max(edges[0][0], 0.5), edges[-1][1], factor)
    counts = [float(item["count"]) for item in bins]
    total = sum(counts)
    y, _ = from_zero(counts)
    rows = [
        ((x.position(low) + x.position(high)) / 2, (f"{show_us(low)} – {show_us(high)}", f"{count:,.0f} ({show_share(count / total)})"))
        for (low, high), count in zip(edges, counts, strict=True)
    ]
    return Chart(
        id=f"{prefix}histogram",
        title="How many took how long",
        note="Successful requests; the axis is logarithmic.",
        x=x,
        y=y,
        x_title=unit,
        y_title="requests",
        series=[Bars(name="requests", edges=edges, y=counts, color="blue")],
        table=Table(id=f"{prefix}bins", head=("latency", "requests"), rows=rows),
        columns=(1,),
    )


def batches(runs: Sequence[tuple[str, str, Content | None]], prefix: str = "") -> Chart | None:
    """Return the batch sizes that the server reached; ``runs`` are (name, colour, the server's part of a result)."""
    runs = [run for run in runs if run[2] is not None and run[2]["batches"]]
    if not runs:
        return None
    sizes = sorted({int(size) for *_, server in runs for size in server["batches"]})
    x, width = Categories([str(size) for size in sizes]), 0.76 / len(runs)
    series = []
    for number, (name, color, server) in enumerate(runs):
        lefts = [index - 0.38 + number * width for index in range(len(sizes))]
        counts = [float(server["batches"].get(str(size), 0)) for size in sizes]
        series.append(Bars(name=name, edges=[(left, left + width * 0.94) for left in lefts], y=counts, color=color))
    y, _ = from_zero(count for bars in series for count in bars.y)
    rows = [
        (x.position(index), (f"batch of {size}", *(f"{bars.y[index]:,.0f}" for bars in series)))
        for index, size in enumerate(sizes)
    ]
    means = ", ".join(f"{server['mean_batch']:.1f}" for *_, server in runs if server["mean_batch"])
    return Chart(
        id=f"{prefix}batches",
        title="Batches the server made",
        note=f"Executions by batch size; {means} rows on average." if means else "Executions by batch size.",
        x=x,
        y=y,
        x_title="batch size (rows)",
        y_title="executions",
        series=series,
        table=Table(id=f"{prefix}batch-sizes", head=("batch size", *(bars.name for bars in series)), rows=rows),
        columns=range(1, len(series) + 1),
    )
