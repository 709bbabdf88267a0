"""Is a series still going somewhere? Where its warm-up ends, and whether the rest has a trend."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Trend", "end_of_warmup", "trend_of"]

Numbers = NDArray[np.float64]


def end_of_warmup(values: Numbers) -> int:
    """Return how many values to leave out so that the mean of the rest is known best.

    This is the marginal standard error rule (MSER-5: White 1997; White, Cobb and Spratt 2000): of all truncations the
    one with the smallest variance of the mean of what is left, each value being the figure of many requests. A
    truncation in the second half of the series says that the warm-up may not have ended.
    """
    num = values.size
    left = np.arange(num, 0, -1)
    sums, squares = np.cumsum(values[::-1])[::-1], np.cumsum((values**2)[::-1])[::-1]
    variances = np.maximum(squares - sums**2 / left, 0.0)
    error = variances / left.astype(np.float64) ** 2
    return int(np.argmin(error[: max(num - 4, 1)]))  # the last few agree by chance


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """By how much the second half of a series differs from the first."""

    change: float
    error: float
    """Standard error of ``change``."""

    def significant(self, factor: float = 2.0) -> bool:
        """Whether the change is more than ``factor`` standard errors."""
        return abs(self.change) > factor * self.error


def trend_of(values: Numbers) -> Trend:
    """Return the change along ``values`` (at least 4) by a straight line fitted to them.

    The line's rise over half of the series is compared with its standard error, which counts with neighbours that are
    alike: it is widened by the correlation of each residual with the next.
    """
    num = values.size
    at = np.arange(num) - (num - 1) / 2
    slope = float(at @ values / (at @ at))
    rest = values - values.mean() - slope * at
    square = float(rest @ rest)
    rho = float(rest[1:] @ rest[:-1]) / square if square else 0.0
    rho = min(max(rho + (1 + 4 * rho) / num, 0.0), 0.9)  # residuals of a fit hide some of their correlation
    error = math.sqrt(square / (num - 2) / float(at @ at) * (1 + rho) / (1 - rho))
    return Trend(change=slope * num / 2, error=error * num / 2)
