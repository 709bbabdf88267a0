"""The part of a run's page on the models of a mix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from naiad.loadtest._report.drawing import side_by_side
from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.latency_charts import batches, distribution
from naiad.loadtest._report.parts import breakdown, card, grid
from naiad.loadtest._report.steps_section import steps
from naiad.loadtest._report.time_charts import over_time
from naiad.loadtest._report.units import show, show_share, show_us

__all__ = ["models"]

Content = Mapping[str, Any]


def models(content: Content) -> Child:
    """Return the models of a mix side by side, and the charts of each."""
    parts = content["parts"]
    if not parts:
        return None
    bars = breakdown([(_model_name(part), part["breakdown_us"]) for part in parts], name="models-breakdown")
    head = ("model", "share", "requests/s", "p50", "p99", "failed", "mean batch")
    rows = [
        [
            _model_name(part),
            show_share(part["weight"] / sum(other["weight"] for other in parts)),
            show("throughput", part["throughput_per_s"]),
            show_us(part["latency_us"]["p50"]),
            show_us(part["latency_us"]["p99"]),
            show_share(part["error_share"]),
            f"{part['server']['mean_batch']:.1f}" if part["server"] and part["server"]["mean_batch"] else "–",
        ]
        for part in parts
    ]
    return [
        card(grid(head, rows, numbers=range(1, 7), name="models-table")),
        card(el("h3", "The mean latency, step by step"), bars, class_="card spaced") if bars is not None else None,
        [_model(part, f"model-{index}-") for index, part in enumerate(parts)],
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
        side_by_side([chart for chart in charts if chart is not None]),
        steps(part, name=f"{prefix}steps"),
        class_="model",
    )
