"""Compares two ways of doing the same on this machine: interleaved rounds, ratios, their median and spread."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Work = Callable[[int], object]
Prepare = Callable[[], AbstractContextManager[Work]]
_ROUND_S = 0.06
_FEWEST = 2  # units in a round, however long one takes
_QUIET = 0.1  # the share of a machine that other work may take
_LOOK_S = 0.3
_FILE_WIDTH = 150  # of a table that no terminal shows


@dataclass(frozen=True, slots=True)
class Case:
    """What is compared: ``ours`` and ``peer`` prepare work of which ``work(n)`` does n units."""

    name: str
    ours: Prepare
    peer: Prepare
    goal: float | None = None
    """The ratio to reach; without one, the case is only shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One round: wall-clock and this process's CPU seconds for one unit of work."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many times faster ours is than the peer, round by round."""

    name: str
    ours: tuple[Sample, ...]
    peer: tuple[Sample, ...]
    goal: float | None
    others: float
    """The share of the machine that other work took just before."""

    def ratios(self, kind: str = "wall_s") -> list[float]:
        """Return the peer's time over ours, one for each round."""
        return [getattr(peer, kind) / getattr(ours, kind) for ours, peer in zip(self.ours, self.peer, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(self.ratios())

    @property
    def reached(self) -> bool:
        """Whether the median reaches the goal; a case without one always does."""
        return self.goal is None or self.ratio >= self.goal


class Side:
    """One of the two, in a process of its own: neither warms, fills or fragments the other's memory."""

    def __init__(self, prepare: Prepare, round_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(prepare, round_s, theirs), daemon=True)
        self._process.start()
        theirs.close()  # or a side that died would be waited for for ever

    def timed(self) -> Sample:
        """Work for one round and return the time of one unit; the first round also finds out how many units that is."""
        self._pipe.send(True)
        sample = self._pipe.recv()
        assert isinstance(sample, Sample)
        return sample

    def close(self) -> None:
        """End the process."""
        self._pipe.send(False)
        self._process.join()


def _serve(prepare: Prepare, round_s: float, pipe: Connection) -> None:
    units = 0
    with prepare() as work:
        while pipe.recv():
            units = units or _units(work, round_s)
            work(max(1, units // 2))  # while the other side worked, this one's caches and cores went cold
            cpu, wall = time.process_time(), time.perf_counter()
            work(units)
            wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
            pipe.send(Sample(wall_s=wall_s / units, cpu_s=cpu_s / units))


def _units(work: Work, round_s: float) -> int:
    """Warm up for a while, and return how many units fill a round then."""
    units, begun = 1, time.perf_counter()
    while True:
        start = time.perf_counter()
        work(units)
        now = time.perf_counter()
        if now - begun > 5 * round_s:
            return max(_FEWEST, round(units * round_s / (now - start)))
        if now - start < round_s / 2:
            units *= 2


def compare(case: Case, *, rounds: int, seconds: float) -> Comparison:
    """Alternate between both, each time in the other order: at least ``rounds`` times, and for ``seconds``, about."""
    sides = Side(case.ours, _ROUND_S), Side(case.peer, _ROUND_S)
    for side in sides:
        side.timed()
    others = busy()
    samples: tuple[list[Sample], list[Sample]] = [], []
    until = time.perf_counter() + seconds
    while len(samples[0]) < rounds or time.perf_counter() < until:
        for which in (0, 1) if len(samples[0]) % 2 else (1, 0):
            samples[which].append(sides[which].timed())
    for side in sides:
        side.close()
    return Comparison(case.name, tuple(samples[0]), tuple(samples[1]), case.goal, others)


def report(comparisons: Sequence[Comparison], json_path: Path | None = None) -> None:
    """Print the table, and write all samples to ``json_path`` for those who want to look closer."""
    table = Table(title=machine(), title_justify="left", caption="median of the rounds' ratios (lowest–highest)")
    for column in ("case", "ours", "peer", "ratio", "ratio of client CPU", "goal", ""):
        table.add_column(column, justify="left" if column == "case" else "right", no_wrap=True)
    for entry in comparisons:
        table.add_row(
            entry.name,
            _time(entry.ours),
            _time(entry.peer),
            _spread(entry.ratios()),
            _spread(entry.ratios("cpu_s")),
            "" if entry.goal is None else f"≥ {entry.goal:g}×",
            "" if entry.goal is None else "reached" if entry.reached else "missed",
        )
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)
    others = statistics.median(entry.others for entry in comparisons)
    if others > _QUIET:
        console.print(f"Other work took {others:.0%} of the machine: that moves ratios towards 1 and spreads them.")
    goals = [entry for entry in comparisons if entry.goal is not None]
    console.print(f"{sum(entry.reached for entry in goals)} of {len(goals)} goals reached")
    if json_path is not None:
        json_path.write_text(json.dumps({"machine": machine(), "cases": [_plain(entry) for entry in comparisons]}))


def _plain(entry: Comparison) -> dict[str, Any]:
    return {**asdict(entry), "ratio": entry.ratio, "reached": entry.reached}


def _time(samples: Sequence[Sample]) -> str:
    return f"{statistics.median(sample.wall_s for sample in samples) * 1e6:,.0f} µs"


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"


def busy() -> float:
    """Look for a moment how much of the machine is in use, while this process rests."""

    def ticks() -> tuple[int, int]:
        user, nice, system, idle, waiting, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
        return user + nice + system + sum(rest), idle + waiting

    used, free = ticks()
    time.sleep(_LOOK_S)
    used, free = (after - before for after, before in zip(ticks(), (used, free), strict=True))
    return used / max(used + free, 1)


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
