"""Two graphs timed in turns, so that whatever else the machine does hits both alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from naiad.export._runtime.bound import caller

_BUDGET_S = 0.9
"""For all batch sizes together."""
_BLOCK_S = 0.002
"""Short runs are timed in blocks of about this long: a timer and a switch of tasks cost microseconds."""
_MIN_ROUNDS = 7
_MAX_ROUNDS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """One batch size: the seconds of one run of each graph, round by round."""

    baseline_s: tuple[float, ...]
    candidate_s: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times faster the candidate was, in each round."""
        return tuple(a / b for a, b in zip(self.baseline_s, self.candidate_s, strict=True))

    @property
    def speed_up(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)


def in_turns(
    baseline: Any, candidate: Any, feeds: Mapping[int, Mapping[str, Any]], *, budget_s: float = _BUDGET_S
) -> dict[int, Turns]:
    """Time two sessions at each batch size; at least seven rounds each, even where that exceeds the budget."""
    return {batch: _rounds(baseline, candidate, feed, budget_s / len(feeds)) for batch, feed in feeds.items()}


def geometric_mean(values: Any) -> float:
    """Return the geometric mean, in which twice as fast and half as fast cancel out."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def _rounds(baseline: Any, candidate: Any, feeds: Mapping[str, Any], budget_s: float) -> Turns:
    pair = (caller(baseline, feeds), caller(candidate, feeds))
    first_s = max(_run(call, 1) for call in pair for _ in range(2))  # the first one allocates
    count = max(1, int(_BLOCK_S / first_s))
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while len(times[0]) < _MIN_ROUNDS or (len(times[0]) < _MAX_ROUNDS and time.perf_counter() - start < budget_s):
        order = (0, 1) if len(times[0]) % 2 else (1, 0)
        for index in order:
            times[index].append(_run(pair[index], count))
    return Turns(baseline_s=tuple(times[0]), candidate_s=tuple(times[1]))


def _run(call: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count
