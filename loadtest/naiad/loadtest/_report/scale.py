"""Axes: where a value lies between the two ends of a chart, and which values are written beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["Categories", "Linear", "Log", "Rarity", "Scale", "Tick", "from_zero"]

Tick = tuple[float, str]
_NARROW: Final = 0.6  # decades; below, fewer than three of 1, 2, 3, 5, 7 may lie on the axis
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


class Scale(Protocol):
    """An axis."""

    def position(self, value: float) -> float:
        """Return where ``value`` lies: 0 at the start of the axis, 1 at its end."""

    def ticks(self) -> list[Tick]:
        """Return the values that are written beside the axis, and how."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Equal steps; ``factor`` is how many units of the data one unit of the labels has."""

    low: float
    high: float
    factor: float = 1.0
    num_ticks: int = 5

    def position(self, value: float) -> float:
        """Return where ``value`` lies."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[Tick]:
        """Return round values, about ``num_ticks`` of them."""
        step = _round_step((self.high - self.low) / self.factor / self.num_ticks) * self.factor
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [
            (index * step, _label(index * step / self.factor, step / self.factor)) for index in range(first, last + 1)
        ]


@dataclass(frozen=True, slots=True)
class Log:
    """Equal ratios; for values above 0."""

    low: float
    high: float
    factor: float = 1.0

    def position(self, value: float) -> float:
        """Return where ``value`` lies."""
        return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[Tick]:
        """Return powers of ten, with values between them where there is room; equal steps where no power fits."""
        decades = math.log10(self.high / self.low)
        if decades < _NARROW:
            return Linear(self.low, self.high, self.factor).ticks()
        parts = (1, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades <= 2.5 else (1, 3) if decades <= 4 else (1,)
        first = math.floor(math.log10(self.low / self.factor))
        powers = range(first, first + math.ceil(decades) + 2)
        values = [part * 10.0**power * self.factor for power in powers for part in parts]
        return [(value, f"{value / self.factor:,.10g}") for value in values if self.low <= value <= self.high * 1.0001]


@dataclass(frozen=True, slots=True)
class Rarity:
    """Percentiles with the tail stretched: each step to the right is ten times rarer; ends at one of ``count``."""

    count: int

    def position(self, value: float) -> float:
        """Return where the percentile ``value`` (0 … 100) lies."""
        rarest = max(self.count, 2)
        return math.log10(1 / max(1 - value / 100, 1 / rarest)) / math.log10(rarest)

    def ticks(self) -> list[Tick]:
        """Return 0, 50, 90, 99, 99.9, … as far as the number of requests reaches, and the maximum."""
        known = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999]
        inner = [(value, f"{value:g}") for value in known if self.position(value) < 0.93]
        return [*inner, (100.0, "max")]


@dataclass(frozen=True, slots=True)
class Categories:
    """Named places, the first one around 0, the next around 1, …"""

    names: Sequence[str]

    def position(self, value: float) -> float:
        """Return where ``value`` lies: whole numbers are the middles of the places."""
        return (value + 0.5) / len(self.names)

    def ticks(self) -> list[Tick]:
        """Return every name, or as many of them as there is room for."""
        every = math.ceil(len(self.names) / 12)
        return [(float(index), name) for index, name in enumerate(self.names) if index % every == 0]


def from_zero(
    values: Iterable[float | None], unit: Callable[[float], tuple[str, float]] | None = None, *, room: float = 1.06
) -> tuple[Linear, str]:
    """Return an axis from 0 to a little above the largest of ``values``, and its unit."""
    largest = max((value for value in values if value is not None), default=0.0) or 1.0
    name, factor = unit(largest) if unit is not None else ("", 1.0)
    return Linear(0.0, largest * room, factor), name


def _round_step(at_least: float) -> float:
    power = 10.0 ** math.floor(math.log10(at_least))
    return next(step * power for step in _STEPS if step * power >= at_least * (1 - 1e-9))


def _label(value: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if not math.isclose(step * 10**digits, round(step * 10**digits)):
        digits += 1  # steps of 2.5
    return "0" if abs(value) < step / 2 else f"{value:,.{digits}f}".replace("-", "−")
