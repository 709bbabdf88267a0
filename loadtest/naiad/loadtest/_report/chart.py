"""Charts, drawn beforehand as SVG: they show without a script, in print, and at any width.

The drawing stretches with the page (lines keep their width); the words beside it are HTML and keep their size. The
figures of a chart are a table: what a screen reader reads and what the page's script shows under the pointer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from naiad.loadtest._report.scale import Scale

__all__ = ["Band", "Bars", "Chart", "Line", "Mark", "Table"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Points that are connected; ``None`` in ``y`` leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: str
    """One of the page's colours: ``blue``, ``red``, ``green``, ``amber``, ``violet``, ``grey``."""
    dashed: bool = False
    dots: bool = False
    """Mark every point."""
    only_dots: bool = False
    dashed_from: int | None = None
    """The point from which the line is dashed: what lies behind it is less sure."""
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    """Ends of the interval around each point, shown as a vertical line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bars:
    """Bars from 0, each between two values of the x-axis."""

    name: str
    edges: Sequence[tuple[float, float]]
    y: Sequence[float]
    color: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """A stretch of the x-axis that is shaded, such as the warm-up."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A straight line across the chart, at a value of one axis."""

    name: str
    value: float
    axis: str = "x"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The figures of one or several charts; a row's place on their x-axis comes first."""

    id: str
    head: Sequence[str]
    rows: Sequence[tuple[float, Sequence[str]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A chart and everything that is said about it."""

    id: str
    title: str
    note: str
    x: Scale
    y: Scale
    x_title: str
    y_title: str
    series: Sequence[Line | Bars]
    table: Table
    columns: Sequence[int]
    """Which columns of the table belong to the series, in their order."""
    bands: Sequence[Band] = ()
    marks: Sequence[Mark] = ()
    zoom: tuple[float, float] | None = None
    """The values at both ends of an x-axis that can be zoomed."""
    shows_table: bool = True
    """Whether the table is put below this chart; another chart has it otherwise."""
