"""Change points in a series: where a metric changed for good, and by how much.

E-divisive (Matteson and James, JASA 109, 2014) finds the split of a stretch whose two sides differ most in energy
distance; a t-test instead of permutations decides whether it is one, as in Hunter (Fleming et al., ICPE 2023, now
Apache Otava), which makes it deterministic and fast. The series is cut into windows first, so that an old large change
does not hide a new small one; neighbouring windows overlap by half. Found points are then tested once more between
their neighbours, and the weakest is dropped until all hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_ind_from_stats

__all__ = ["MAX_P_VALUE", "WINDOW", "ChangePoint", "change_points"]

WINDOW: Final = 50
MAX_P_VALUE: Final = 0.001
_SHORTEST: Final = 2  # values on each side of a split: one has no variance

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangePoint:
    """From ``index`` on, the series is another one."""

    index: int
    """Of the first value after the change."""
    before: float
    """Mean between the last change and this one, in the series' unit."""
    after: float
    """Mean between this change and the next one."""
    p_value: float

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after / self.before if self.before else math.inf


def change_points(
    series: Sequence[float], *, window: int = WINDOW, max_p_value: float = MAX_P_VALUE
) -> list[ChangePoint]:
    """Return where the series changed, in its order.

    Args:
        series: One value for each run, the oldest first; positive.
        window: How many values are looked at together.
        max_p_value: A split counts as a change below it.
    """
    values = np.log(np.asarray(series, float))  # changes are ratios, and noise grows with the value
    found: set[int] = set()
    for start in range(0, max(1, len(values) - window // 2), window // 2):
        _split(values, start, min(start + window, len(values)), max_p_value, found)
    indices = _confirmed(values, sorted(found), max_p_value)
    edges = [0, *indices, len(values)]
    raw = np.asarray(series, float)
    return [
        ChangePoint(
            index=index,
            before=float(raw[edges[at] : index].mean()),
            after=float(raw[index : edges[at + 2]].mean()),
            p_value=_p_value(values[edges[at] : index], values[index : edges[at + 2]]),
        )
        for at, index in enumerate(indices)
    ]


def _split(values: Values, start: int, end: int, max_p_value: float, found: set[int]) -> None:
    """Add the changes within ``[start, end)``: the strongest, then those on either side of it."""
    if end - start < 2 * _SHORTEST:
        return
    index = start + _best_split(values[start:end])
    if _p_value(values[start:index], values[index:end]) <= max_p_value:
        found.add(index)
        _split(values, start, index, max_p_value, found)
        _split(values, index, end, max_p_value, found)


def _best_split(values: Values) -> int:
    """Return the split with the largest energy distance between its sides (E-divisive's q, with exponent 1)."""
    distances = np.abs(values[:, None] - values[None, :])
    within = np.cumsum(np.cumsum(distances, axis=0), axis=1)  # [i, j]: the sum over the first i + 1 and j + 1 values
    size, total = len(values), within[-1, -1]
    best, best_index = -math.inf, _SHORTEST
    for left in range(_SHORTEST, size - _SHORTEST + 1):
        right = size - left
        inside_left = within[left - 1, left - 1]
        across = within[left - 1, -1] - inside_left
        inside_right = total - inside_left - 2 * across
        distance = (
            2 * across / (left * right)
            - inside_left / (left * max(1, left - 1))
            - inside_right / (right * max(1, right - 1))
        )
        strength = distance * left * right / size
        if strength > best:
            best, best_index = strength, left
    return best_index


def _p_value(left: Values, right: Values) -> float:
    if len(left) < _SHORTEST or len(right) < _SHORTEST:
        return 1.0
    deviations = left.std(ddof=1), right.std(ddof=1)
    if not any(deviations):
        return 0.0 if left[0] != right[0] else 1.0
    test = ttest_ind_from_stats(left.mean(), deviations[0], len(left), right.mean(), deviations[1], len(right))
    return float(test.pvalue)


def _confirmed(values: Values, indices: list[int], max_p_value: float) -> list[int]:
    """Drop the weakest point until every one holds between its neighbours."""
    while indices:
        edges = [0, *indices, len(values)]
        p_values = [
            _p_value(values[edges[at] : index], values[index : edges[at + 2]]) for at, index in enumerate(indices)
        ]
        weakest = max(range(len(indices)), key=lambda at: p_values[at])
        if p_values[weakest] <= max_p_value:
            break
        indices = indices[:weakest] + indices[weakest + 1 :]
    return indices
