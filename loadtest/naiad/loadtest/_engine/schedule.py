"""When requests should leave: absolute times, the same ones for any number of engines.

There is one schedule for a run. Every engine works it out, and arrival ``k`` belongs to engine ``k mod n``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.plan import Rate, Trace

__all__ = ["Arrival", "Mix", "arrivals", "read_trace"]

_BLOCK: Final = 512  # arrivals worked out at a time: some 20 µs, so that no request waits for the schedule
_TABLE: Final = 1 << 16
_ARRIVALS, _MIX, _TABLE_ORDER = range(3)  # independent streams of one seed

Times = NDArray[np.int64]
Arrival = tuple[int, int, int]
"""When it is due (ns since the start), the index of its traffic in the mix, and its number in the one schedule."""


def arrivals(
    load: Rate | Trace, weights: Sequence[float], *, seed: int, shard: int, num_shards: int
) -> Iterator[Arrival]:
    """Yield the arrivals of one engine; without end, but for a trace.

    Raises:
        InvalidPlan: the trace cannot be read, or its time stamps are not in order.
    """
    blocks = _trace(load) if isinstance(load, Trace) else _rate(load, seed)
    return _of_shard(blocks, _choices(weights, seed), shard, num_shards)


def _of_shard(
    blocks: Iterator[Times], choices: Iterator[NDArray[np.intp]], shard: int, num_shards: int
) -> Iterator[Arrival]:
    first = 0
    for due_ns, traffic in zip(blocks, choices, strict=False):
        mine = slice((shard - first) % num_shards, None, num_shards)
        numbers = range(first, first + len(due_ns))[mine]
        yield from zip(due_ns[mine].tolist(), traffic[: len(due_ns)][mine].tolist(), numbers, strict=True)
        first += len(due_ns)


def _rate(load: Rate, seed: int) -> Iterator[Times]:
    return _poisson(load.per_s, seed) if load.arrivals == "poisson" else _constant(load.per_s)


def _constant(per_s: float) -> Iterator[Times]:
    first = 0
    while True:  # each from its number: rounding never adds up
        yield np.rint(np.arange(first, first + _BLOCK) * (1e9 / per_s)).astype(np.int64)
        first += _BLOCK


def _poisson(per_s: float, seed: int) -> Iterator[Times]:
    generator = np.random.default_rng((seed, _ARRIVALS))
    last_ns = 0
    while True:  # whole nanoseconds add up exactly, in blocks of any size
        due_ns = last_ns + np.cumsum(np.rint(generator.standard_exponential(_BLOCK) * (1e9 / per_s)).astype(np.int64))
        last_ns = int(due_ns[-1])
        yield due_ns


def _trace(load: Trace) -> Iterator[Times]:
    due_ns = np.rint(read_trace(load) * 1e9).astype(np.int64)
    return (due_ns[first : first + _BLOCK] for first in range(0, len(due_ns), _BLOCK))


def read_trace(load: Trace) -> NDArray[np.float64]:
    """Return when the arrivals of a trace are due, in seconds since the first one, at the trace's speed.

    Raises:
        InvalidPlan: the file cannot be read, a line is no number, or a time stamp lies before the one above it.
    """
    try:
        lines = load.path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidPlan(
            f"expected a file with a time stamp in seconds on each line at {load.path}, could not read it: {exc}",
            path=str(load.path),
        ) from exc
    stamps_s: list[float] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            stamps_s.append(_stamp(line, stamps_s, f"{load.path}, line {number}"))
    if not stamps_s:
        raise InvalidPlan(f"expected time stamps in {load.path}, found none", path=str(load.path))
    return (np.asarray(stamps_s) - stamps_s[0]) / load.speed


def _stamp(line: str, before: Sequence[float], where: str) -> float:
    try:
        stamp_s = float(line)
    except ValueError:
        stamp_s = math.nan
    if not math.isfinite(stamp_s):
        raise InvalidPlan(f"{where}: expected a time stamp in seconds, found {line.strip()[:40]!r}")
    if before and stamp_s < before[-1]:
        raise InvalidPlan(
            f"{where}: expected time stamps in order, found {stamp_s} after {before[-1]}: sort the file (sort -g)"
        )
    return stamp_s


def _shares(weights: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(weights, np.float64) / math.fsum(weights)


def _choices(weights: Sequence[float], seed: int) -> Iterator[NDArray[np.intp]]:
    """Yield the traffic of arrivals, drawn by weight, in blocks."""
    if len(weights) == 1:
        same = np.zeros(_BLOCK, np.intp)
        while True:
            yield same
    generator = np.random.default_rng((seed, _MIX))
    edges = np.cumsum(_shares(weights))[:-1]
    while True:
        yield np.searchsorted(edges, generator.random(_BLOCK), side="right")


class Mix:
    """What users send next: by weight, and the same for a user however many engines there are.

    All walk through one shuffled table that holds each traffic as often as its weight says, from places of their own.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        bounds = np.rint(np.cumsum(_shares(weights)) * _TABLE).astype(np.int64)
        table = np.repeat(np.arange(len(weights)), np.diff(bounds, prepend=0))
        self._table: list[int] = np.random.default_rng((seed, _TABLE_ORDER)).permutation(table).tolist()

    def traffic(self, user: int, turn: int) -> int:
        """Return the index of the traffic of a user's ``turn``."""
        return self._table[(user * 40_503 + turn) % _TABLE]  # neighbours start far from each other
