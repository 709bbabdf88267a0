"""The page of a run: what came of it first, then the curves, then whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from naiad.loadtest._report.chart import draw, figures
from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.latency_charts import batches, distribution, histogram
from naiad.loadtest._report.page import created, page
from naiad.loadtest._report.parts import breakdown, card, facts, grid, pill, section, tile, tiles, verdict, warning_list
from naiad.loadtest._report.setup import reproduce, setup, title_of
from naiad.loadtest._report.sweep import sweep_section
from naiad.loadtest._report.time_charts import over_time
from naiad.loadtest._report.trust import trust
from naiad.loadtest._report.units import show, show_bytes, show_count, show_interval, show_share, show_us

__all__ = ["run_html"]

Content = Mapping[str, Any]
_PERCENTILES: Final = ("p50", "p90", "p95", "p99", "p99.9")


def run_html(content: Content) -> str:
    """Return the page for a report's JSON content."""
    results = content["results"]
    parts = [
        ("objectives", "Objectives", _objectives(content)),
        ("sweep", "Sweep", sweep_section(content)),
        ("over-time", "Over time", _curves(over_time(results, content["slos"]))),
        ("latencies", "Latency", _latency(results)),
        ("where", "Where the time went", _where(results)),
        ("models", "Models", _models(content)),
        ("failed-requests", "Failed requests", _errors(results)),
        ("trust", "Can I trust this?", trust(content)),
        ("setup", "The test", setup(content)),
        ("reproduce", "Reproduce", reproduce(content)),
    ]
    shown = [(name, title, part) for name, title, part in parts if part is not None]
    return page(
        title=title_of(content),
        subtitle=f"{_load(content)} · {created(content['created'])}",
        version=content["naiad_version"],
        links=[(name, title) for name, title, _ in shown],
        data=content,
        content=[
            verdict(content["verdict"], _sentence(content), content["failures"]),
            warning_list(content["warnings"]),
            _tiles(content),
            [section(name, title, part) for name, title, part in shown],
        ],
    )


def _load(content: Content) -> str:
    test, results = content["test"], content["results"]
    warmup = content["steadiness"]["warmup_s"] if content["steadiness"] else None
    after = f" after {warmup:.1f} s of warm-up" if warmup else ""
    return f"{test['load']['text']}, {results['window_s']:.1f} s measured{after}"


def _sentence(content: Content) -> str:
    """Say what was found, in one sentence."""
    results = content["results"]
    if not results["latency_us"]["count"]:
        return ""
    p99 = results["latency_us"]["p99"]
    range_ = show_interval("p99", results["intervals"].get("p99"))
    found = f"{show_count(results['throughput_per_s'])} requests/s with p99 at {show_us(p99)}"
    return f"{found}{f' (95 %: {range_})' if range_ else ''}; {show_share(results['error_share'])} failed."


def _tiles(content: Content) -> Html:
    results, cost = content["results"], content["cost"] or {}
    throughput, intervals = results["throughput_per_s"], results["intervals"]
    rows = results["inferences_per_s"]
    offered = results["offered_per_s"]
    below = show_interval("throughput", intervals.get("throughput"))
    return tiles(
        tile("throughput", show("throughput", throughput), below),
        tile("offered", show("throughput", offered), "requests that were due") if offered is not None else None,
        tile("inferences", show("inferences", rows), f"{show_count(results['rows_per_request'])} rows per request")
        if results["rows_per_request"] != 1
        else None,
        *(_time_tile(name, results) for name in ("p50", "p99")),
        _first_response(results),
        tile(
            "failed", show_share(results["error_share"]), f"{results['failed']:,} of {results['requests']:,} requests"
        ),
        tile("within the objectives", show("throughput", results["goodput_per_s"]), "goodput")
        if results["goodput_per_s"] is not None
        else None,
        tile(
            "cost of a million",
            f"{cost['per_million_requests']:.3g}",
            f"requests, at {cost['price_per_hour']:g} per hour",
        )
        if cost.get("per_million_requests") is not None
        else None,
        tile("per core", show("throughput", cost["requests_per_s_per_core"]), "requests per second")
        if cost.get("requests_per_s_per_core") is not None
        else None,
        tile("per GPU", show("throughput", cost["requests_per_s_per_gpu"]), "requests per second")
        if cost.get("requests_per_s_per_gpu") is not None
        else None,
    )


def _time_tile(name: str, results: Content) -> Html:
    return tile(name, show_us(results["latency_us"][name]), show_interval(name, results["intervals"].get(name)))


def _first_response(results: Content) -> Html | None:
    first = results["first_response_us"]
    return None if first is None else tile("first response, p99", show_us(first["p99"]), f"p50 {show_us(first['p50'])}")


