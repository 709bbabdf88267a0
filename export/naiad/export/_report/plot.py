"""Small line charts as inline SVG: no script, no network, a few kilobytes, and colours that follow the page's theme.

A charting library would bring megabytes of script, or a second font and no dark mode, for two charts of a few points.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 14, 40
_STEPS = (1, 2, 5)
_MAX_TICKS = 7
NUM_COLOURS = 6
"""Of the classes `line-0`, `line-1`, … that the page's style sheet defines; more lines repeat them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a chart: values by batch size, all above 0."""

    label: str
    values: Mapping[int, float]
    emphasised: bool = False


def chart(lines: Sequence[Line], *, unit: str, title: str) -> str:
    """Return an SVG of values by batch size on a logarithmic scale; empty where there is nothing to draw."""
    lines = [line for line in lines if line.values and min(line.values.values()) > 0]
    batches = sorted({batch for line in lines for batch in line.values})
    if len(batches) < 2:
        return ""
    values = [value for line in lines for value in line.values.values()]
    low, high = _padded(min(values), max(values))
    x = {batch: _LEFT + index * (_WIDTH - _LEFT - _RIGHT) / (len(batches) - 1) for index, batch in enumerate(batches)}

    def y(value: float) -> float:
        share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [*_axis(x, low, high, y, unit)]
    for index, line in enumerate(lines):
        parts.append(_drawn(line, index, {batch: (x[batch], y(value)) for batch, value in line.values.items()}, unit))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _axis(x: Mapping[int, float], low: float, high: float, y: object, unit: str) -> list[str]:
    assert callable(y)
    parts = []
    for tick in _ticks(low, high):
        at = f"{y(tick):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{at}" dy=".32em" text-anchor="end">{_number(tick)}</text>')
    for batch, place in x.items():
        parts.append(
            f'<text class="tick" x="{place:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{batch}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">batch size</text>')
    centre = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text class="axis" transform="translate(12 {centre:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(unit)}</text>"
    )
    return parts


def _drawn(line: Line, index: int, points: Mapping[int, tuple[float, float]], unit: str) -> str:
    ordered = [points[batch] for batch in sorted(points)]
    path = " ".join(f"{'L' if place else 'M'}{px:.1f} {py:.1f}" for place, (px, py) in enumerate(ordered))
    name = f"line-{index % NUM_COLOURS}{' strong' if line.emphasised else ''}"
    dots = "".join(
        f'<circle cx="{points[batch][0]:.1f}" cy="{points[batch][1]:.1f}" r="{4 if line.emphasised else 3}">'
        f"<title>{escape(line.label)}, batch {batch}: {_number(value)} {escape(unit)}</title></circle>"
        for batch, value in sorted(line.values.items())
    )
    return f'<g class="{name}"><path d="{path}"/>{dots}</g>'


def _padded(low: float, high: float) -> tuple[float, float]:
    """Return ends that leave a little room, and at least a factor of four between them."""
    middle, factor = math.sqrt(low * high), max(math.sqrt(high / low) * 1.12, 2.0)
    return middle / factor, middle * factor


def _ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in _STEPS if low <= step * 10.0**decade <= high]
    return ticks if len(ticks) <= _MAX_TICKS else [tick for tick in ticks if f"{tick:e}".startswith("1")] or ticks


def _number(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    return f"{value / 1e3:.3g}k" if value >= 1e4 else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
