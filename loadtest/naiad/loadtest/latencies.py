"""Latencies: a mergeable histogram at microsecond resolution.

An HDR histogram keeps every latency from 1 µs to an hour within 0.1 % (exactly, below 2 ms), and two of them add up
without loss: that is what lets processes, workers and intervals be merged before a percentile is read.

The buckets are those of HdrHistogram with three significant digits (http://hdrhistogram.org): 2048 of 1 µs, then 1024
for each doubling. All arithmetic is on whole arrays; only buckets that hold something are kept, so that an interval's
histogram is a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from naiad.loadtest import _hdr

__all__ = ["Latencies", "stack"]

HIGHEST_US: Final = _hdr.HIGHEST
_CURVE: Final = np.array([0.0, *range(1, 100), 99.5, 99.9, 99.95, 99.99, 99.999, 100.0])

Indices = NDArray[np.int64]
Counts = NDArray[np.int64]
_NOTHING: Final[NDArray[np.int64]] = np.empty(0, np.int64)


class Latencies:
    """A distribution of latencies in microseconds."""

    __slots__ = ("_counts", "_indices")

    def __init__(self, latencies_ns: Sequence[int] | NDArray[np.int64] = ()) -> None:
        self._indices: Indices = _NOTHING
        self._counts: Counts = _NOTHING
        self.record_ns(latencies_ns)

    @classmethod
    def _of(cls, indices: Indices, counts: Counts) -> Self:
        found = cls()
        found._indices, found._counts = indices, counts
        return found

    def record_ns(self, latencies_ns: Sequence[int] | NDArray[np.int64]) -> None:
        """Add latencies given in nanoseconds, rounded to the microsecond."""
        if len(latencies_ns):
            self._add(*_count(_hdr.indices((np.asarray(latencies_ns, np.int64) + 500) // 1000)))

    def add(self, other: Latencies) -> None:
        """Add all of ``other``; exact, as if every latency had been recorded here."""
        self._add(other._indices, other._counts)

    def _add(self, indices: Indices, counts: Counts) -> None:
        if not self._indices.size:  # arrays are never changed in place, so they can be shared
            self._indices, self._counts = indices, counts
        elif indices.size:
            self._indices, self._counts = _sum([(self._indices, self._counts), (indices, counts)])

    @classmethod
    def merged(cls, parts: Iterable[Latencies]) -> Self:
        """Return the sum of ``parts``."""
        found = [(part._indices, part._counts) for part in parts if part._indices.size]
        if len(found) == 1:
            return cls._of(*found[0])
        return cls._of(*_sum(found)) if found else cls()

    @property
    def count(self) -> int:
        """How many latencies were recorded."""
        return int(self._counts.sum())

    @property
    def total_us(self) -> float:
        """The sum of all, within 0.1 %."""
        return float(_hdr.MIDDLE[self._indices] @ self._counts)

    @property
    def max_us(self) -> float | None:
        """The longest, within 0.1 %; ``None`` without any."""
        return float(_hdr.TOP[self._indices[-1]]) if self._indices.size else None

    @property
    def mean_us(self) -> float | None:
        """The arithmetic mean; ``None`` without any."""
        return self.total_us / self.count if self._indices.size else None

    def percentile_us(self, percentile: float) -> float | None:
        """Return the latency that ``percentile`` per cent did not exceed (nearest rank); ``None`` without any."""
        return self.quantiles_us([percentile / 100])[0] if self._indices.size else None

    def quantiles_us(self, fractions: Sequence[float]) -> list[float]:
        """Return the latency that each of ``fractions`` (0 to 1) did not exceed; there is at least one latency."""
        cumulative = np.cumsum(self._counts)
        # A product like 0.999 × 1000 may end a hair above the whole number that it is.
        ranks = np.ceil(np.asarray(fractions) * cumulative[-1] - 1e-6).clip(1, cumulative[-1])
        return [float(top) for top in _hdr.TOP[self._indices[np.searchsorted(cumulative, ranks)]]]

    def count_within(self, limit_us: float, *, included: bool = True) -> int:
        """Return how many latencies are at most ``limit_us`` (or below it), as percentiles would show them."""
        tops = _hdr.TOP[self._indices]
        return int(self._counts[(tops <= limit_us) if included else (tops < limit_us)].sum())

    def curve(self) -> list[tuple[float, float]]:
        """Return (percentile, latency in µs), as far into the tail as the number of requests resolves."""
        if not self._indices.size:
            return []
        resolved = _CURVE[(100.0 * (1 - 1 / self.count) >= _CURVE) | (_CURVE == 0) | (_CURVE == 100)]
        return list(zip(resolved.tolist(), self.quantiles_us((resolved / 100).tolist()), strict=True))

    def counts(self) -> Iterator[tuple[int, int]]:
        """Yield (latency in µs, how many) for every bucket that holds any."""
        yield from zip(_hdr.TOP[self._indices].tolist(), self._counts.tolist(), strict=True)

    def encode(self) -> str:
        """Return the histogram as HdrHistogram's own text (V2, compressed, base64), which other tools read."""
        return _hdr.encode(self._indices, self._counts, compressed=True)

    def pack(self) -> str:
        """Return the same without compression: some times the size, a fraction of the time. For a pipe."""
        return _hdr.encode(self._indices, self._counts, compressed=False)

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the histogram that :meth:`encode` or :meth:`pack` wrote, or any other with the same buckets.

        Raises:
            ValueError: ``text`` is no such histogram.
        """
        return cls._of(*_hdr.decode(text)) if text else cls()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Latencies):
            return NotImplemented
        return np.array_equal(self._indices, other._indices) and np.array_equal(self._counts, other._counts)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Latencies(count={self.count}, p50_us={self.percentile_us(50)}, max_us={self.max_us})"


def stack(parts: Sequence[Latencies]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the latencies in µs (B,) of all buckets that ``parts`` use, and their counts (len(parts), B)."""
    used = _sum([(part._indices, part._counts) for part in parts])[0] if parts else _NOTHING
    counts = np.zeros((len(parts), used.size), np.int64)
    for row, part in enumerate(parts):
        counts[row, np.searchsorted(used, part._indices)] = part._counts
    return _hdr.TOP[used], counts


def _count(indices: Indices) -> tuple[Indices, Counts]:
    lowest = int(indices.min())
    counts = np.bincount(indices - lowest)
    used = np.flatnonzero(counts)
    return used + lowest, counts[used]


def _sum(parts: Sequence[tuple[Indices, Counts]]) -> tuple[Indices, Counts]:
    lowest = min((int(indices[0]) for indices, _ in parts if indices.size), default=0)
    highest = max((int(indices[-1]) for indices, _ in parts if indices.size), default=0)
    whole = np.zeros(highest - lowest + 1, np.int64)
    for indices, counts in parts:  # within a part every index is there once, so that plain indexing adds rightly
        whole[indices - lowest] += counts
    used = np.flatnonzero(whole)
    return used + lowest, whole[used]