def _objectives(content: Content) -> Child:
    slos, comparisons = content["slos"], content["comparisons"]
    if not slos and not comparisons:
        return None
    found: list[Html] = []
    if slos:
        rows = [
            [
                slo["slo"],
                show(slo["metric"], slo["measured"]),
                show_interval(slo["metric"], slo["interval"]),
                _judged(slo),
            ]
            for slo in slos
        ]
        found.append(
            card(grid(("objective", "measured", "95 % interval", ""), rows, numbers=(1, 2), name="objectives-table"))
        )
    if comparisons:
        rows = [
            [
                item["metric"],
                show(item["metric"], item["baseline"]),
                show(item["metric"], item["measured"]),
                pill("worse" if item["regressed"] else "within the margin", "bad" if item["regressed"] else "good"),
            ]
            for item in comparisons
        ]
        head = ("against the stored baseline", "baseline", "measured", f"margin {comparisons[0]['margin']:.0%}")
        found.append(card(grid(head, rows, name="baseline-table")))
    return el("div", found, class_="columns" if len(found) == 2 else None)


def _judged(slo: Content) -> Child:
    word = "met" if slo["met"] else "missed"
    look = "bad" if not slo["met"] else "good" if slo["proven"] or slo["interval"] is None else "doubt"
    judged = pill(word if slo["proven"] or slo["interval"] is None else f"{word}, not proven", look)
    return [judged, el("div", slo["note"], class_="note") if slo["note"] else None]


def _curves(charts: Sequence[Any]) -> Child:
    """Return charts side by side; those over time have their figures in one table below."""
    if not charts:
        return None
    shared = (
        None if charts[0].shows_table else el("div", figures(charts[0].table, "All points over time"), class_="shared")
    )
    return [el("div", [draw(chart) for chart in charts], class_="charts"), shared]


def _latency(results: Content, prefix: str = "") -> Child:
    count = results["latency_us"]["count"]
    curves = [("latency", "blue", results["curve"], count)]
    if results["service_curve"] and _differ(results["latency_us"], results["service_us"]):
        curves.append(("service time", "amber", results["service_curve"], count))
    charts = [
        chart for chart in (distribution(curves, prefix), histogram(results["bins"], prefix)) if chart is not None
    ]
    if not charts:
        return None
    return [_curves(charts), card(_times_table(results), class_="card spaced")]


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


def _where(results: Content) -> Child:
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
    return el("div", left, el("div", right, class_="stack"), class_="columns")


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
        rows += [
            (f"GPU {gpu['name']}", f"{show_share(gpu['busy_share'])} busy, {show_bytes(gpu['memory_bytes'])}")
            for gpu in resources["gpus"]
        ]
    return facts(rows) if any(value for _, value in rows) else None


def _models(content: Content) -> Child:
    models = content["parts"]
    if not models:
        return None
    bars = breakdown([(_model_name(part), part["breakdown_us"]) for part in models], name="models-breakdown")
    head = ("model", "share", "requests/s", "p50", "p99", "failed", "mean batch")
    rows = [
        [
            _model_name(part),
            show_share(part["weight"] / sum(other["weight"] for other in models)),
            show("throughput", part["throughput_per_s"]),
            show_us(part["latency_us"]["p50"]),
            show_us(part["latency_us"]["p99"]),
            show_share(part["error_share"]),
            f"{part['server']['mean_batch']:.1f}" if part["server"] and part["server"]["mean_batch"] else "–",
        ]
        for part in models
    ]
    return [
        card(grid(head, rows, numbers=range(1, 7), name="models-table")),
        card(el("h3", "The mean latency, step by step"), bars, class_="card spaced") if bars is not None else None,
        [_model(part, f"model-{index}-") for index, part in enumerate(models)],
    ]


def _model_name(part: Content) -> str:
    return f"{part['model']} (version {part['version']})" if part["version"] else str(part["model"])


def _model(part: Content, prefix: str) -> Html:
    charts = [
        *(
            chart
            for chart in over_time(part, prefix=prefix)
            if chart.id.removeprefix(prefix) in {"throughput", "latency", "errors"}
        ),
        distribution([("latency", "blue", part["curve"], part["latency_us"]["count"])], prefix),
        batches([("executions", "violet", part["server"])], prefix),
    ]
    return el(
        "section",
        el("h2", _model_name(part)),
        _curves([chart for chart in charts if chart is not None]),
        class_="model",
    )


def _errors(results: Content) -> Child:
    if not results["errors"]:
        return None
    total = results["requests"]
    rows = [
        [name, f"{error['count']:,}", show_share(error["count"] / total), error["example"]]
        for name, error in results["errors"].items()
    ]
    return card(grid(("class", "requests", "of all", "an example"), rows, numbers=(1, 2), name="errors-table"))
