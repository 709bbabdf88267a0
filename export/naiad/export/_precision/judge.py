"""When a candidate is faster: the rule, on numbers that were measured elsewhere."""

import math
from collections.abc import Mapping

from naiad.export._runtime.turns import Turns, geometric_mean

MIN_GAIN = 1.05
"""Over the geometric mean of the timed batch sizes; less may be another day's noise."""
MAX_LOSS = 0.95
"""At no batch size may a candidate be slower than this share of the baseline's speed."""

_Z = 1.96
"""Of the normal distribution at 95 %."""


def speed_up(turns: Mapping[int, Turns]) -> float:
    """Return how many times faster the candidate is: the geometric mean over batch sizes of the median of rounds."""
    return geometric_mean([item.speed_up for item in turns.values()])


def why_not_faster(turns: Mapping[int, Turns]) -> str | None:
    """Return what keeps a candidate from being a gain, with the numbers; None if it is one."""
    overall = speed_up(turns)
    if overall < MIN_GAIN:
        found = f"{overall:.2f} times as fast as fp32" if overall < 1 else f"{overall:.2f} times as fast, no gain"
        return f"{found}; at least {MIN_GAIN:g} is asked for ({_by_batch(turns)})"
    slowest = min(turns, key=lambda batch: turns[batch].speed_up)
    if turns[slowest].speed_up < MAX_LOSS:
        return f"slower at batch {slowest} ({_by_batch(turns)})"
    if _surely(turns) <= 1:
        return f"{overall:.2f} times as fast, which is within the noise of this machine ({_by_batch(turns)})"
    return None


def _surely(turns: Mapping[int, Turns]) -> float:
    """Return the lower end of the 95 % confidence interval of the median over all rounds, by its order statistics."""
    ratios = sorted(ratio for item in turns.values() for ratio in item.ratios)
    rank = math.floor(len(ratios) / 2 - _Z / 2 * math.sqrt(len(ratios)))
    return ratios[max(rank, 0)]


def _by_batch(turns: Mapping[int, Turns]) -> str:
    times = (f"batch {batch}: " * bool(batch) + f"{item.speed_up:.2f}×" for batch, item in turns.items())
    return ", ".join(times)
