"""Figures with their units, as one reads them."""

from __future__ import annotations

__all__ = ["show", "show_us"]


def show(metric: str, value: float) -> str:
    """Return a metric's value with its unit."""
    if metric in {"throughput", "inferences"}:
        return f"{value:,.1f}/s" if value < 100 else f"{value:,.0f}/s"
    if metric == "errors":
        return "0 %" if value == 0 else f"{value * 100:.3g} %"
    return show_us(value)


def show_us(latency_us: float) -> str:
    """Return a time given in µs in the unit one reads best."""
    if latency_us < 1000:
        return f"{latency_us:.0f} µs"
    return f"{latency_us / 1000:.2f} ms" if latency_us < 1_000_000 else f"{latency_us / 1e6:.2f} s"
