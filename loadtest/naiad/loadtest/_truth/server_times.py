"""Where the time went in the server: the difference of two snapshots of Triton's statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from naiad.client import ModelStatistics

__all__ = ["ServerSnapshot", "ServerTimes"]

_COUNTERS: Final = (
    "success_count",
    "success_ns",
    "fail_count",
    "queue_ns",
    "compute_input_ns",
    "compute_infer_ns",
    "compute_output_ns",
    "inference_count",
    "execution_count",
    "cache_hit_count",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSnapshot:
    """Triton's cumulative counters of a model, summed over its versions; durations in nanoseconds."""

    success_count: int
    success_ns: int
    fail_count: int
    queue_ns: int
    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int
    inference_count: int
    execution_count: int
    cache_hit_count: int
    batches: Mapping[int, int]
    """How many executions there were of each batch size."""

    @classmethod
    def of(cls, statistics: Iterable[ModelStatistics]) -> Self:
        """Sum the counters of all versions in ``statistics``."""
        sums, batches = Counter[str](), Counter[int]()
        for version in statistics:
            sums.update(_flat(version))
            batches.update({size: batch.compute_infer.count for size, batch in version.batches.items()})
        return cls(batches=dict(batches), **{name: sums[name] for name in _COUNTERS})

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them (batch sizes become text)."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` gave."""
        return cls(**{**fields, "batches": {int(size): count for size, count in fields["batches"].items()}})

    def fell_since(self, before: ServerSnapshot) -> bool:
        """Whether a counter is lower than it was: the server, or the model, began anew."""
        return any(getattr(self, name) < getattr(before, name) for name in _COUNTERS)


def _flat(version: ModelStatistics) -> dict[str, int]:
    return {
        "success_count": version.success.count,
        "success_ns": version.success.ns,
        "fail_count": version.fail.count,
        "queue_ns": version.queue.ns,
        "compute_input_ns": version.compute_input.ns,
        "compute_infer_ns": version.compute_infer.ns,
        "compute_output_ns": version.compute_output.ns,
        "inference_count": version.inference_count,
        "execution_count": version.execution_count,
        "cache_hit_count": version.cache_hit.count,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerTimes:
    """What the server did within the window; times are means per successful request, in microseconds."""

    requests: int
    failures: int
    inferences: int
    executions: int
    cache_hits: int
    total_us: float
    """From the request's arrival in the server to its answer leaving it."""
    queue_us: float
    compute_input_us: float
    compute_infer_us: float
    compute_output_us: float
    in_flight: float
    """How many requests were in the server on average (Little's law: rate × time in it)."""
    batches: Mapping[int, int]
    """How many executions there were of each batch size."""

    @property
    def compute_us(self) -> float:
        """Input, inference and output together."""
        return self.compute_input_us + self.compute_infer_us + self.compute_output_us

    @property
    def mean_batch(self) -> float | None:
        """Inferences per execution; ``None`` where nothing was executed."""
        return self.inferences / self.executions if self.executions else None

    @classmethod
    def between(cls, before: ServerSnapshot, after: ServerSnapshot, window_s: float) -> Self | None:
        """Return what lies between two snapshots; ``None`` when counters fell: the server began anew."""
        if after.fell_since(before) or window_s <= 0:
            return None
        spent = {name: getattr(after, name) - getattr(before, name) for name in _COUNTERS}
        batches = Counter(after.batches)
        batches.subtract(before.batches)
        return cls._of(spent, {size: count for size, count in sorted(batches.items()) if count > 0}, window_s)

    @classmethod
    def _of(cls, spent: Mapping[str, int], batches: Mapping[int, int], window_s: float) -> Self:
        per_request_us = 1e-3 / max(spent["success_count"], 1)
        return cls(
            requests=spent["success_count"],
            failures=spent["fail_count"],
            inferences=spent["inference_count"],
            executions=spent["execution_count"],
            cache_hits=spent["cache_hit_count"],
            total_us=spent["success_ns"] * per_request_us,
            queue_us=spent["queue_ns"] * per_request_us,
            compute_input_us=spent["compute_input_ns"] * per_request_us,
            compute_infer_us=spent["compute_infer_ns"] * per_request_us,
            compute_output_us=spent["compute_output_ns"] * per_request_us,
            in_flight=spent["success_ns"] * 1e-9 / window_s,
            batches=batches,
        )

    @classmethod
    def together(cls, parts: Sequence[ServerTimes]) -> Self | None:
        """Return the times of several models' requests as one; means are weighted by requests."""
        if not parts:
            return None
        batches = sum((Counter(part.batches) for part in parts), Counter[int]())
        whole = sum(part.requests for part in parts)
        sums = {name: sum(getattr(part, name) for part in parts) for name in _SUMMED}
        means = {name: sum(getattr(part, name) * part.requests for part in parts) / max(whole, 1) for name in _MEANS}
        return cls(batches=dict(sorted(batches.items())), **sums, **means)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        return {
            **{name: getattr(self, name) for name in (*_SUMMED, *_MEANS)},
            "compute_us": self.compute_us,
            "mean_batch": self.mean_batch,
            "batches": {str(size): count for size, count in self.batches.items()},
        }


_SUMMED: Final = ("requests", "failures", "inferences", "executions", "cache_hits", "in_flight")
_MEANS: Final = ("total_us", "queue_us", "compute_input_us", "compute_infer_us", "compute_output_us")
