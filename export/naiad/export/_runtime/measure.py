"""Latency by batch in ONNX Runtime, a few milliseconds each: enough to choose threads, not a benchmark."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from naiad.export._runtime.bound import caller
from naiad.export._runtime.place import CPU, Place
from naiad.export._runtime.session import session
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples
from naiad.export.report import BatchLatency

_BUDGET_S = 0.05
_MAX_RUNS = 20


def measure(path: Path, samples: Samples, answers: Sequence[Answer], *, place: Place = CPU) -> tuple[BatchLatency, ...]:
    """Return the median latency of one case per batch size, on one thread or on a GPU."""
    runtime = session(path, num_threads=1, place=place)
    cases = {answer.case.sizes.get(str(samples.batch), 0): answer.case for answer in reversed(answers)}
    latencies = []
    for batch, case in sorted(cases.items()):
        call = caller(runtime, case.feeds())
        call()
        times: list[float] = []
        while len(times) < _MAX_RUNS and (not times or sum(times) < _BUDGET_S):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        latencies.append(BatchLatency(batch=batch, median_ms=round(statistics.median(times) * 1e3, 4)))
    return tuple(latencies)
