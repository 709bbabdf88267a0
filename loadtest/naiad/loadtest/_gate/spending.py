"""How much error a gate may spend at each look, so that all its looks together err as rarely as it says.

A gate that looks after every few pairs and stops at the first convincing look would err far more often than one that
looks once. Lan and DeMets (Biometrika 70, 1983) spread the error over the looks by a spending function of the share of
the budget that was used; the bounds come from the joint distribution of the statistic at all looks, integrated
numerically as by Armitage, McPherson and Rowe (J. R. Stat. Soc. A 132, 1969; Jennison and Turnbull, Group Sequential
Methods, 2000, chapter 19). The looks' number and places may change on the way, the function and the budget may not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

__all__ = ["Spending", "nominal_levels", "spent"]

Spending = Literal["pocock", "obrien-fleming"]
_STEP: Final = 0.02  # of the grid, in standard deviations at the last look; halving it changes no level by 0.1 %
_LOWEST: Final = -8.0


def spent(share: float, alpha: float, spending: Spending = "pocock") -> float:
    """Return the one-sided error that may be spent once ``share`` of the budget was used.

    The Pocock-type function spends early, which ends most gates early; the O'Brien-Fleming-type one keeps nearly all
    for the last look (both: Lan and DeMets 1983).
    """
    if share >= 1:
        return alpha
    if spending == "pocock":
        return alpha * math.log1p((math.e - 1) * share)
    return 2 * float(ndtr(ndtri(alpha / 2) / math.sqrt(share)))


@lru_cache(maxsize=256)
def nominal_levels(shares: tuple[float, ...], alpha: float, spending: Spending = "pocock") -> tuple[float, ...]:
    """Return the one-sided level at which each look tests.

    Args:
        shares: The share of the budget that each look has used, rising, at most 1.
        alpha: The one-sided error of all looks together.
        spending: The spending function.
    """
    density = _Density()
    levels, before = [], 0.0
    for share in shares:
        after = spent(share, alpha, spending)
        bound = density.look(share, after - before)
        levels.append(float(ndtr(-bound)))
        before = after
    return tuple(levels)


class _Density:
    """The statistic's Brownian motion: its density where no earlier look has ended the gate."""

    def __init__(self) -> None:
        self._share = 0.0
        self._grid: NDArray[np.float64] = np.zeros(1)
        self._mass: NDArray[np.float64] = np.ones(1)

    def look(self, share: float, error: float) -> float:
        """Return the bound, in standard deviations, that is crossed first at this look with chance ``error``."""
        step = math.sqrt(share - self._share)
        bound = _root(lambda value: self._beyond(value, step) - error, share)
        self._advance(share, bound, step)
        return bound / math.sqrt(share)

    def _beyond(self, value: float, step: float) -> float:
        return float(self._mass @ ndtr((self._grid - value) / step))

    def _advance(self, share: float, bound: float, step: float) -> None:
        grid = np.arange(bound, _LOWEST, -_STEP)[::-1]
        density = np.exp(-0.5 * ((grid[:, None] - self._grid[None, :]) / step) ** 2) @ self._mass
        weights = np.full(len(grid), _STEP)
        weights[[0, -1]] /= 2  # the trapezoidal rule
        self._mass = density * weights / (step * math.sqrt(2 * math.pi))
        self._grid, self._share = grid, share


def _root(function: Callable[[float], float], share: float) -> float:
    return float(brentq(function, _LOWEST, 40 * math.sqrt(share), xtol=1e-10))


def look_shares(looks: Sequence[int], budget: int) -> tuple[float, ...]:
    """Return each look's share of the budget, both in pairs."""
    return tuple(min(1.0, look / budget) for look in looks)
