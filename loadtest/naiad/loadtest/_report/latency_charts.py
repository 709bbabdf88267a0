"""The charts of how long requests took, and of the batches they were served in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from naiad.loadtest._report.chart import Bars, Chart, Line, Table
from naiad.loadtest._report.scale import Categories, Linear, Log, Rarity, from_zero
from naiad.loadtest._report.units import show_share, show_us, unit_us

__all__ = ["batches", "distribution", "histogram"]

_MIN_BEYOND: Final = 10  # a percentile with fewer requests beyond it hangs on single requests
Content = Mapping[str, Any]


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
    series = [_percentiles(name, color, curve, number) for name, color, curve, number in curves]
    return Chart(
        id=f"{prefix}distribution",
        title="Latency by percentile",
        note=f"Each step to the right is ten times rarer. Dashed: fewer than {_MIN_BEYOND} requests lie beyond, so "
        "single ones decide.",
        x=x,
        y=y,
        x_title="percentile",
        y_title=unit,
        series=series,
        table=_curve_table(curves, x, f"{prefix}percentiles"),
        columns=range(1, len(curves) + 1),
    )


def _percentiles(name: str, color: str, curve: Sequence[Content], number: int) -> Line:
    sure = sum(number * (1 - point["percentile"] / 100) >= _MIN_BEYOND for point in curve)
    return Line(
        name=name,
        x=[point["percentile"] for point in curve],
        y=[point["latency_us"] for point in curve],
        color=color,
        dashed_from=max(sure - 1, 0),
    )


def _curve_table(curves: Sequence[tuple[str, str, Sequence[Content], int]], x: Rarity, name: str) -> Table:
    known = [{point["percentile"]: point["latency_us"] for point in curve} for _, _, curve, _ in curves]
    percentiles = sorted(set().union(*known))
    rows = [
        (x.position(percentile), (_percentile_name(percentile), *(show_us(values.get(percentile)) for values in known)))
        for percentile in percentiles
    ]
    return Table(id=name, head=("percentile", *(item[0] for item in curves)), rows=rows)


def _percentile_name(percentile: float) -> str:
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
        (
            (x.position(low) + x.position(high)) / 2,
            (f"{show_us(low)} – {show_us(high)}", f"{count:,.0f} ({show_share(count / total)})"),
        )
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
    known = [(name, color, server) for name, color, server in runs if server is not None and server["batches"]]
    if not known:
        return None
    sizes = sorted({int(size) for *_, server in known for size in server["batches"]})
    x, width = Categories([str(size) for size in sizes]), 0.76 / len(known)
    series = []
    for number, (name, color, server) in enumerate(known):
        lefts = [index - 0.38 + number * width for index in range(len(sizes))]
        counts = [float(server["batches"].get(str(size), 0)) for size in sizes]
        series.append(Bars(name=name, edges=[(left, left + width * 0.94) for left in lefts], y=counts, color=color))
    y, _ = from_zero(count for bars in series for count in bars.y)
    rows = [
        (x.position(index), (f"batch of {size}", *(f"{bars.y[index]:,.0f}" for bars in series)))
        for index, size in enumerate(sizes)
    ]
    means = ", ".join(f"{server['mean_batch']:.1f}" for *_, server in known if server["mean_batch"])
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
