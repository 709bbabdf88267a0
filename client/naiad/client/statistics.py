"""A model's counters since it was loaded, as the server keeps them.

The difference of two readings describes the time between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BatchStatistics", "Duration", "ModelStatistics"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Duration:
    """How often something happened and how long it took in all, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def __sub__(self, earlier: Duration) -> Duration:
        return Duration(count=self.count - earlier.count, ns=self.ns - earlier.ns)

    @property
    def mean_us(self) -> float:
        """Mean time in microseconds; 0 where nothing happened."""
        return self.ns / self.count / 1000 if self.count else 0.0

    @classmethod
    def from_message(cls, message: Any) -> Duration:
        """Read a StatisticDuration."""
        return cls(count=message.count, ns=message.ns)


_ZERO = Duration()


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchStatistics:
    """The executions of one batch size."""

    compute_input: Duration = _ZERO
    compute_infer: Duration = _ZERO
    compute_output: Duration = _ZERO

    def __sub__(self, earlier: BatchStatistics) -> BatchStatistics:
        return BatchStatistics(
            compute_input=self.compute_input - earlier.compute_input,
            compute_infer=self.compute_infer - earlier.compute_infer,
            compute_output=self.compute_output - earlier.compute_output,
        )


_DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStatistics:
    """The counters of one version of a model; subtract an earlier reading to get those of the time between.

    ``inference_count`` counts samples (a batch of 8 is 8), ``execution_count`` runs of the model.
    """

    name: str
    version: str
    inference_count: int = 0
    execution_count: int = 0
    last_inference_ms: int = 0
    """When the last request came, in milliseconds since 1970."""
    success: Duration = _ZERO
    fail: Duration = _ZERO
    queue: Duration = _ZERO
    compute_input: Duration = _ZERO
    compute_infer: Duration = _ZERO
    compute_output: Duration = _ZERO
    cache_hit: Duration = _ZERO
    cache_miss: Duration = _ZERO
    batches: Mapping[int, BatchStatistics] = field(default_factory=dict)
    """By batch size."""

    def __sub__(self, earlier: ModelStatistics) -> ModelStatistics:
        batches = {size: now - earlier.batches.get(size, BatchStatistics()) for size, now in self.batches.items()}
        return ModelStatistics(
            name=self.name,
            version=self.version,
            inference_count=self.inference_count - earlier.inference_count,
            execution_count=self.execution_count - earlier.execution_count,
            last_inference_ms=self.last_inference_ms,
            batches={size: batch for size, batch in batches.items() if batch.compute_infer.count},
            **{name: getattr(self, name) - getattr(earlier, name) for name in _DURATIONS},
        )

    @classmethod
    def from_message(cls, message: Any) -> ModelStatistics:
        """Read a ModelStatistics message."""
        stats = message.inference_stats
        return cls(
            name=message.name,
            version=message.version,
            inference_count=message.inference_count,
            execution_count=message.execution_count,
            last_inference_ms=message.last_inference,
            batches={batch.batch_size: _batch(batch) for batch in message.batch_stats},
            **{name: Duration.from_message(getattr(stats, name)) for name in _DURATIONS},
        )


def _batch(message: Any) -> BatchStatistics:
    return BatchStatistics(
        compute_input=Duration.from_message(message.compute_input),
        compute_infer=Duration.from_message(message.compute_infer),
        compute_output=Duration.from_message(message.compute_output),
    )
