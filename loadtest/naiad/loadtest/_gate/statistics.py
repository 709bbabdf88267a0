"""The statistics of paired runs: log ratios, sign flips, an interval of the ratio, Holm's correction.

The unit is a pair: one run of the baseline and one of the candidate, next to each other in time and in random order.
Its datum is the logarithm of the ratio of a metric, positive where the candidate is worse. Since the order within a
pair is random, a pair of equal subjects gives a difference and its negative with the same chance, whatever the noise
and however strongly neighbouring runs are correlated. The sign-flip test needs nothing else, and shifting the
differences by an effect tests every other ratio: that is where the interval comes from.

What is flipped are signed ranks (Wilcoxon 1945): against sign flips of the mean they call a slowdown of 20 % as often
when the noise is normal, and more often, up to 10 points, when it has heavy tails (``benchmarks/gate.py --power``).
Their distribution is computed exactly for any number of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = ["FEWEST_PAIRS", "Estimate", "holm_levels", "holm_p_values", "signed_rank_tail"]

FEWEST_PAIRS: Final = 6  # no interval of a median has 95 % with fewer
_RESAMPLES: Final = 2000
_CENTRAL: Final = 0.1  # the standard error is read off the 80 % interval, which outliers do not widen

Differences = NDArray[np.float64]


@lru_cache(maxsize=1024)
def signed_rank_tail(num_pairs: int) -> Differences:
    """Return P(W ≥ w) for w = 0, 1, …: the sum of the positive ranks when every sign is a fair coin."""
    chances = np.ones(1)
    for rank in range(1, num_pairs + 1):
        both = np.zeros(len(chances) + rank)
        both[: len(chances)] += chances / 2
        both[rank:] += chances / 2
        chances = both
    return np.asarray(np.cumsum(chances[::-1])[::-1])


@dataclass(frozen=True, eq=False)
class Estimate:
    """What pairs say about the effect: the logarithm of the ratio, positive where the candidate is worse."""

    differences: Differences
    """One logarithm of a ratio for each pair."""
    seed: int = 0
    """Of the bootstrap."""

    @property
    def num_pairs(self) -> int:
        """How many pairs there are."""
        return len(self.differences)

    @cached_property
    def _walsh(self) -> Differences:
        """The means of any two differences, and of each with itself, sorted: W is how many exceed the null."""
        return np.sort(_pair_means(self.differences[None, :])[0])

    @cached_property
    def effect(self) -> float:
        """The median of the pairs' means (Hodges and Lehmann 1963): a median that uses the data as well as a mean."""
        return float(np.median(self._walsh))

    def p_value(self, null: float = 0.0) -> float:
        """Return the chance of what was seen, or worse, were the effect ``null``; ties count against a finding."""
        exceeding = len(self._walsh) - int(np.searchsorted(self._walsh, null, side="right"))
        return float(signed_rank_tail(self.num_pairs)[exceeding])

    def flip_bounds(self, level: float) -> tuple[float, float]:
        """Return the effects that the sign-flip test does not reject on either side at ``level`` (one-sided).

        They are ∓∞ where so few pairs can reject nothing at this level.
        """
        tail = signed_rank_tail(self.num_pairs)
        needed = int(np.searchsorted(-tail, -level))  # the smallest W that is rejected
        number = len(self._walsh)
        if needed > number:
            return -math.inf, math.inf
        return float(self._walsh[number - needed]), float(self._walsh[needed - 1])

    def bootstrap_bounds(self, level: float) -> tuple[float, float]:
        """Return the ``level`` and ``1 - level`` quantiles of the effect over resampled pairs (Efron 1979).

        Alone they are too narrow for ten or twenty pairs; the sign flips' bounds hold for any number.
        """
        low, high = np.quantile(self._resampled, (level, 1 - level))
        return float(low), float(high)

    @cached_property
    def _resampled(self) -> Differences:
        generator = np.random.default_rng(self.seed)
        drawn = generator.integers(0, self.num_pairs, (_RESAMPLES, self.num_pairs))
        means = _pair_means(self.differences[drawn])
        return np.asarray(np.median(means, axis=1, overwrite_input=True))

    @cached_property
    def standard_error(self) -> float:
        """The effect's standard error; infinite with too few pairs."""
        low, high = self.flip_bounds(_CENTRAL)
        return (high - low) / (2 * float(ndtri(1 - _CENTRAL)))


def _pair_means(differences: Differences) -> Differences:
    """Return, for each row, the means of every two of its values, and of each with itself."""
    left, right = _triangle(differences.shape[1])
    return np.asarray((differences[:, left] + differences[:, right]) / 2)


@lru_cache(maxsize=64)
def _triangle(size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    left, right = np.triu_indices(size)
    return left, right


def holm_p_values(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return the p-values of several metrics, corrected for there being several (Holm 1979)."""
    adjusted, largest = {}, 0.0
    for index, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - index) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def holm_levels(p_values: Mapping[str, float], levels: Sequence[float]) -> dict[str, float]:
    """Return the level that each metric is tested at, in Holm's order: the next one is easier once one was rejected.

    Args:
        p_values: The metrics' one-sided p-values at this look.
        levels: ``levels[j - 1]`` is this look's nominal level when the error is shared among ``j`` metrics.
    """
    found, sharing = {}, len(p_values)
    rejecting = True
    for name in sorted(p_values, key=lambda key: p_values[key]):
        found[name] = levels[sharing - 1]
        rejecting = rejecting and p_values[name] <= levels[sharing - 1]
        if rejecting:
            sharing -= 1
    return found
