"""Objectives: what a run must reach, written as ``p99<20ms``, ``throughput>1000/s`` or ``errors<0.1%``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Self

from naiad.loadtest.errors import InvalidSlo
from naiad.loadtest.measurement import Measurement

__all__ = ["Slo", "SloResult"]

_PATTERN: Final = re.compile(
    r"\s*(?P<metric>p\d+(?:\.\d+)?|[a-z]+)\s*(?P<op><=|>=|<|>)\s*(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>[a-zµμ%/]*)\s*"
)
_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LATENCY_UNITS: Final = {"us": 1.0, "µs": 1.0, "μs": 1.0, "ms": 1e3, "s": 1e6}
_RATE_UNITS: Final = {"/s": 1.0, "rps": 1.0}
_ERROR_UNITS: Final = {"%": 0.01}
_RATES: Final = frozenset({"throughput", "inferences"})
_EXAMPLES: Final = 'expected an objective like "p99<20ms", "mean<=800us", "throughput>1000/s" or "errors<0.1%"'


@dataclass(frozen=True, kw_only=True, slots=True)
class Slo:
    """One objective. ``limit`` is in µs (latencies), per second (rates) or a fraction (errors)."""

    text: str
    """How it was written."""
    metric: str
    """``p50`` … ``p99.99``, ``mean``, ``max``, ``throughput`` (requests/s), ``inferences`` (rows/s), ``errors``."""
    operator: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an objective.

        Raises:
            InvalidSlo: it is not one, names an unknown metric or unit, or points the wrong way.
        """
        match = _PATTERN.fullmatch(text.lower())
        if match is None:
            raise InvalidSlo(f"{_EXAMPLES}, found {text!r}")
        metric, op, unit = match["metric"], match["op"], match["unit"]
        units = _units(metric, text)
        if unit not in units:
            known = ", ".join(filter(str.isascii, units))
            raise InvalidSlo(f"{_EXAMPLES}, found {text!r}: the unit of {metric} is one of {known}, found {unit!r}")
        if (op[0] == ">") != (metric in _RATES):
            raise InvalidSlo(
                f"{_EXAMPLES}, found {text!r}: {metric} is bounded with {'>' if metric in _RATES else '<'}"
            )
        return cls(text=" ".join(text.split()), metric=metric, operator=op, limit=_exact(match["value"], units[unit]))

    def judge(self, measurement: Measurement) -> SloResult:
        """Compare with what was measured; what too few requests cannot show is not met."""
        needed = _needed_requests(self.metric)
        if measurement.latencies.count < needed:
            few = f"{measurement.latencies.count} requests cannot show {self.metric}, it takes {needed}: run longer"
            return SloResult(slo=self, measured=None, met=False, note=few)
        measured = measurement.value(self.metric)
        met = measured is not None and _OPERATORS[self.operator](measured, self.limit)
        return SloResult(slo=self, measured=measured, met=met)


@dataclass(frozen=True, kw_only=True, slots=True)
class SloResult:
    """How an objective came out; ``measured`` has the unit of ``slo.limit``, or is ``None``."""

    slo: Slo
    measured: float | None
    met: bool
    note: str = ""


def _exact(value: str, unit: float) -> float:
    """Multiply in decimal: 1.001 ms are 1001 µs, where binary fractions make it a little less."""
    return float(Decimal(value) * Decimal(str(unit)))


def _units(metric: str, text: str) -> dict[str, float]:
    if metric in _RATES:
        return _RATE_UNITS
    if metric == "errors":
        return _ERROR_UNITS
    if metric in {"mean", "max"} or (metric[0] == "p" and metric[1:2].isdigit() and 0 < float(metric[1:]) < 100):
        return _LATENCY_UNITS
    raise InvalidSlo(
        f"{_EXAMPLES}, found {text!r}: {metric!r} is none of p50, p90, p99, p99.9 (any above 0, below 100), mean, "
        "max, throughput, inferences, errors"
    )


def _needed_requests(metric: str) -> int:
    """Return the smallest number of requests of which at least one lies beyond the percentile."""
    if metric[0] != "p":
        return 1
    return math.ceil(round(1 / (1 - float(metric[1:]) / 100), 6))
