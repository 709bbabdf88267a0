"""The page of a run: what came of it first, then the curves, then whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from naiad.loadtest._report.drawing import side_by_side
from naiad.loadtest._report.gpu_section import gpus
from naiad.loadtest._report.html import Html
from naiad.loadtest._report.judgement_section import errors, objectives
from naiad.loadtest._report.latency_section import latency, where
from naiad.loadtest._report.models_section import models
from naiad.loadtest._report.page import created, page
from naiad.loadtest._report.parts import section, tile, tiles, verdict, warning_list
from naiad.loadtest._report.setup import reproduce, setup, title_of
from naiad.loadtest._report.sweep import sweep_section
from naiad.loadtest._report.time_charts import over_time
from naiad.loadtest._report.trust import trust
from naiad.loadtest._report.units import show, show_count, show_interval, show_joules, show_share, show_us

__all__ = ["run_html"]

Content = Mapping[str, Any]


def run_html(content: Content) -> str:
    """Return the page for a report's JSON content."""
    results = content["results"]
    parts = [
        ("objectives", "Objectives", objectives(content)),
        ("sweep", "Sweep", sweep_section(content)),
        ("over-time", "Over time", side_by_side(over_time(results, content["slos"]))),
        ("latencies", "Latency", latency(results)),
        ("where", "Where the time went", where(results)),
        ("gpus", "GPU", gpus(content)),
        ("models", "Models", models(content)),
        ("failed-requests", "Failed requests", errors(results)),
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
        tile("energy", show_joules(cost["joules_per_request"]), "of the GPU, per request")
        if cost.get("joules_per_request") is not None
        else None,
    )


def _time_tile(name: str, results: Content) -> Html:
    return tile(name, show_us(results["latency_us"][name]), show_interval(name, results["intervals"].get(name)))


def _first_response(results: Content) -> Html | None:
    first = results["first_response_us"]
    return None if first is None else tile("first response, p99", show_us(first["p99"]), f"p50 {show_us(first['p50'])}")
