"""How often the gate errs, and how often it finds what is there.

    make bench-gate                               all of it (about a quarter of an hour, on a quiet machine)
    python benchmarks/gate.py --simulate 1000     gates on resampled runs of one server: unchanged, +10 %, +20 %
    python benchmarks/gate.py --a-a 20            real gates of a server against itself
    python benchmarks/gate.py --slowdown 20 --trials 20     real gates of a server against one that takes 20 % longer
    python benchmarks/gate.py --power             which statistic finds most, by the noise's tails
    python benchmarks/gate.py --record 300        measure the runs that --simulate resamples anew

The server is the embedded Triton with a model in two versions, which differ in how many layers they compute. How many
make 20 % is found out before: the layers are counted up until the p50 of short runs in turn is 20 % above the first
version's. The runs to resample come from one unchanged server, in the order of time; since neighbouring runs are alike
(correlations of 0.3 to 0.8), whole stretches of them are drawn, and not single runs.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import gate_model
import numpy as np
from measure import busy, machine
from rich.console import Console
from scipy.stats import binomtest

from naiad.loadtest import Connection, GateOptions, LoadTest, Subject, Traffic, Users, compare, measure_false_alarms
from naiad.loadtest._gate.compare import judge_session
from naiad.loadtest._gate.sessions import LoadSession
from naiad.loadtest._gate.spending import nominal_levels
from naiad.loadtest._gate.statistics import Estimate
from naiad.loadtest._gate.subjects import RunValues, Side
from naiad.server import EmbeddedTriton

RUNS: Final = Path(__file__).with_name("gate_runs.json")
METRICS: Final = ("p50", "p90", "p99", "throughput")
RATES: Final = frozenset({"throughput"})
STRETCH: Final = 20  # recorded runs that are drawn together
USERS: Final = 2
BASE_LAYERS: Final = 40
WINDOW_S, SETTLE_S = 0.5, 0.25
GOAL_CALLED: Final = 0.9
ALPHA: Final = 0.05
console = Console(highlight=False)


class RecordedSession:
    """Runs of an unchanged server, in resampled stretches; the candidate's are made ``slower`` times as slow."""

    def __init__(self, runs: Sequence[dict[str, float]], *, slower: float, seed: int) -> None:
        self._runs, self._slower = runs, slower
        self._random = random.Random(seed)
        self._at = self._left = 0

    def measure(self, side: Side, *, window_s: float, settle_s: float) -> RunValues:
        if not self._left:
            self._at, self._left = self._random.randrange(len(self._runs)), STRETCH
        run = self._runs[self._at % len(self._runs)]
        self._at, self._left = self._at + 1, self._left - 1
        factor = self._slower if side == "candidate" else 1.0
        values = {name: value / factor if name in RATES else value * factor for name, value in run.items()}
        return RunValues(values=values, completed=1)

    def close(self) -> None:
        pass


def simulate_one(job: tuple[list[dict[str, float]], float, int]) -> tuple[str, int]:
    runs, slower, seed = job
    options = GateOptions(watched=(), noise=None, seed=seed, window_s=WINDOW_S, settle_s=SETTLE_S)
    result = judge_session(RecordedSession(runs, slower=slower, seed=seed), options)
    return result.verdict, result.num_pairs


def simulate(number: int) -> bool:
    """Gates on resampled runs: unchanged, worse by the margin, and worse by 20 %."""
    recorded = json.loads(RUNS.read_text())
    console.print(f"recorded while other work took {recorded.get('others', 1):.0%} of the machine")
    good = True
    for name, runs in recorded["series"].items():
        console.print(f"[bold]{name}[/]: {len(runs)} recorded runs, {_describe(runs)}")
        for change in (0.0, 0.1, 0.2):
            jobs = [(runs, 1 + change, seed) for seed in range(number)]
            with ProcessPoolExecutor() as pool:
                found = list(pool.map(simulate_one, jobs, chunksize=8))
            verdicts = Counter(verdict for verdict, _ in found)
            pairs = statistics.fmean(num_pairs for _, num_pairs in found)
            wrong = "regression" if not change else "no regression"
            limit_reached = _at_most(verdicts[wrong], number, ALPHA)
            good &= limit_reached
            console.print(
                f"  {change:+.0%}: {_shares(verdicts, number)}; {pairs:.1f} pairs on average; "
                f'"{wrong}" in {verdicts[wrong] / number:.1%}, promised at most {ALPHA:.0%} '
                f"{'[green]✓[/]' if limit_reached else '[red]✗[/]'}"
            )
    return good


