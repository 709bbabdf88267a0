"""A model's counters since it was loaded, as the server keeps them.

The difference of two readings describes the time between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BatchStatistics", "Duration", "ModelStatistics", "ServerState"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Duration:
    """How often something happened and how long it took in all, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def __add__(self, other: Duration) -> Duration:
        return Duration(count=self.count + other.count, ns=self.ns + other.ns)

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

    def __add__(self, other: BatchStatistics) -> BatchStatistics:
        return BatchStatistics(
            compute_input=self.compute_input + other.compute_input,
            compute_infer=self.compute_infer + other.compute_infer,
            compute_output=self.compute_output + other.compute_output,
        )

    def __sub__(self, earlier: BatchStatistics) -> BatchStatistics:
        return BatchStatistics(
            compute_input=self.compute_input - earlier.compute_input,
            compute_infer=self.compute_infer - earlier.compute_infer,
            compute_output=self.compute_output - earlier.compute_output,
        )


_COUNTS = ("inference_count", "execution_count")
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

    def __add__(self, other: ModelStatistics) -> ModelStatistics:
        nothing = BatchStatistics()
        sizes = sorted({*self.batches, *other.batches})
        return ModelStatistics(
            name=self.name,
            version=self.version,
            inference_count=self.inference_count + other.inference_count,
            execution_count=self.execution_count + other.execution_count,
            last_inference_ms=max(self.last_inference_ms, other.last_inference_ms),
            batches={size: self.batches.get(size, nothing) + other.batches.get(size, nothing) for size in sizes},
            **{name: getattr(self, name) + getattr(other, name) for name in _DURATIONS},
        )

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

    def since(self, earlier: ModelStatistics | None) -> ModelStatistics:
        """Return what happened after ``earlier``.

        Where there was nothing earlier, or the counters began anew in between, as they do when a model is loaded
        again, that is all they say.
        """
        if earlier is None or any(getattr(self, name) < getattr(earlier, name) for name in _COUNTS):
            return self
        if self.success.count < earlier.success.count or self.fail.count < earlier.fail.count:
            return self
        return self - earlier

    @property
    def mean_batch(self) -> float:
        """Samples in a run of the model; 0 where there was none."""
        return self.inference_count / self.execution_count if self.execution_count else 0.0

    @property
    def mean_compute_us(self) -> float:
        """Mean time of a request in the model, with its inputs and outputs, in microseconds."""
        return self.compute_input.mean_us + self.compute_infer.mean_us + self.compute_output.mean_us

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


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerState:
    """One server as a client sees it."""

    address: str
    ejected_s: float
    """How long it gets no calls yet, in seconds; 0 for a server that does."""
    num_failures: int
    """In a row, until now."""
    outstanding: int
    """Calls that it has not answered yet."""


def sums(servers: Iterable[tuple[ModelStatistics, ...]]) -> tuple[ModelStatistics, ...]:
    """Add the counters of several servers, for each version of each model."""
    total: dict[tuple[str, str], ModelStatistics] = {}
    for entry in (entry for entries in servers for entry in entries):
        key = entry.name, entry.version
        total[key] = total[key] + entry if key in total else entry
    return tuple(total.values())
