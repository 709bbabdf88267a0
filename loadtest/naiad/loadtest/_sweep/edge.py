"""Where a server stops keeping its objectives, estimated from noisy runs at different rates.

An objective like p99 < 20 ms allows one request in a hundred to take longer. The share of requests that do is what is
looked at, not each run's own p99: slow requests come in clusters (whoever queues behind a burst is late together), so
that most short runs see too few of them and some see very many. The percentile of a short run is therefore too low
more often than not, while shares are right on average, however the slow ones are clustered.

Two assumptions. Around the edge the logarithm of the share grows in proportion to the rate: log share = log allowed +
slope · (rate / edge - 1), which is exact for M/M/1, where P(T > t) = exp(-(μ - λ) t), and how the tails of queues with
light-tailed service behave in general (P. Glynn, W. Whitt, "Logarithmic asymptotics for steady-state tail probabilities
in a single-server queue", 1994). And late requests come in clusters, of which a run has a Poisson number; their sizes
are exponential, and grow with the square root of the share: the longer a queue, the more are late behind each other
(the time in which M/M/1 forgets is 1 / (√μ - √λ)²; J. W. Cohen, "The Single Server Queue", 1982).

Objectives on a mean or maximum have no share. There a run gives the excess 1 - limit / measured, which grows in
proportion to the rate, as waiting goes as 1 / (1 - load) (J. F. C. Kingman, "The single server queue in heavy traffic",
1961), with noise that has the tails of Student's t.

Edge, slope and the size of clusters at the edge (or the noise) are unknown, and all are inferred at once: Bayes' rule
on a grid that is flat in the logarithms. The interval is that of the edge with the others integrated out. As the
assumptions hold nearly, not exactly, the evidence of each run counts for a little less than it says (`_TRUST`);
`benchmarks/capacity.py` shows how often the interval holds the true capacity of simulated queues.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Edge", "Evidence", "Excess", "Observation", "Share"]

_RESOLUTION: Final = 0.004
_MOST_RATES: Final = 1500
_TRUST: Final = 0.75
_SHARE_SLOPES: Final = np.geomspace(2, 512, 13)
_CLUSTERS: Final = np.geomspace(1.05, 1000, 10)
_EXCESS_SLOPES: Final = np.geomspace(0.5, 128, 13)
_NOISES: Final = np.geomspace(0.02, 1.0, 8)
_FREEDOM: Final = 4
_LOWEST: Final = -1.0
"""An excess below it (half the limit) is off the line: a server without a queue has its service time left."""
_HIGHEST: Final = 0.5
"""One above it (twice the limit), too: an overloaded queue grows for as long as the run lasts."""
_NEAR_SHARE: Final = 8.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """How many requests of a run were beyond an objective that allows a share of them to be."""

    beyond: int
    requests: int
    allowed: float

    @property
    def kept(self) -> bool:
        """Whether the objective was."""
        return self.beyond <= self.allowed * self.requests

    @property
    def near(self) -> bool:
        """Whether the share is of the order of the allowed one."""
        return self.beyond <= _NEAR_SHARE * self.allowed * self.requests and self.beyond > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Excess:
    """How far a run was beyond an objective without a share: 1 - limit / measured."""

    value: float
    weight: float = 1.0
    """The run's length over that of a full one: short runs are noisier."""

    @property
    def kept(self) -> bool:
        """Whether the objective was."""
        return self.value <= 0

    @property
    def near(self) -> bool:
        """Whether it is close enough to the edge to tell the slope."""
        return _LOWEST <= self.value <= _HIGHEST


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """A run: its rate, and how each objective came out, in the same order every time."""

    rate_per_s: float
    outcomes: tuple[Share | Excess, ...]

    @property
    def kept(self) -> bool:
        """Whether all objectives were."""
        return all(outcome.kept for outcome in self.outcomes)

    @property
    def near(self) -> bool:
        """Whether it tells more than on which side of the edge it was."""
        return any(outcome.near for outcome in self.outcomes)