def _at_most(count: int, number: int, share: float) -> bool:
    """Whether the share of wrong verdicts can be what was promised (one-sided, 99 %)."""
    return not count or binomtest(count, number, share, alternative="greater").pvalue > 0.01


def _shares(verdicts: Counter[str], number: int) -> str:
    return ", ".join(f"{verdict} {count / number:.1%}" for verdict, count in verdicts.most_common())


def _describe(runs: Sequence[dict[str, float]]) -> str:
    parts = []
    for name in METRICS:
        logs = np.log([run[name] for run in runs])
        correlation = float(np.corrcoef(logs[:-1], logs[1:])[0, 1])
        parts.append(f"{name} CV {logs.std():.0%}, neighbours correlated {correlation:.2f}")
    return "; ".join(parts)


@contextmanager
def serve(versions: dict[int, int]) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="naiad-bench-") as folder:
        gate_model.write(Path(folder), versions)
        with EmbeddedTriton(Path(folder)) as triton:
            yield triton.grpc_url


def subject(url: str, version: int) -> Subject:
    traffic = Traffic(model=gate_model.MODEL, version=str(version))
    test = LoadTest(traffic=traffic, load=Users(users=USERS), connection=Connection(url=url))
    return Subject(name=f"version {version}", test=test)


def calibrate(percent: float) -> int:
    """Return how many layers make the p50 ``percent`` longer than ``BASE_LAYERS`` do."""
    more = math.ceil(BASE_LAYERS * (1 + percent / 100))
    counts = [BASE_LAYERS, more, more + max(2, BASE_LAYERS // 10)]
    with serve(dict(enumerate(counts, start=1))) as url:
        ratios = [_ratios(url, version) for version in (2, 3)]
    extra = [count - BASE_LAYERS for count in counts[1:]]
    slope = sum((ratio - 1) * more for ratio, more in zip(ratios, extra, strict=True)) / sum(more**2 for more in extra)
    found = BASE_LAYERS + round(percent / 100 / slope) if slope > 0 else counts[1]
    console.print(
        f"{counts[1]} layers take {ratios[0] - 1:+.1%}, {counts[2]} {ratios[1] - 1:+.1%} of {counts[0]}: taking {found}"
    )
    return max(BASE_LAYERS + 1, found)


def _ratios(url: str, version: int, number: int = 10) -> float:
    session = LoadSession(subject(url, 1), subject(url, version))
    try:
        ratios = []
        for at in range(number + 1):
            sides: list[Side] = ["baseline", "candidate"]
            runs = {
                side: session.measure(side, window_s=WINDOW_S, settle_s=SETTLE_S) for side in sides[:: 1 - 2 * (at % 2)]
            }
            ratios.append(runs["candidate"].values["p50"] / runs["baseline"].values["p50"])
        return statistics.median(ratios[1:])
    finally:
        session.close()


def real_slowdown(percent: float, trials: int) -> bool:
    """Real gates against a version that takes longer."""
    num_layers = calibrate(percent)
    verdicts: list[str] = []
    with serve({1: BASE_LAYERS, 2: num_layers}) as url:
        for trial in range(trials):
            result = compare(subject(url, 1), subject(url, 2), GateOptions(seed=trial))
            verdicts.append(result.verdict)
            _show_trial(trial, result)
    called = verdicts.count("regression") / len(verdicts)
    good = called >= GOAL_CALLED and "no regression" not in verdicts
    console.print(
        f"+{percent:g} % called in {called:.0%} of {trials} trials (goal {GOAL_CALLED:.0%}): {Counter(verdicts)}"
    )
    return good


def real_a_a(number: int) -> bool:
    """Real gates of one version against itself."""
    with serve({1: BASE_LAYERS}) as url:
        count = iter(range(number))
        found = measure_false_alarms(
            subject(url, 1),
            GateOptions(seed=1000),
            num=number,
            on_result=lambda result: _show_trial(next(count), result),
        )
    console.print(found.text)
    return found.ok


def _show_trial(trial: int, result: Any) -> None:
    p50 = result.metric.get("p50")
    ratio = "" if p50 is None else f", p50 × {p50.ratio:.3f} ({p50.interval[0]:.3f} to {p50.interval[1]:.3f})"
    console.print(
        f"  {trial + 1:>3}: {result.verdict:<14} {result.num_pairs} pairs, {len(result.discarded)} discarded, "
        f"{result.elapsed_s:.0f} s{ratio}"
    )
    for reason, count in Counter(pair.discarded for pair in result.discarded).most_common(2):
        console.print(f"       {count} discarded: {reason}", style="dim")


def record(number: int) -> None:
    """Measure runs of one unchanged server, one after the other, at two loads."""
    series, others = {}, busy()
    with serve({1: BASE_LAYERS}) as url:
        for users in (USERS, 8):
            load = subject(url, 1)
            load = replace(load, test=replace(load.test, load=Users(users=users)))
            session = LoadSession(load, load)
            session.measure("baseline", window_s=1.0, settle_s=2.0)
            runs = []
            for at in range(number):
                run = session.measure("baseline", window_s=WINDOW_S, settle_s=SETTLE_S)
                if run.completed:
                    runs.append({name: round(run.values[name], 1) for name in METRICS})
                if at % 50 == 49:
                    console.print(f"{users} users: {at + 1} of {number} runs")
            session.close()
            series[f"{users} users, windows of {WINDOW_S:g} s"] = runs
    content = {
        "recorded": time.strftime("%Y-%m-%d"),
        "others": round(others, 2),
        "unit": "µs, requests/s",
        "series": series,
    }
    RUNS.write_text(json.dumps(content, ensure_ascii=False).replace("}, {", "},\n{") + "\n")
    for name, runs in series.items():
        console.print(f"{name}: {_describe(runs)}")


def power(number: int = 400) -> None:
    """Show how often +20 % is called from signed ranks and from means, all looks included, by the noise's tails."""
    generator = np.random.default_rng(0)
    noises = {
        "normal": lambda: generator.standard_normal(30),
        "Student's t, 3 degrees": lambda: generator.standard_t(3, 30) / math.sqrt(3),
        "one in seven five times as wide": lambda: (
            np.where(generator.random(30) < 1 / 7, 5, 1) * generator.standard_normal(30) / math.sqrt(31 / 7)
        ),
    }
    options = GateOptions(watched=())
    levels = nominal_levels(options.shares, ALPHA / 3)
    for name, draw in noises.items():
        samples = [math.log(1.2) + 0.3 * draw() for _ in range(number)]
        for kind, test in (("signed ranks", _by_ranks), ("means", _by_means)):
            called = sum(
                any(test(sample[:looks], level) for looks, level in zip(options.looks, levels, strict=True))
                for sample in samples
            )
            console.print(f"{name}, {kind}: {called / number:.0%} called")


def _by_ranks(differences: np.ndarray, level: float) -> bool:
    estimate = Estimate(differences)
    return estimate.p_value() <= level and estimate.effect > math.log(1.1)


def _by_means(differences: np.ndarray, level: float) -> bool:
    """The sign-flip test of the mean: by drawn flips, 4,000 of them."""
    if differences.mean() <= math.log(1.1):
        return False
    flips = np.random.default_rng(1).integers(0, 2, (4000, len(differences))) * 2 - 1
    return float(((flips @ differences) >= differences.sum()).mean()) <= level


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulate", type=int, metavar="N", help="gates on resampled runs, for each change")
    parser.add_argument("--a-a", type=int, metavar="N", help="real gates of a server against itself")
    parser.add_argument("--slowdown", type=float, metavar="PERCENT", help="real gates against a slower server")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="with --slowdown")
    parser.add_argument("--record", type=int, metavar="N", help=f"measure N runs anew into {RUNS.name}")
    parser.add_argument("--power", action="store_true", help="signed ranks against means")
    options = parser.parse_args()
    everything = not any((options.simulate, options.a_a, options.slowdown, options.record, options.power))
    console.print(f"{machine()}")
    good = True
    if options.record:
        record(options.record)
    if options.power:
        power()
    if options.simulate or everything:
        good &= simulate(options.simulate or 1000)
    if options.a_a or everything:
        good &= real_a_a(options.a_a or 20)
    if options.slowdown or everything:
        good &= real_slowdown(options.slowdown or 20.0, options.trials)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
