"""Latencies: a mergeable histogram at microsecond resolution.

An HDR histogram keeps every latency from 1 µs to an hour within 0.1 % (exactly, below 2 ms), and two of them add up
without loss: that is what lets processes, workers and intervals be merged before a percentile is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Self

import numpy as np
from hdrh.histogram import HdrHistogram

__all__ = ["Latencies"]

HIGHEST_US: Final = 3_600_000_000
_SIGNIFICANT_DIGITS: Final = 3
_CURVE: Final = (0.0, *np.linspace(1, 99, 99).tolist(), 99.5, 99.9, 99.95, 99.99, 99.999, 100.0)


class Latencies:
    """A distribution of latencies in microseconds."""

    def __init__(self, latencies_ns: Sequence[int] = ()) -> None:
        self._histogram = _new()
        self.record_ns(latencies_ns)

    def record_ns(self, latencies_ns: Sequence[int]) -> None:
        """Add latencies given in nanoseconds, rounded to the microsecond."""
        if not latencies_ns:
            return
        rounded_us = (np.asarray(latencies_ns, np.int64) + 500) // 1000
        values, counts = np.unique(np.clip(rounded_us, 1, HIGHEST_US), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._histogram.record_value(value, count)

    def add(self, other: Latencies) -> None:
        """Add all of ``other``; exact, as if every latency had been recorded here."""
        if other.count:
            self._histogram.add(other._histogram)

    @classmethod
    def merged(cls, parts: Iterable[Latencies]) -> Self:
        """Return the sum of ``parts``."""
        whole = cls()
        for part in parts:
            whole.add(part)
        return whole

    @property
    def count(self) -> int:
        """How many latencies were recorded."""
        return int(self._histogram.get_total_count())

    @property
    def max_us(self) -> float | None:
        """The longest, within 0.1 %; ``None`` without any."""
        return float(self._histogram.get_max_value()) if self.count else None

    @property
    def mean_us(self) -> float | None:
        """The arithmetic mean; ``None`` without any."""
        return float(self._histogram.get_mean_value()) if self.count else None

    def percentile_us(self, percentile: float) -> float | None:
        """Return the latency that ``percentile`` per cent did not exceed; ``None`` without any."""
        return float(self._histogram.get_value_at_percentile(percentile)) if self.count else None

    def curve(self) -> list[tuple[float, float]]:
        """Return (percentile, latency in µs), as far into the tail as the number of requests resolves."""
        if not self.count:
            return []
        resolved = [p for p in _CURVE if p == 100.0 or p <= 100.0 * (1 - 1 / self.count) or p == 0.0]
        values = self._histogram.get_percentile_to_value_dict(resolved)
        return [(percentile, float(values[percentile])) for percentile in resolved]

    def counts(self) -> Iterator[tuple[int, int]]:
        """Yield (latency in µs, how many) for every bucket that holds any."""
        # The library's own iterator is written in Python, and some ten times slower.
        counts = np.frombuffer(self._histogram.counts, np.uint64)
        for index in np.flatnonzero(counts).tolist():
            lowest = self._histogram.get_value_from_index(index)
            yield int(self._histogram.get_highest_equivalent_value(lowest)), int(counts[index])

    def encode(self) -> str:
        """Return the histogram as compressed text, for :meth:`decode` on the other side of a pipe."""
        return bytes(self._histogram.encode()).decode("ascii") if self.count else ""

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the histogram that :meth:`encode` wrote."""
        found = cls()
        if text:
            found._histogram.decode_and_add(text.encode("ascii"))
        return found


def _new() -> HdrHistogram:
    return HdrHistogram(1, HIGHEST_US, _SIGNIFICANT_DIGITS)
