"""What the measurements say: ratios, limits, and whether the goals are reached. Pure arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpu.plan import GRPC, IN_PROCESS, MEMORY

MEMORY_GOAL, GRPC_GOAL, OVERHEAD_GOAL_MS, UTILISATION_GOAL = 0.90, 0.75, 0.5, 0.90
_BUSY_CLIENT = 0.9
_COPIES = 0.25
"""Of the server's time for a request, in moving tensors: from here on copies are what to shorten."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """The median of the rounds with their range."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of one value for each round."""
        return cls(median=statistics.median(values), lowest=min(values), highest=max(values))


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """One goal for one variant; without a value it is not measured."""

    text: str
    value: float | None
    reached: bool | None


def ratio(cell: Mapping[str, Any], way: str) -> Spread:
    """Return the served throughput as a part of the in-process one, round by round."""
    ways = cell["ways"]
    return Spread.of(
        [ours / peer for ours, peer in zip(ways[way]["rows_per_s"], ways[IN_PROCESS]["rows_per_s"], strict=True)]
    )


def overhead_ms(cell: Mapping[str, Any], way: str) -> Spread:
    """Return by how much the served p50 is longer than the in-process one, round by round."""
    ways = cell["ways"]
    return Spread.of([ours - peer for ours, peer in zip(ways[way]["p50_ms"], ways[IN_PROCESS]["p50_ms"], strict=True)])


def limit(saturation: Mapping[str, Any]) -> str:
    """Name what keeps more rows from coming: compute, client, copies, or the server's own work.

    Compute, where the GPU is busy. Else the client, where one of its threads is (Python runs one at a time). Else
    copies, where the server spends a quarter of its time for requests, without their waiting, in moving tensors.
    """
    gpu = saturation.get("gpu")
    if gpu is not None and gpu["utilisation"] >= UTILISATION_GOAL:
        return "compute"
    if saturation["client_cpu"] >= _BUSY_CLIENT:
        return "client"
    time = saturation["server_time"]
    moving = time["compute_input"] + time["compute_output"]
    working = moving + time["compute_infer"]
    if working and moving / working >= _COPIES:
        return "copies"
    if gpu is None:
        return "compute"  # a rehearsal: the processor does all of it
    return "server"


def goals(
    full: Mapping[str, Any] | None, single: Mapping[str, Any] | None, saturation: Mapping[str, Any] | None
) -> list[Goal]:
    """Judge a variant by its cells at the full batch, at batch 1, and at saturation; None where not measured."""
    memory = None if full is None else ratio(full, MEMORY).median
    grpc = None if full is None else ratio(full, GRPC).median
    over = None if single is None else overhead_ms(single, MEMORY).median
    gpu = None if saturation is None else saturation.get("gpu")
    busy = None if gpu is None else gpu["utilisation"]
    batch = 64 if full is None else full["batch"]
    return [
        _least(f"throughput at batch {batch} by shared memory ≥ {MEMORY_GOAL:.0%} of in-process", memory, MEMORY_GOAL),
        _least(f"throughput at batch {batch} by gRPC ≥ {GRPC_GOAL:.0%} of in-process", grpc, GRPC_GOAL),
        Goal(
            text=f"p50 overhead at batch 1 by shared memory ≤ {OVERHEAD_GOAL_MS} ms",
            value=over,
            reached=None if over is None else over <= OVERHEAD_GOAL_MS,
        ),
        _least(f"GPU utilisation at saturation ≥ {UTILISATION_GOAL:.0%}", busy, UTILISATION_GOAL),
    ]


def _least(text: str, value: float | None, least: float) -> Goal:
    return Goal(text=text, value=value, reached=None if value is None else value >= least)
