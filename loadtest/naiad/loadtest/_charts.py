"""The charts of the report, as Plotly's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["STEPS", "charts"]

_BLUE, _RED, _GREEN, _GREY = "#2563eb", "#dc2626", "#059669", "#64748b"
STEPS: Final = {
    "client_and_network": ("client and network", "#94a3b8"),
    "queue": ("queue", "#f59e0b"),
    "compute_input": ("compute: input", "#a7f3d0"),
    "compute_infer": ("compute: inference", "#10b981"),
    "compute_output": ("compute: output", "#047857"),
    "server_other": ("server, other", "#cbd5e1"),
}
_PERCENTILE_TICKS: Final = (0, 50, 90, 99, 99.9, 99.99, 99.999)
Chart = dict[str, Any]


def charts(content: Mapping[str, Any]) -> dict[str, Chart]:
    """Return every chart there is data for, by the name of its place in the page."""
    found = {
        "latency": _latency(content["points"]),
        "throughput": _throughput(content["points"]),
        "distribution": _distribution(content["curve"], content["results"]["requests"]),
        "breakdown": _breakdown(content["breakdown_us"]),
        "batches": _batches(content["server"]),
    }
    return {name: chart for name, chart in found.items() if chart is not None}


def _latency(points: Sequence[Mapping[str, Any]]) -> Chart | None:
    if not any(point["p50_us"] for point in points):
        return None
    at_s = [point["at_s"] for point in points]
    traces = [
        _line("p50", at_s, [_ms(point["p50_us"]) for point in points], _BLUE),
        _line("p99", at_s, [_ms(point["p99_us"]) for point in points], _RED),
    ]
    return _chart(
        "Latency over time", traces, xaxis=_axis("seconds", rangemode="tozero"), yaxis=_axis("ms", rangemode="tozero")
    )


def _throughput(points: Sequence[Mapping[str, Any]]) -> Chart | None:
    if not points:
        return None
    at_s = [point["at_s"] for point in points]
    traces = [_line("requests/s", at_s, [point["throughput_per_s"] for point in points], _GREEN)]
    if any(point["errors"] for point in points):
        errors = [point["errors"] for point in points]
        traces.append(
            {"type": "bar", "name": "errors", "x": at_s, "y": errors, "marker": {"color": _RED}, "opacity": 0.6}
        )
    yaxis = _axis("requests/s", rangemode="tozero")
    return _chart("Throughput over time", traces, xaxis=_axis("seconds", rangemode="tozero"), yaxis=yaxis)


def _distribution(curve: Sequence[Mapping[str, float]], requests: int) -> Chart | None:
    """Latency by percentile; the axis stretches the tail: each step to the right is ten times rarer."""
    if not curve:
        return None
    x = [_rarity(item["percentile"], requests) for item in curve]
    trace = _line("latency", x, [_ms(item["latency_us"]) for item in curve], _BLUE)
    trace["text"] = [f"p{item['percentile']:g}" for item in curve]
    trace["hovertemplate"] = "%{text}: %{y:.3f} ms<extra></extra>"
    ticks = [tick for tick in _PERCENTILE_TICKS if _rarity(tick, requests) <= max(x)]
    xaxis = _axis(
        "percentile",
        type="log",
        tickvals=[_rarity(tick, requests) for tick in ticks],
        ticktext=[f"{t:g}" for t in ticks],
    )
    return _chart(
        "Latency distribution", [trace], xaxis=xaxis, yaxis=_axis("ms", type="log", dtick="D2"), showlegend=False
    )


def _rarity(percentile: float, requests: int) -> float:
    return 1 / max(1 - percentile / 100, 1 / max(requests, 1))


def _breakdown(times_us: Mapping[str, float] | None) -> Chart | None:
    if not times_us:
        return None
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": label,
            "x": [times_us[step] / 1000],
            "y": [""],
            "marker": {"color": color},
            "hovertemplate": f"{label}: %{{x:.3f}} ms<extra></extra>",
        }
        for step, (label, color) in STEPS.items()
    ]
    return _chart(
        "Where the mean latency went", traces, xaxis=_axis("ms"), yaxis=_axis(""), barmode="stack", height=240
    )


def _batches(server: Mapping[str, Any] | None) -> Chart | None:
    if server is None or not server["batches"]:
        return None
    trace = {
        "type": "bar",
        "x": list(server["batches"]),
        "y": list(server["batches"].values()),
        "marker": {"color": _GREY},
    }
    return _chart(
        "Batches the server made",
        [trace],
        xaxis=_axis("batch size", type="category"),
        yaxis=_axis("executions"),
        showlegend=False,
    )


def _line(name: str, x: Sequence[float], y: Sequence[float | None], color: str) -> Chart:
    mode = "lines+markers" if len(x) < 40 else "lines"
    return {
        "type": "scatter",
        "mode": mode,
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": color},
        "marker": {"size": 5},
    }


def _axis(title: str, **extra: Any) -> Chart:
    return {"title": {"text": title}, "automargin": True, "gridcolor": "#e2e8f0", "zerolinecolor": "#e2e8f0", **extra}


def _chart(title: str, data: list[Chart], *, height: int = 300, **layout: Any) -> Chart:
    base = {
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#0f172a"},
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
    return {"title": title, "data": data, "layout": {**base, **layout}}


def _ms(latency_us: float | None) -> float | None:
    return None if latency_us is None else latency_us / 1000
