"""How sure a figure is: 95 % confidence intervals that know that neighbouring requests are alike.

A window is cut into slots of a quarter second; requests within one, and neighbouring slots, share the state of the
server. The variance of a share (of requests up to a latency, say) is therefore taken from means over batches of slots
(Schmeiser 1982: 10 to 30 batches are enough), widened by what is left of the correlation between neighbouring batches
(as in Tafazzoli and Wilson's Skart, 2011). The number of requests is reduced to as
many independent ones as would vary that much, with Student's t for the few batches (Korn and Graubard 1998). With that
number the exact binomial bounds of Clopper and Pearson (1934) hold for the share; read off the histogram they bound a
percentile (Woodruff 1952). An interval is therefore never narrower than the one of the order statistics of independent
requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from naiad.loadtest.latencies import Latencies

__all__ = [
    "ALPHA",
    "Bounds",
    "mean_interval",
    "needed_requests",
    "prepare",
    "quantile_interval",
    "rate_interval",
    "share_interval",
]

ALPHA: Final = 0.05
Bounds = tuple[float, float]
Numbers = NDArray[np.float64]

_NUM_BATCHES: Final = 20
_MIN_BATCHES: Final = 4
_MIN_DEGREES: Final = 3.0  # of freedom
_MAX_CORRELATION: Final = 0.7  # of neighbouring batches; beyond it a window shows next to nothing


def prepare() -> None:
    """Import what the intervals need, which takes some tenths of a second: for a moment in which one waits anyway."""
    _student(ALPHA, _MIN_DEGREES)


def needed_requests(fraction: float) -> int:
    """Return how many requests it takes to say anything of a quantile: 459 for p99, 4603 for p99.9.

    With so many, at least one lies beyond the quantile with a probability of 99 %.
    """
    return math.ceil(math.log(0.01) / math.log(max(fraction, 1 - fraction)))


def quantile_interval(slots: Sequence[Latencies], fraction: float, alpha: float = ALPHA) -> Bounds | None:
    """Return bounds in µs of the latency that ``fraction`` of the requests do not exceed; ``None`` with too few."""
    batches = _batches(slots)
    whole = Latencies.merged(batches)
    num = whole.count
    if num < needed_requests(fraction):
        return None
    quantile_us = whole.quantiles_us([fraction])[0]
    totals = np.array([batch.count for batch in batches], np.float64)
    within = np.array([batch.count_within(quantile_us) for batch in batches], np.float64)
    independent = _independent(within, totals, alpha)
    if independent is None:
        return None
    low, high = _binomial_bounds(fraction * independent, independent, alpha)
    if high * num > num - 1:  # the bound lies beyond the longest latency seen
        return None
    lower_us, upper_us = whole.quantiles_us([low, high])
    return lower_us, upper_us


def share_interval(hits: Sequence[float], totals: Sequence[float], alpha: float = ALPHA) -> Bounds | None:
    """Return bounds of the share of ``hits`` in ``totals``, both by slot; ``None`` without any."""
    num = float(sum(totals))
    independent = _independent(np.asarray(hits, np.float64), np.asarray(totals, np.float64), alpha) if num else None
    if independent is None:
        return None
    return _binomial_bounds(sum(hits) / num * independent, independent, alpha)


def mean_interval(slots: Sequence[Latencies], alpha: float = ALPHA) -> Bounds | None:
    """Return bounds in µs of the mean latency; ``None`` with too few requests or too short a window."""
    totals = np.array([slot.count for slot in slots], np.float64)
    sums = np.array([slot.total_us for slot in slots], np.float64)
    if totals.sum() < needed_requests(0.5):
        return None
    return _around(sums.sum() / totals.sum(), _half_width(sums, totals, alpha))


def rate_interval(counts: Sequence[float], slot_s: float, alpha: float = ALPHA) -> Bounds | None:
    """Return bounds of a rate per second, from how many ended in each slot of ``slot_s``; ``None`` with too few."""
    seconds = np.full(len(counts), slot_s)
    if not len(counts) or not sum(counts):
        return None
    return _around(sum(counts) / seconds.sum(), _half_width(np.asarray(counts, np.float64), seconds, alpha))


def _edges(num_slots: int, num_batches: int) -> NDArray[np.int64]:
    """Return where each batch begins."""
    return np.linspace(0, num_slots, num_batches, endpoint=False).astype(np.int64)


def _batches(slots: Sequence[Latencies]) -> Sequence[Latencies]:
    """Return the histograms of the batches, of which nothing finer is used."""
    if len(slots) <= _NUM_BATCHES:
        return slots
    edges = [*_edges(len(slots), _NUM_BATCHES).tolist(), len(slots)]
    return [Latencies.merged(slots[first:last]) for first, last in pairwise(edges)]


def _around(centre: float, half_width: float | None) -> Bounds | None:
    if half_width is None:
        return None
    return max(0.0, float(centre - half_width)), float(centre + half_width)


def _independent(hits: Numbers, totals: Numbers, alpha: float) -> float | None:
    """Return as how many independent requests they tell of the share; at most as many as there are."""
    num = float(totals.sum())
    half_width = _half_width(hits, totals, alpha)
    if half_width is None:
        return None
    share = float(hits.sum()) / num
    binomial = share * (1 - share)
    if not half_width or not binomial:
        return num
    return min(num, binomial * (_normal(alpha) / half_width) ** 2)


def _half_width(sums: Numbers, totals: Numbers, alpha: float) -> float | None:
    """Return half the width of the interval of a ratio of sums by batch means; ``None`` with too few batches."""
    num_batches = min(_NUM_BATCHES, len(totals))
    if num_batches < _MIN_BATCHES:
        return None
    edges = _edges(len(totals), num_batches)
    batch_sums, batch_totals = np.add.reduceat(sums, edges), np.add.reduceat(totals, edges)
    rest = batch_sums - batch_sums.sum() / batch_totals.sum() * batch_totals
    square = float(rest @ rest)
    if not square:
        return 0.0
    inflation = _inflation(float(rest[1:] @ rest[:-1]) / square, num_batches)
    error = math.sqrt(num_batches / (num_batches - 1) * square * inflation) / float(batch_totals.sum())
    return _student(alpha, max(_MIN_DEGREES, (num_batches - 1) / inflation)) * error


def _inflation(correlation: float, num_batches: int) -> float:
    """Return by how much more the sum of batches varies than if each were independent of the one before."""
    unbiased = correlation + (1 + 3 * correlation) / num_batches  # short series hide their correlation (Kendall 1954)
    rho = min(max(unbiased, 0.0), _MAX_CORRELATION)
    return (1 + rho) / (1 - rho)


def _binomial_bounds(hits: float, num: float, alpha: float) -> Bounds:
    from scipy.special import betaincinv

    low = float(betaincinv(hits, num - hits + 1, alpha / 2)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, num - hits, 1 - alpha / 2)) if hits < num else 1.0
    return low, high


@lru_cache
def _student(alpha: float, degrees: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - alpha / 2))


@lru_cache
def _normal(alpha: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(1 - alpha / 2))
