"""What a run says about each objective of a search."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from naiad.loadtest._sweep.edge import Excess, Share
from naiad.loadtest.errors import InvalidSlo
from naiad.loadtest.slo import split_metric

if TYPE_CHECKING:
    from naiad.loadtest._truth.measurement import Measurement
    from naiad.loadtest.latencies import Latencies
    from naiad.loadtest.slo import Slo

__all__ = ["check_searchable", "outcomes_of", "shortest_run_s"]

_ALLOWED_ERRORS: Final = 0.01
"""Share of failed requests without an objective on them, as in a run's verdict."""
_BEYOND: Final = 3
"""Requests that lie beyond an objective at its edge, on average, in the shortest run."""
_FEWEST: Final = 100
_MOST: Final = 10_000
_RELAXATIONS: Final = 4.0
_LONGEST_RELAXED_S: Final = 20.0
_LONGEST_RUN_S: Final = 60.0


def check_searchable(slos: Sequence[Slo]) -> None:
    """Refuse objectives that do not get harder as the rate grows.

    Raises:
        InvalidSlo: There is one, or none is given.
    """
    if not slos:
        raise InvalidSlo('expected at least one objective to keep, like "p99<20ms", found none')
    for slo in slos:
        if slo.operator[0] != "<":
            raise InvalidSlo(
                "the highest rate is searched for objectives that more load breaks, like p99<20ms or errors<0.1%, "
                f"found {slo.text!r}"
            )


def outcomes_of(measurement: Measurement, slos: Sequence[Slo], weight: float) -> tuple[Share | Excess, ...]:
    """Return the outcome of each objective, and of the allowed errors where none is on them.

    ``weight`` is the run's length over that of a full one.
    """
    return tuple(_outcomes(measurement, slos, weight))


def shortest_run_s(slos: Sequence[Slo], rate_per_s: float) -> float:
    """Return how long a run must be to say something about the objectives at a rate near the edge.

    Long enough for a few requests beyond each, and for the queue to forget how the run began. That takes an M/M/1 queue
    about 4 μ / (μ - λ)² (the relaxation time: J. Abate, W. Whitt, "Transient behavior of the M/M/1 queue", 1987). At
    the edge of p99 < L, μ - λ is ln(100) / L, so that it is about a fifth of rate · L²; runs take a multiple.
    """
    requests = max(_needed_requests(slo) for slo in slos)
    limits_s = [slo.limit / 1e6 for slo in slos if _distribution(slo) is not None]
    relaxed_s = _RELAXATIONS * rate_per_s * min(limits_s, default=0.0) ** 2
    return min(max(requests / rate_per_s, min(relaxed_s, _LONGEST_RELAXED_S)), _LONGEST_RUN_S)


def _outcomes(measurement: Measurement, slos: Sequence[Slo], weight: float) -> Iterator[Share | Excess]:
    for slo in slos:
        name, allowed = _distribution(slo), _allowed(slo)
        if name is None:
            yield _failed(measurement, slo.limit)
        elif allowed is None:
            yield Excess(value=_excess(measurement.value(slo.metric), slo.limit), weight=weight)
        else:
            yield _late(getattr(measurement, name), slo.limit, allowed)
    if not any(slo.metric == "errors" for slo in slos):
        yield _failed(measurement, _ALLOWED_ERRORS)


def _late(latencies: Latencies, limit_us: float, allowed: float) -> Share:
    if not latencies.count:  # nothing succeeded: all are beyond
        return Share(beyond=_FEWEST, requests=_FEWEST, allowed=allowed)
    beyond = latencies.count - latencies.count_within(limit_us)
    return Share(beyond=beyond, requests=latencies.count, allowed=allowed)


def _failed(measurement: Measurement, allowed: float) -> Share:
    total = measurement.latencies.count + measurement.failed
    return Share(beyond=measurement.failed, requests=max(total, 1), allowed=allowed or 1 / (2 * _MOST))


def _distribution(slo: Slo) -> str | None:
    """Return the distribution an objective is about; ``None`` for the share of errors."""
    found = split_metric(slo.metric)
    return None if found is None else found[0]


def _allowed(slo: Slo) -> float | None:
    """Return the share of requests that may be beyond a limit; ``None`` for a mean or maximum."""
    found = split_metric(slo.metric)
    if found is None:
        return slo.limit or None
    return round(1 - float(found[1][1:]) / 100, 9) if found[1][0] == "p" else None


def _needed_requests(slo: Slo) -> int:
    allowed = _allowed(slo)
    return _FEWEST if not allowed else min(max(_FEWEST, math.ceil(_BEYOND / allowed)), _MOST)


def _excess(measured: float | None, limit: float) -> float:
    if measured is None:  # no request succeeded
        return 1.0
    return 1 - limit / measured if measured > 0 else -math.inf
