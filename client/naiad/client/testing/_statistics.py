"""Counters of a model, as the server's statistics extension gives them."""

from __future__ import annotations

import threading
import time
from typing import Any


class Counters:
    """What one version of a model did since it was loaded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._success, self._fail = [0, 0], [0, 0]
        self._batches: dict[int, list[int]] = {}
        self._num_inferences = self._num_executions = self._queue_ns = self._compute_ns = 0
        self._last_ms = 0

    def count(self, rows: int, queue_ns: int, duration_ns: int, *, ran: bool = True, failed: bool = False) -> None:
        """Count one request; what it did not wait in the queue was computing."""
        with self._lock:
            entry = self._fail if failed else self._success
            entry[0] += 1
            entry[1] += queue_ns + duration_ns
            self._last_ms = int(time.time() * 1000)
            if ran:
                self._num_executions += 1
                batch = self._batches.setdefault(rows, [0, 0])
                batch[0] += 1
                batch[1] += duration_ns
            if not failed:
                self._queue_ns += queue_ns
                self._compute_ns += duration_ns
                self._num_inferences += rows

    def fill(self, message: Any) -> None:
        """Write them into a ModelStatistics message."""
        with self._lock:
            message.last_inference = self._last_ms
            message.inference_count = self._num_inferences
            message.execution_count = self._num_executions
            stats = message.inference_stats
            for name in ("queue", "compute_input", "compute_output", "cache_hit", "cache_miss"):
                getattr(stats, name).SetInParent()
            for duration, (number, ns) in ((stats.success, self._success), (stats.fail, self._fail)):
                duration.count, duration.ns = number, ns
            stats.queue.ns = self._queue_ns
            stats.queue.count = stats.compute_input.count = stats.compute_output.count = self._success[0]
            stats.compute_infer.count, stats.compute_infer.ns = self._success[0], self._compute_ns
            for rows, (number, ns) in sorted(self._batches.items()):
                batch = message.batch_stats.add(batch_size=rows)
                batch.compute_input.count = batch.compute_output.count = number
                batch.compute_infer.count, batch.compute_infer.ns = number, ns
