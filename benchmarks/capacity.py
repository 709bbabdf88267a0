"""How often the interval of `naiad loadtest --find-max` holds the true capacity.

    make bench-capacity      or: python benchmarks/capacity.py [--searches 200]

Searches against simulated M/M/1 queues, whose capacity is known by a formula; a simulated run takes no time. The seeds
begin where no one that the search was developed with ends.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from naiad.loadtest import LoadTest, Slo, Traffic, find_max
from sweep_helpers import SimulatedServer, capacity_mm1

SERVICE_PER_S: Final = 1000.0
FIRST_SEED: Final = 90_000


@dataclass(frozen=True, slots=True)
class Case:
    """What is searched for, with full runs of a length, and runs that differ in speed by a fraction."""

    objective: str
    run_s: float
    drift: float = 0.0


CASES: Final = (
    Case("p99<20ms", 5),
    Case("p99<20ms", 10),
    Case("p99<10ms", 5),
    Case("p90<10ms", 5),
    Case("p50<5ms", 5),
    Case("p99<20ms", 5, drift=0.02),
)


def search(job: tuple[Case, int]) -> tuple[bool, float, int]:
    """Return whether the interval held the truth, half its width as a fraction, and the number of runs."""
    case, seed = job
    server = SimulatedServer(seed=seed, drift=case.drift, service_per_s=SERVICE_PER_S)
    slo = Slo.parse(case.objective)
    test = LoadTest(traffic=Traffic(model="m"), duration_s=case.run_s)
    found = find_max(test, slo, run=server, clock=server.clock)
    truth = capacity_mm1(SERVICE_PER_S, slo)
    if found.low is None or found.high is None:
        return False, float("inf"), len(found.points)
    return found.low <= truth <= found.high, (found.high - found.low) / 2 / truth, len(found.points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=200, help="for each objective")
    options = parser.parse_args()
    console = Console(highlight=False)
    table = Table("objective", "runs of", "runs differ by", "held the truth", "95 % interval", "half width", "runs")
    good = True
    for case in CASES:
        with ProcessPoolExecutor() as pool:
            jobs = [(case, FIRST_SEED + number) for number in range(options.searches)]
            found = list(pool.map(search, jobs, chunksize=4))
        held = sum(holds for holds, _, _ in found)
        test = binomtest(held, len(found), 0.95, alternative="less")
        interval = binomtest(held, len(found)).proportion_ci()
        good &= test.pvalue > 0.01
        table.add_row(
            case.objective,
            f"{case.run_s:g} s",
            f"{case.drift:.0%}",
            f"{held / len(found):.1%}",
            f"{interval.low:.0%}–{interval.high:.0%}",
            f"±{statistics.median(width for _, width, _ in found):.1%}",
            f"{statistics.median(number for _, _, number in found):.0f}",
        )
    console.print(table)
    console.print(f"promised: 95 % of {options.searches} searches each: {'kept' if good else 'not kept'}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
