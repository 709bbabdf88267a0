"""Figures with their units, as one reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = [
    "UNKNOWN",
    "show",
    "show_bytes",
    "show_count",
    "show_interval",
    "show_joules",
    "show_ratio",
    "show_share",
    "show_us",
    "unit_us",
]

UNKNOWN: Final = "–"
_RATES: Final = frozenset({"throughput", "inferences"})
_SHARES: Final = frozenset({"errors", "goodput"})
_ENERGIES: Final = frozenset({"energy"})


def show(metric: str, value: float | None) -> str:
    """Return a metric's value with its unit: rates per second, shares in per cent, energies in J, else a time.

    Times are given in µs, and so are energies in µJ.
    """
    if value is None:
        return UNKNOWN
    if metric in _ENERGIES:
        return show_joules(value * 1e-6)
    if metric in _RATES:
        return f"{show_count(value)}/s"
    return show_share(value) if metric in _SHARES else show_us(value)


def show_joules(energy_j: float | None) -> str:
    """Return an energy in the unit one reads best."""
    if energy_j is None:
        return UNKNOWN
    for unit, factor in (("J", 1.0), ("mJ", 1e-3)):
        if abs(energy_j) >= factor:
            return f"{show_count(energy_j / factor)} {unit}"
    return f"{show_count(energy_j / 1e-6)} µJ"


def show_us(latency_us: float | None) -> str:
    """Return a time given in µs in the unit one reads best, with three or four digits."""
    if latency_us is None:
        return UNKNOWN
    unit, factor = unit_us(latency_us)
    value = latency_us / factor
    digits = 0 if unit == "µs" and value >= 10 else 1 if value < 10 and unit == "µs" else 1 if value >= 100 else 2
    return f"{value:,.{digits}f} {unit}"


def unit_us(largest_us: float) -> tuple[str, float]:
    """Return the unit that fits values up to ``largest_us``, and how many µs it has."""
    if largest_us < 1000:
        return "µs", 1.0
    return ("ms", 1e3) if largest_us < 10_000_000 else ("s", 1e6)


def show_count(value: float | None) -> str:
    """Return a number with as many decimals as its size leaves meaning."""
    if value is None:
        return UNKNOWN
    size = abs(value)
    digits = 0 if size >= 100 or value == round(value) else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


def show_share(value: float | None) -> str:
    """Return a fraction in per cent."""
    if value is None:
        return UNKNOWN
    return "0 %" if value == 0 else f"{value * 100:.3g} %"


def show_bytes(value: float | None) -> str:
    """Return a size in the unit one reads best."""
    if value is None:
        return UNKNOWN
    for unit in ("bytes", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} GiB"


def show_interval(metric: str, interval: Sequence[float] | None) -> str:
    """Return an interval with its unit once; nothing where there is none."""
    if interval is None:
        return ""
    low, high = show(metric, interval[0]), show(metric, interval[1])
    (number, _, unit), (_, _, last_unit) = low.partition(" "), high.partition(" ")
    if metric in _RATES:
        return f"{low.removesuffix('/s')} – {high}"
    if metric in _SHARES:
        return f"{low.removesuffix(' %')} – {high}"
    return f"{number} – {high}" if unit == last_unit else f"{low} – {high}"


def show_ratio(ratio: float | None) -> str:
    """Return a ratio as a change: ``+12.3 %``."""
    if ratio is None:
        return UNKNOWN
    if ratio >= 3:
        return f"× {ratio:.3g}"
    change = (ratio - 1) * 100
    return f"{change:+.1f} %".replace("-", "−")
