"""Compares two ways of doing the same on this machine: interleaved rounds, ratios, their median and spread."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console
from rich.table import Table

Work = Callable[[int], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One round: wall-clock and this process's CPU seconds for one unit of work."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How many times faster ours is than the peer, round by round; ``goal`` is the ratio to reach."""

    name: str
    ours: tuple[Sample, ...]
    peer: tuple[Sample, ...]
    goal: float

    def ratios(self, kind: str = "wall_s") -> list[float]:
        """Return the peer's time over ours, one for each round."""
        return [getattr(peer, kind) / getattr(ours, kind) for ours, peer in zip(self.ours, self.peer, strict=True)]


class Side:
    """One of the two, in a process of its own: neither warms, fills or fragments the other's memory."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        self._process.start()

    def timed(self, repetitions: int) -> Sample:
        """Do ``repetitions`` units of work and return the time of one."""
        self._pipe.send(repetitions)
        sample = self._pipe.recv()
        assert isinstance(sample, Sample)
        return sample

    def close(self) -> None:
        """End the process."""
        self._pipe.send(0)
        self._process.join()


def _serve(work: Work, pipe: Connection) -> None:
    while repetitions := pipe.recv():
        cpu, wall = time.process_time(), time.perf_counter()
        work(repetitions)
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
        pipe.send(Sample(wall_s=wall_s / repetitions, cpu_s=cpu_s / repetitions))


def compare(name: str, *, ours: Work, peer: Work, repetitions: int, rounds: int, goal: float) -> Comparison:
    """Alternate between both, ``rounds`` times, each time in the other order; ``work(n)`` does n units."""
    sides = Side(ours), Side(peer)
    for side in sides:
        side.timed(max(1, repetitions // 5))
    samples: tuple[list[Sample], list[Sample]] = [], []
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            samples[which].append(sides[which].timed(repetitions))
    for side in sides:
        side.close()
    return Comparison(name=name, ours=tuple(samples[0]), peer=tuple(samples[1]), goal=goal)


def report(comparisons: Sequence[Comparison], json_path: Path | None = None) -> None:
    """Print the table, and write all samples to ``json_path`` for those who want to look closer."""
    table = Table(title=machine(), title_justify="left", caption="median of the rounds' ratios (lowest–highest)")
    for column in ("case", "ours", "peer", "ratio", "ratio of client CPU", "goal"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for entry in comparisons:
        table.add_row(
            entry.name,
            _time(entry.ours),
            _time(entry.peer),
            _spread(entry.ratios()),
            _spread(entry.ratios("cpu_s")),
            f"≥ {entry.goal:g}×",
        )
    Console().print(table)
    if json_path is not None:
        json_path.write_text(json.dumps({"machine": machine(), "cases": [asdict(entry) for entry in comparisons]}))


def _time(samples: Sequence[Sample]) -> str:
    return f"{statistics.median(sample.wall_s for sample in samples) * 1e6:,.0f} µs"


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"


def machine() -> str:
    """Return the machine in one line, without its name."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"
