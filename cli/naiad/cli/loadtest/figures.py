"""Figures as people read them: three digits, a unit, an interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["duration", "energy", "memory", "number", "share", "sparkline", "time_us", "with_interval"]

_BARS: Final = "▁▂▃▄▅▆▇█"


def number(value: float | None) -> str:
    """Return 5,123 or 12.3 or 0.45."""
    if value is None:
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or value == 0 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _unit(value_us: float) -> tuple[float, str]:
    if value_us < 1e3:
        return 1.0, "µs"
    return (1e3, "ms") if value_us < 1e6 else (1e6, "s")


def time_us(value_us: float | None) -> str:
    """Return a time in the unit that suits it: 12.3 ms."""
    if value_us is None:
        return "–"
    divisor, unit = _unit(value_us)
    return f"{number(value_us / divisor)} {unit}"


def with_interval(value_us: float | None, interval: Sequence[float] | None) -> str:
    """Return a time and its confidence interval in one unit: 12.3 ms (11.8–12.9)."""
    if value_us is None or interval is None:
        return time_us(value_us)
    divisor, _ = _unit(value_us)
    low, high = (number(end / divisor) for end in interval)
    return f"{time_us(value_us)} ({low}–{high})"


def duration(seconds: float) -> str:
    """Return 9.5 s, 30 s or 2 min 05 s."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def energy(energy_j: float) -> str:
    """Return 1.23 J, 45.6 mJ or 789 µJ."""
    for unit, factor in (("J", 1.0), ("mJ", 1e-3)):
        if energy_j >= factor:
            return f"{number(energy_j / factor)} {unit}"
    return f"{number(energy_j / 1e-6)} µJ"


def memory(size_bytes: float | None) -> str:
    """Return 210 MB or 9.0 GB."""
    if size_bytes is None:
        return "–"
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


def share(value: float | None) -> str:
    """Return a fraction in per cent: 93%."""
    return "–" if value is None else f"{value:.0%}"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last ``width`` values as bars, from 0 to the highest."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / top * len(_BARS)))] for value in shown)
