"""Servers that exist as formulas, whose capacity is known, and reports of runs against them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from naiad.client import ModelMetadata
from naiad.loadtest import LoadTest, Rate, Report, Slo, Users
from naiad.loadtest._data.signature import Signature
from naiad.loadtest._data.target import Target
from naiad.loadtest._engine.messages import Interval
from naiad.loadtest._truth.measurement import Measurement
from naiad.loadtest.latencies import Latencies

TARGET = Target(
    signature=Signature(
        metadata=ModelMetadata(name="m", versions=("1",), platform="onnx", inputs=(), outputs=()), max_batch_size=8
    ),
    server_version="2.51.0",
    backend="onnxruntime",
)


@dataclass(frozen=True, kw_only=True)
class InvalidRun:
    """A doubt like those of a real run whose generator was too slow."""

    kind: str = "generator_cpu"
    text: str = "the load generator was the limit"
    invalid: bool = True

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.text, "invalid": self.invalid}


@dataclass(kw_only=True)
class SimulatedServer:
    """One server with a queue (M/M/1 or M/D/1); calling it is a run, and moves its clock on by the run's length."""

    service_per_s: float = 1000.0
    service: Literal["exponential", "constant"] = "exponential"
    drift: float = 0.0
    """How much faster or slower a run's service is than another's (standard deviation of the logarithm)."""
    ceiling_per_s: float = math.inf
    """Of the load generator: runs beyond are invalid."""
    always_ms: float = 0.0
    """What every request takes besides."""
    seed: int = 0
    now_s: float = 0.0
    tests: list[LoadTest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def clock(self) -> float:
        return self.now_s

    def __call__(self, test: LoadTest) -> Report:
        self.tests.append(test)
        self.now_s += test.duration_s + 0.5
        rate = test.load.per_s if isinstance(test.load, Rate) else self._closed(test.load)
        limited = rate > self.ceiling_per_s
        arrivals, latencies = self._queue(min(rate, self.ceiling_per_s), test.duration_s)
        doubts = (InvalidRun(),) if limited else ()
        return report_of(test, arrivals + latencies, latencies, doubts=doubts)

    def _closed(self, load: object) -> float:
        """About what a closed loop gets out of one server."""
        assert isinstance(load, Users)
        return self.service_per_s * load.users / (load.users + 1)

    def _queue(self, rate: float, duration_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return arrivals within the window, and how long each request took (Lindley's recursion)."""
        begin_s = duration_s / 5  # warm-up
        num = max(int(self._random.poisson(rate * (duration_s + begin_s))), 10)
        arrivals = np.sort(self._random.random(num)) * (duration_s + begin_s)
        mean_s = math.exp(self.drift * self._random.standard_normal()) / self.service_per_s
        needs = np.full(num, mean_s) if self.service == "constant" else self._random.exponential(mean_s, num)
        behind = np.concatenate([[0.0], np.cumsum(needs[:-1] - np.diff(arrivals))])
        waits = behind - np.minimum.accumulate(behind)
        measured = arrivals >= begin_s
        return arrivals[measured] - begin_s, (waits + needs)[measured] + self.always_ms / 1000


def report_of(
    test: LoadTest,
    ends_s: NDArray[np.float64],
    latencies_s: NDArray[np.float64],
    *,
    doubts: tuple[InvalidRun, ...] = (),
) -> Report:
    """Return a real report of requests that ended then and took so long."""
    slots = np.minimum((ends_s * 4).astype(int), round(test.duration_s * 4))
    intervals = []
    for slot in range(slots.max() + 1):
        ns = (latencies_s[slots == slot] * 1e9).astype(np.int64)
        times = Latencies(ns)
        intervals.append(Interval(start_s=slot / 4, end_s=(slot + 1) / 4, sent=len(ns), latencies=times, service=times))
    measurement = Measurement.of(test, TARGET, intervals, [], window=(0.0, test.duration_s))
    slos = tuple(slo.judge(measurement) for slo in test.slos)
    return Report(test=test, targets=(TARGET,), measurement=measurement, slos=slos, doubts=doubts)


def capacity_mm1(service_per_s: float, slo: Slo) -> float:
    """The rate at which the objective on a percentile is just kept: P(T > t) = exp(-(μ - λ) t)."""
    allowed = 1 - float(slo.metric[1:]) / 100
    return service_per_s + math.log(allowed) / (slo.limit / 1e6)
