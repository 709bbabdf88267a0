"""What a run measured: the sum of its intervals over the window, beside what the server says of the same time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from naiad.loadtest._data.target import Target
from naiad.loadtest._engine.messages import Interval
from naiad.loadtest._truth import confidence
from naiad.loadtest._truth.confidence import ALPHA, Bounds
from naiad.loadtest._truth.points import Point
from naiad.loadtest._truth.resources import Resources, ServerSample
from naiad.loadtest._truth.server_times import ServerTimes
from naiad.loadtest._truth.slots import SLOT_S, Slot, merge
from naiad.loadtest._truth.step_times import PipelineTimes
from naiad.loadtest._truth.window import Counted
from naiad.loadtest.latencies import Latencies
from naiad.loadtest.plan import LoadTest
from naiad.loadtest.slo import Slo, split_metric

__all__ = ["Counted", "Measurement"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """The measured window.

    Rates count what ended within the window. Percentiles and errors also count what ended after it: nothing new is
    sent then, so these requests were in flight when it closed, and a server that hung at the end cannot hide.
    """

    window_s: float
    users: int
    """The most at a time; 0 in an open loop."""
    rows_per_request: float
    """The mean, where models of a mix differ."""
    sent: int
    """Requests that left within the window."""
    offered: int
    """Requests that left, or should have left, within the window."""
    completed: int
    """Requests that succeeded within the window."""
    responses: int
    """Answers within the window; decoupled models give any number to a request."""
    latencies: Latencies
    """Of successful requests, from when they should have left."""
    service: Latencies
    """Of successful requests, from when they left."""
    lag: Latencies
    """Of all requests that left, from when they should have to when they did."""
    first_response: Latencies
    between_responses: Latencies
    errors: Mapping[str, int]
    examples: Mapping[str, str]
    points: Sequence[Point]
    cpu_shares: Sequence[float]
    """CPU time over wall time of each engine process: 1 is one core. Empty in a part."""
    server: ServerTimes | None
    """``None`` where the server's statistics of the window could not be had."""
    steps: PipelineTimes | None = None
    """Of a model that calls others; ``None`` of one that does not, and of several models together."""
    began_anew: bool = False
    """Whether the server's counters of a model were set back within the run: it, or the model, began anew."""
    resources: Resources | None = None
    """What the server used; ``None`` where that cannot be seen from here, and in a part."""
    counted: Counted | None = None
    """``None`` where the server's statistics of the whole run could not be had."""
    slos: Sequence[Slo] = ()
    """The objectives of the test, whose limits make the goodput."""
    alpha: float = ALPHA
    """How often a confidence interval may be wrong; less than 0.05 where the run looked at its own result to end."""
    model: str = ""
    """The model that a part is of; empty for the whole."""
    parts: tuple[Measurement, ...] = ()
    """One for each model of a mix, in its order; empty for a single model."""
    slots: Sequence[Slot] = field(default=(), repr=False)
    """The window in quarter seconds, and what ended after it as one more."""

    @property
    def in_window(self) -> Sequence[Slot]:
        """The slots of the window alone."""
        return self.slots[: round(self.window_s / SLOT_S)]

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return sum(self.errors.values())

    @property
    def cpu_share(self) -> float:
        """CPU time of the busiest engine process over the window's length: 1 is one core."""
        return max(self.cpu_shares, default=0.0)

    @property
    def throughput(self) -> float:
        """Requests per second that succeeded."""
        return self.completed / self.window_s if self.window_s else 0.0

    @property
    def inferences(self) -> float:
        """Inferences (rows) per second that succeeded."""
        return self.throughput * self.rows_per_request

    @property
    def in_flight(self) -> float | None:
        """How many requests had left and not ended, on average (Little's law); ``None`` without any."""
        mean_us = merge(self.in_window).service.mean_us if self.in_window else None
        return None if mean_us is None else self.throughput * mean_us * 1e-6

    @property
    def error_share(self) -> float | None:
        """Failed requests as a fraction of all; ``None`` without any request."""
        total = self.latencies.count + self.failed
        return self.failed / total if total else None

    def goodput(self, slos: Iterable[Slo]) -> float | None:
        """Return the requests per second that succeeded within the limits of ``slos``; ``None`` without such limits.

        The limit of a request is the largest that an objective sets on a latency: with p50<5ms and p99<20ms, a request
        of 19 ms is a good one.
        """
        good = self._num_good(slos, self.in_window)
        return None if good is None else sum(good) / self.window_s if self.window_s else 0.0

    def goodput_share(self, slos: Iterable[Slo]) -> float | None:
        """Return the share of the requests that succeeded within the limits of ``slos``; ``None`` without any."""
        good, total = self._num_good(slos, self.slots), self.latencies.count + self.failed
        return None if good is None or not total else sum(good) / total

    def _num_good(self, slos: Iterable[Slo], slots: Sequence[Slot]) -> list[int] | None:
        """Return how many requests of each slot were good, by the distribution of which the fewest were."""
        limits = _limits(slos)
        if not limits:
            return None
        return [
            min(getattr(slot, name).count_within(slo.limit, included="=" in slo.operator) for name, slo in limits)
            for slot in slots
        ]

    def num_of(self, metric: str) -> int:
        """Return how many requests ``metric`` is read from."""
        found = split_metric(metric)
        return self.latencies.count + self.failed if found is None else getattr(self, found[0]).count

    def value(self, metric: str) -> float | None:
        """Return a metric by its name in objectives: ``p99`` (µs), ``throughput`` (1/s), ``errors`` (fraction), …"""
        found = split_metric(metric)
        if found is None:
            return {
                "throughput": self.throughput,
                "inferences": self.inferences,
                "errors": self.error_share,
                "goodput": self.goodput_share(self.slos),
            }[metric]
        latencies: Latencies = getattr(self, found[0])
        if found[1] == "mean":
            return latencies.mean_us
        return latencies.max_us if found[1] == "max" else latencies.percentile_us(float(found[1][1:]))

    def interval(self, metric: str) -> Bounds | None:
        """Return the 95 % confidence interval of :meth:`value`; ``None`` where the run is too short for one."""
        found = split_metric(metric)
        if found is None:
            return self._interval_of_rate(metric)
        slots: list[Latencies] = [getattr(slot, found[0]) for slot in self.slots]
        if found[1] == "max":  # of what was seen; there is no telling of what was not
            return None
        if found[1] == "mean":
            return confidence.mean_interval(slots, self.alpha)
        return confidence.quantile_interval(slots, float(found[1][1:]) / 100, self.alpha)

    def _interval_of_rate(self, metric: str) -> Bounds | None:
        totals = [slot.completed + slot.failed for slot in self.slots]
        if metric == "errors":
            return confidence.share_interval([slot.failed for slot in self.slots], totals, self.alpha)
        if metric == "goodput":
            good = self._num_good(self.slos, self.slots)
            return None if good is None else confidence.share_interval(good, totals, self.alpha)
        rows = self.rows_per_request if metric == "inferences" else 1.0
        return confidence.rate_interval([slot.completed * rows for slot in self.in_window], SLOT_S, self.alpha)

    @classmethod
    def of(
        cls,
        test: LoadTest,
        target: Target | Sequence[Target],
        intervals: Sequence[Interval],
        samples: Sequence[ServerSample],
        *,
        window: tuple[float, float],
        looks: int = 0,
    ) -> Self:
        """Sum up what ended within ``window`` (seconds since the run's start, multiples of 0.25) and after it.

        ``target`` is one for each traffic of the mix; ``looks`` is how often it was looked at the result before the
        window was closed because of it.
        """
        from naiad.loadtest._truth.measuring import measure
        from naiad.loadtest._truth.stopping import alpha_of

        targets = (target,) if isinstance(target, Target) else tuple(target)
        return cls(**measure(cls, test, targets, intervals, samples, window, alpha_of(looks)))

    def to_json(self) -> dict[str, Any]:
        """Return the results as the report has them."""
        from naiad.loadtest._truth.content import results

        return results(self)


def _limits(slos: Iterable[Slo]) -> list[tuple[str, Slo]]:
    """Return for each distribution of a request's own times the loosest objective on it."""
    found: dict[str, Slo] = {}
    for slo in slos:
        name, figure = split_metric(slo.metric) or ("", "")
        if name in ("", "between_responses") or figure == "mean":
            continue
        if name not in found or slo.limit > found[name].limit:
            found[name] = slo
    return list(found.items())
