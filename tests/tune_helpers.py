"""A model whose throughput and latency follow from its configuration by a formula, to be tuned without a server."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from naiad.loadtest import ConfigurationRefused, LoadTest, Report, Slo, Space, Traffic, Trial, Users, tune
from naiad.loadtest._gate.options import GateOptions
from naiad.loadtest._gate.subjects import RunValues, Side
from sweep_helpers import report_of

CONFIG: dict[str, Any] = {
    "name": "m",
    "backend": "onnxruntime",
    "max_batch_size": 32,
    "instance_group": [{"count": 1}],
    "dynamic_batching": {},
    "parameters": {"intra_op_thread_count": {"string_value": "1"}},
    "model_warmup": [{"name": "one", "batch_size": 1}, {"name": "all", "batch_size": 32}],
}
TEST = LoadTest(traffic=Traffic(model="m"), slos=(Slo.parse("p99<6ms"),), load=Users(users=8))


def space(config: Mapping[str, Any] | None = None, **fields: Any) -> Space:
    return Space(**{"config": config or CONFIG, "cores": 4, "limit_us": 6_000.0, **fields})


@dataclass(kw_only=True)
class SimulatedBench:
    """Batches of up to the users in flight, gathered better with a delay; noise of the seed; no sleeping."""

    noise: float = 0.01
    gain: float = 1.0
    """How much a delay brings; 0 makes every configuration the same."""
    slow_s: float = 0.0
    """What a run takes in real time."""
    refuses: str = ""
    """Settings in whose text this is are refused."""
    now_s: float = 0.0
    seed: int = 0
    applied: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def clock(self) -> float:
        return self.now_s

    def apply(self, settings: Mapping[str, Any]) -> None:
        if self.refuses and self.refuses in json.dumps(dict(settings)):
            raise ConfigurationRefused("the model does not load: too many")
        self.applied.append(dict(settings))

    def measure(self, test: LoadTest) -> Report:
        assert isinstance(test.load, Users)
        self.now_s += test.duration_s + 0.3
        time.sleep(self.slow_s)
        per_s = self.throughput(self.applied[-1], test.load.users) * np.exp(self.noise * self._random.standard_normal())
        mean_s = test.load.users / per_s
        num = max(int(per_s * test.duration_s), 2)
        times = mean_s * np.exp(0.2 * self._random.standard_normal(num))
        return report_of(test, np.linspace(0.0, test.duration_s, num, endpoint=False), times)

    def throughput(self, settings: Mapping[str, Any], users: int) -> float:
        """Requests per second: a batch costs 1 ms and 20 µs a row; a delay fills it, no batching leaves one row."""
        batching = settings.get("dynamic_batching", CONFIG["dynamic_batching"])
        if batching is None and self.gain:
            return 1e6 / 1020
        delay_us = int((batching or {}).get("max_queue_delay_microseconds", 0)) if self.gain else 0
        filled = min(0.3 + 0.4 * self.gain * min(delay_us, 500) / 500, 1.0)
        rows = max(min(users * filled, 32.0), 1.0)
        return rows / (1000 + delay_us * 0.2 + 20 * rows) * 1e6


@dataclass(kw_only=True)
class SimulatedSession:
    """The runs of an A/B comparison of two trials on a simulated bench."""

    bench: SimulatedBench
    trials: Mapping[Side, Trial]

    def measure(self, side: Side, *, window_s: float, settle_s: float) -> RunValues:
        trial = self.trials[side]
        users = trial.best.users if trial.best else 1
        self.bench.apply(trial.settings)
        test = LoadTest(traffic=TEST.traffic, slos=TEST.slos, load=Users(users=users or 1), duration_s=window_s)
        measured = self.bench.measure(test).measurement
        p99 = measured.value("p99") or 0.0
        values = {"throughput": measured.throughput, "p99": p99, "p50": measured.value("p50") or 0.0}
        return RunValues(values=values, completed=measured.completed, objectives={TEST.slos[0].text: p99})

    def close(self) -> None:
        pass


def confirm_on(bench: SimulatedBench) -> Any:
    """What compares two trials there."""
    from naiad.loadtest._gate.compare import judge_session

    def confirm(reference: Trial, candidate: Trial) -> Any:
        session = SimulatedSession(bench=bench, trials={"baseline": reference, "candidate": candidate})
        options = GateOptions(
            metrics=("throughput",), watched=("p99",), pairs=8, max_pairs=10, window_s=1.0, noise=None, seed=1
        )
        return judge_session(session, options, slos=TEST.slos)

    return confirm


def main() -> None:
    """Tune slowly with a study in a file, for tests that kill the process: FILE TRIALS SLOW_S."""
    path, trials, slow_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    bench = SimulatedBench(slow_s=slow_s)
    found = tune(
        TEST,
        bench,
        space(),
        confirm=confirm_on(bench),
        num_trials=trials,
        budget_s=1e6,
        study=path,
        on_progress=lambda progress: print(progress.trials, flush=True),
    )
    print(json.dumps(found.to_json()), flush=True)


if __name__ == "__main__":
    main()
