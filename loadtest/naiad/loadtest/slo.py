"""Objectives: what a run must reach, written as ``p99<20ms``, ``throughput>1000/s`` or ``errors<0.1%``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Self

from naiad.loadtest.errors import InvalidSlo

if TYPE_CHECKING:
    from naiad.loadtest._truth.measurement import Measurement

__all__ = ["Slo", "SloResult", "split_metric"]

_TOKENS: Final = re.compile(
    r"\s*(?P<metric>[a-z_][a-z_\d.]*)?"
    r"\s*(?P<op><=|>=|<|>)?"
    r"\s*(?P<value>\d+(?:\.\d+)?)?"
    r"\s*(?P<unit>[a-zµμ%/]+)?\s*(?P<rest>.*)",
    re.DOTALL,
)
_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LATENCY_UNITS: Final = {"us": 1.0, "µs": 1.0, "μs": 1.0, "ms": 1e3, "s": 1e6}
_RATE_UNITS: Final = {"/s": 1.0, "rps": 1.0}
_SHARE_UNITS: Final = {"%": 0.01}
_RATES: Final = frozenset({"throughput", "inferences"})
_FROM_BELOW: Final = _RATES | {"goodput"}
_DISTRIBUTIONS: Final = {
    "": "latencies",
    "service": "service",
    "first_response": "first_response",
    "between": "between_responses",
}
_EXAMPLES: Final = 'expected an objective like "p99<20ms", "mean<=800us", "throughput>1000/s" or "errors<0.1%"'
_METRICS: Final = (
    "p50, p90, p99, p99.9 (any above 0, below 100), mean or max, these also as service_…, first_response_… and "
    "between_…, throughput, inferences, goodput, errors"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Slo:
    """One objective. ``limit`` is in µs (latencies), per second (rates) or a fraction (errors, goodput)."""

    text: str
    """How it was written."""
    metric: str
    """``p50`` … ``p99.99``, ``mean``, ``max``; these of the time since the request left (``service_p99``), until the
    first response (``first_response_p99``) and between responses (``between_p99``); ``throughput`` (requests/s),
    ``inferences`` (rows/s), ``errors``, ``goodput`` (share of the requests that succeeded within the limits that the
    other objectives set on latencies)."""
    operator: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an objective.

        Raises:
            InvalidSlo: it is none, has an unknown metric or unit, or points the wrong way; the message shows where.
        """
        match = _TOKENS.fullmatch(text.lower())
        assert match is not None  # every part may be missing
        metric, op, value = _token(match, "metric"), _token(match, "op"), _token(match, "value")
        units = _units(metric, match)
        if (op[0] == ">") != (metric in _FROM_BELOW):
            raise _wrong(match, "op", f"{metric} is bounded with {'>' if metric in _FROM_BELOW else '<'}")
        unit = match["unit"] or ""
        if unit not in units:
            known = ", ".join(filter(str.isascii, units))
            raise _wrong(match, "unit", f"the unit of {metric} is one of {known}, found {unit!r}")
        if match["rest"]:
            raise _wrong(match, "rest", "nothing may follow the unit; another objective is given on its own")
        return cls(text=" ".join(text.split()), metric=metric, operator=op, limit=_exact(value, units[unit]))

    def judge(self, measurement: Measurement) -> SloResult:
        """Compare with what was measured; what too few requests cannot show is not met."""
        needed, found = _needed_requests(self.metric), measurement.num_of(self.metric)
        if found < needed:
            few = f"{found} requests cannot show {self.metric}, it takes {needed}: run longer"
            return SloResult(slo=self, measured=None, met=False, note=few)
        measured, interval = measurement.value(self.metric), measurement.interval(self.metric)
        met = measured is not None and self.allows(measured)
        proven = interval is not None and self.allows(interval[0]) == self.allows(interval[1]) == met
        return SloResult(
            slo=self, measured=measured, met=met, interval=interval, proven=proven, note=_note(met, proven, interval)
        )

    def allows(self, value: float) -> bool:
        """Whether ``value`` of the metric is within the limit."""
        return _OPERATORS[self.operator](value, self.limit)


@dataclass(frozen=True, kw_only=True, slots=True)
class SloResult:
    """How an objective came out; ``measured`` has the unit of ``slo.limit``, or is ``None``."""

    slo: Slo
    measured: float | None
    met: bool
    interval: tuple[float, float] | None = None
    """The 95 % confidence interval of ``measured``; ``None`` where the run is too short for one."""
    proven: bool = False
    """Whether the whole interval says the same as ``met``."""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        return {
            "slo": self.slo.text,
            "metric": self.slo.metric,
            "limit": self.slo.limit,
            "measured": self.measured,
            "interval": self.interval,
            "met": self.met,
            "proven": self.proven,
            "note": self.note,
        }


def split_metric(metric: str) -> tuple[str, str] | None:
    """Return the distribution that a metric is read from, and which figure of it; ``None`` for rates and shares.

    The distribution is the name of a field of :class:`~naiad.loadtest.Measurement`; the figure is ``p…``, ``mean`` or
    ``max``.
    """
    prefix, _, figure = metric.rpartition("_")
    if prefix not in _DISTRIBUTIONS or not (figure in {"mean", "max"} or re.fullmatch(r"p\d+(\.\d+)?", figure)):
        return None
    return _DISTRIBUTIONS[prefix], figure


def _note(met: bool, proven: bool, interval: tuple[float, float] | None) -> str:
    if proven:
        return ""
    reason = "the limit lies within the uncertainty of this run"
    if interval is None:
        reason = "this run has no confidence interval for it"
    return f"{'met' if met else 'missed'}, but not proven: {reason}"


def _token(match: re.Match[str], name: str) -> str:
    if not match[name]:
        wanted = {"metric": "the name of a metric", "op": "<, <=, > or >=", "value": "a number"}[name]
        raise _wrong(match, name, f"here should be {wanted}")
    return match[name]


def _wrong(match: re.Match[str], name: str, problem: str) -> InvalidSlo:
    """Return the error that points at a part of the objective, or at where it is missing."""
    text = match.string
    place = match.start(name) if match[name] else max((match.end(part) for part in _before(match, name)), default=0)
    return InvalidSlo(f"{_EXAMPLES}, found {text!r}: {problem}\n    {text}\n    {' ' * place}^")


def _before(match: re.Match[str], name: str) -> list[str]:
    parts = list(match.re.groupindex)
    return [part for part in parts[: parts.index(name)] if match[part]]


def _exact(value: str, unit: float) -> float:
    """Multiply in decimal: 1.001 ms are 1001 µs, where binary fractions make it a little less."""
    return float(Decimal(value) * Decimal(str(unit)))


def _units(metric: str, match: re.Match[str]) -> dict[str, float]:
    if metric in _RATES:
        return _RATE_UNITS
    if metric in {"errors", "goodput"}:
        return _SHARE_UNITS
    found = split_metric(metric)
    if found is not None and (found[1][0] == "m" or 0 < float(found[1][1:]) < 100):
        return _LATENCY_UNITS
    raise _wrong(match, "metric", f"{metric!r} is none of {_METRICS}")


def _needed_requests(metric: str) -> int:
    """Return the smallest number of requests of which at least one lies beyond the percentile."""
    _, figure = split_metric(metric) or ("", "")
    if figure[:1] != "p":
        return 1
    return math.ceil(round(1 / (1 - float(figure[1:]) / 100), 6))
