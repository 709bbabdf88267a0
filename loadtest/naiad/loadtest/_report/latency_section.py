"""The parts of a run's page on how long requests took, and where that time went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from naiad.loadtest._report.drawing import draw, side_by_side
from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.latency_charts import batches, distribution, histogram
from naiad.loadtest._report.parts import breakdown, card, facts, grid
from naiad.loadtest._report.steps_section import steps
from naiad.loadtest._report.units import show_bytes, show_interval, show_us

__all__ = ["latency", "where"]

Content = Mapping[str, Any]
_PERCENTILES: Final = ("p50", "p90", "p95", "p99", "p99.9")


def latency(results: Content) -> Child:
    """Return latencies by percentile, as a histogram, and as a table with their intervals."""
    count = results["latency_us"]["count"]
    curves = [("latency", "blue", results["curve"], count)]
    if results["service_curve"] and _differ(results["latency_us"], results["service_us"]):
        curves.append(("service time", "amber", results["service_curve"], count))
    charts = [chart for chart in (distribution(curves), histogram(results["bins"])) if chart is not None]
    if not charts:
        return None
    return [side_by_side(charts), card(_times_table(results), class_="card spaced")]


def _differ(latency_us: Content, service_us: Content) -> bool:
    """Whether the time since a request was due says more than the time since it left."""
    return any(latency_us[name] > 1.02 * service_us[name] for name in ("p50", "p99", "max"))


def _times_table(results: Content) -> Html:
    kinds = [
        ("latency", "latency_us", "from the time a request was due to its answer"),
        ("service time", "service_us", "from the moment it left to its answer"),
        ("lag", "lag_us", "from the time it was due to the moment it left"),
        ("first response", "first_response_us", "of a stream"),
        ("between responses", "between_responses_us", "of a stream"),
    ]
    names = ("mean", *_PERCENTILES, "max")
    rows = [
        [[name, el("div", meaning, class_="note")], *(show_us(results[field][key]) for key in names)]
        for name, field, meaning in kinds
        if results[field] is not None and results[field]["count"]
    ]
    intervals = {
        "mean": results["intervals"].get("mean"),
        **{name: results["intervals"].get(name) for name in _PERCENTILES},
    }
    if any(intervals.values()):
        shown = [show_interval(name, intervals.get(name)) or "–" for name in names]
        rows.insert(1, [["95 % interval", el("div", "of the latency", class_="note")], *shown])
    return grid(("", *names), rows, numbers=range(1, len(names) + 1), name="times-table")


def where(results: Content) -> Child:
    """Return the mean latency step by step, the batches, and what the server used."""
    bars = breakdown([("mean latency", results["breakdown_us"])])
    chart = batches([("executions", "violet", results["server"])])
    if bars is None and chart is None:
        return None
    left = card(el("h3", "The mean latency, step by step"), bars) if bars is not None else None
    used = _server_facts(results)
    right = [
        draw(chart) if chart is not None else None,
        card(el("h3", "What the server used"), used) if used is not None else None,
    ]
    return [el("div", left, el("div", right, class_="stack"), class_="columns"), steps(results)]


def _server_facts(results: Content) -> Html | None:
    server, resources = results["server"], results["resources"]
    rows: list[tuple[str, Child]] = []
    if server is not None:
        rows.append(("cache hits", f"{server['cache_hits']:,}" if server["cache_hits"] else None))
        rows.append(("failures the server counted", f"{server['failures']:,}" if server["failures"] else None))
    if resources is not None:
        rows.append(
            ("CPU of the server", f"{resources['cpu_cores']:.2f} cores" if resources["cpu_cores"] is not None else None)
        )
        rows.append(("memory of the server", show_bytes(resources["rss_bytes"]) if resources["rss_bytes"] else None))
    return facts(rows) if any(value for _, value in rows) else None