@dataclass(frozen=True, slots=True)
class Edge:
    """What is known of the highest rate that keeps the objectives: a distribution over rates."""

    rates: Floats
    shares: Floats
    """Probability of each rate."""

    def quantile(self, share: float) -> float:
        """Return the rate below which the edge lies with this probability."""
        return float(np.interp(share, np.cumsum(self.shares) - self.shares / 2, self.rates))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the rates between which it lies."""
        tail = (1 - confidence) / 2
        return self.quantile(tail), self.quantile(1 - tail)

    @property
    def rate_per_s(self) -> float:
        """The median."""
        return self.quantile(0.5)

    def half_width(self, confidence: float) -> float:
        """Return half the interval's width as a fraction of the rate."""
        low, high = self.interval(confidence)
        return (high - low) / 2 / self.rate_per_s


class Evidence:
    """What the runs say of the edge, which lies between two rates."""

    def __init__(self, low: float, high: float, observations: Iterable[Observation] = ()) -> None:
        self.rates = np.geomspace(low, high, min(max(int(math.log(high / low) / _RESOLUTION), 50), _MOST_RATES))
        self._totals: dict[int, Floats] = {}
        for each in observations:
            self.add(each)

    def add(self, observation: Observation) -> None:
        """Take a run into account."""
        for index, outcome in enumerate(observation.outcomes):
            likelihood = _log_likelihood(observation.rate_per_s, outcome, self.rates)
            self._totals[index] = self._totals[index] + likelihood if index in self._totals else likelihood

    @property
    def edge(self) -> Edge:
        """The distribution of the edge; of several objectives, of the one that breaks first."""
        each = [np.exp(_TRUST * (total - total.max())).sum(axis=(1, 2)) for total in self._totals.values()]
        beyond = reduce(np.multiply, (np.cumsum(shares[::-1])[::-1] / shares.sum() for shares in each))
        shares = -np.diff(beyond, append=0.0)  # from P(every edge is here or higher)
        return Edge(self.rates, shares / shares.sum())


def _log_likelihood(rate_per_s: float, outcome: Share | Excess, rates: Floats) -> Floats:
    """Return it for every edge, slope, and cluster size or noise."""
    distance = rate_per_s / rates[:, None] - 1
    if isinstance(outcome, Share):
        return _of_share(outcome, distance * _SHARE_SLOPES)
    return _of_excess(outcome, distance * _EXCESS_SLOPES)


def _of_share(outcome: Share, line: Floats) -> Floats:
    """Return it of a compound Poisson number.

    With N clusters expected, of mean size m, the density of n late requests is
    exp(-N - n/m) sqrt(N / (n m)) I1(2 sqrt(N n / m)), and there are none with probability exp(-N).
    """
    from scipy.special import ive

    line = np.minimum(line, -math.log(outcome.allowed))[:, :, None]
    size = np.maximum((_CLUSTERS + 1) / 2 * np.exp(line / 2), 1.0)
    clusters = outcome.requests * outcome.allowed * np.exp(line) / size
    if not outcome.beyond:
        return np.asarray(-clusters)
    in_clusters = outcome.beyond / size
    root = np.sqrt(clusters * in_clusters)
    bessel = np.log(np.maximum(ive(1, 2 * root), 1e-300))
    return np.asarray(2 * root - clusters - in_clusters + bessel + np.log(clusters / in_clusters) / 2 - np.log(size))


def _of_excess(outcome: Excess, line: Floats) -> Floats:
    noise = _NOISES / math.sqrt(min(outcome.weight, 1.0))
    if outcome.near:
        scaled = (outcome.value - line[:, :, None]) / noise
        return np.asarray(-(_FREEDOM + 1) / 2 * np.log1p(scaled**2 / _FREEDOM) - np.log(noise))
    if outcome.value > _HIGHEST:
        return np.log(_below((line[:, :, None] - _HIGHEST) / noise))
    return np.log(_below((_LOWEST - line[:, :, None]) / noise))


def _below(t: Floats) -> Floats:
    """Return the distribution function of Student's t with 4 degrees of freedom, which has a closed form."""
    squared = t * t / 4
    u = t / np.sqrt(1 + squared)
    return np.asarray(np.clip(0.5 + 0.375 * u * (1 - squared / (1 + squared) / 3), 1e-12, 1.0))
