"""Requests of several models in turns, so that a busy moment of the machine meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["median_ms"]

_WARM: Final = 5


def median_ms(calls: Mapping[str, Callable[[], Any]], *, rounds: int = 100) -> dict[str, float]:
    """Return the median time of each call; the first rounds do not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_WARM + rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(found[_WARM:]) * 1000 for name, found in times.items()}
