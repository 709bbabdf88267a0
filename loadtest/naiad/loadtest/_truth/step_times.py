"""Where the time of an ensemble or a script went: the counters of the models it calls, beside its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from naiad.loadtest._data.pipeline import Key, Pipeline, Step
from naiad.loadtest._truth.resources import ServerSample
from naiad.loadtest._truth.server_times import ServerSnapshot, ServerTimes
from naiad.loadtest._truth.window import began_anew, server_times

__all__ = ["PipelineTimes", "StepTimes"]

_FEW: Final = 20  # as in validity: a health check now and then is no load
_FOREIGN_SHARE: Final = 0.01
_OVERLAP_SHARE: Final = 0.1  # an answer is passed on before its step is done, and a slow request may lie on an edge
_TIMES: Final = ("total_us", "queue_us", "compute_input_us", "compute_infer_us", "compute_output_us")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTimes:
    """What a step did within the window."""

    step: Step
    times: ServerTimes | None
    """Of all its requests, whoever sent them; ``None`` where they are not known."""
    calls_per_request: float | None
    """How often one request of the tested model called it, over the whole run."""
    others: int = 0
    """Requests of the whole run that did not come from the tested model; 0 where that cannot be told."""

    @property
    def time_us(self) -> float | None:
        """The mean time in it for one request of the tested model, over all calls."""
        return self.per_request("total_us")

    def per_request(self, name: str) -> float | None:
        """Return one of the times for a request of the tested model, µs."""
        if self.times is None or self.calls_per_request is None:
            return None
        return float(getattr(self.times, name)) * self.calls_per_request

    def to_json(self, whole_us: float | None) -> dict[str, Any]:
        """Return the fields as the report has them; shares are of ``whole_us``."""
        step, times = self.step, self.times
        return {
            "model": step.model,
            "version": step.version,
            "kind": step.kind,
            "depth": step.depth,
            "called_by": list(step.callers),
            "calls_per_request": self.calls_per_request,
            "requests": None if times is None else times.requests,
            "failures": None if times is None else times.failures,
            "executions": None if times is None else times.executions,
            "mean_batch": None if times is None else times.mean_batch,
            "time_us": self.time_us,
            **{name: self.per_request(name) for name in _TIMES[1:]},
            "share": _share(self.time_us, whole_us),
            "others": self.others,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineTimes:
    """Where the time of the tested model's requests went, step by step."""

    pipeline: Pipeline
    whole: ServerTimes | None
    steps: tuple[StepTimes, ...]

    @classmethod
    def of(
        cls, pipeline: Pipeline, samples: Sequence[ServerSample], near: Sequence[ServerSample], traffic: int
    ) -> PipelineTimes:
        """Sum up the samples of a run; ``near`` are those of its window, ``traffic`` is the tested model."""
        steps = tuple(_step(step, samples, near, traffic) for step in pipeline.steps)
        return cls(pipeline=pipeline, whole=server_times(near, traffic), steps=steps)

    @property
    def own_queue_us(self) -> float | None:
        """How long a request waited before its first step, for an instance of the tested model."""
        return None if self.whole is None else self.whole.queue_us

    @property
    def between_us(self) -> float | None:
        """The mean time of a request that was spent neither waiting for the first step nor in one; see `unknown`."""
        if self.unknown or self.whole is None:
            return None
        return max(0.0, self.whole.total_us - self.whole.queue_us - self._in_steps_us)

    @property
    def unknown(self) -> str | None:
        """Why it is not known what was left between the steps."""
        if self.whole is None or not self.whole.requests:
            return "the server's times are not known"
        top = [step for step in self.steps if step.step.depth == 1]
        if any(step.time_us is None for step in top):
            return "the times of a step are not known"
        if self.pipeline.parallel:
            return "steps may run at the same time: their shares can be more than 100 % together"
        if any(step.step.callers != (self.pipeline.name,) for step in top):
            return "a step is called by another one as well: its time counts in both"
        if self._in_steps_us > self.whole.total_us * (1 + _OVERLAP_SHARE):
            return "the steps took longer than the whole: they ran at the same time, or served others, too"
        return None

    @property
    def _in_steps_us(self) -> float:
        return sum(step.time_us or 0.0 for step in self.steps if step.step.depth == 1)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        whole_us = None if self.whole is None else self.whole.total_us
        return {
            "steps": [step.to_json(whole_us) for step in self.steps],
            "between_steps": {
                "kind": self.pipeline.kind,
                "whole_us": whole_us,
                "own_queue_us": self.own_queue_us,
                "time_us": self.between_us,
                "share": _share(self.between_us, whole_us),
                "unknown": self.unknown,
            },
        }


def _step(step: Step, samples: Sequence[ServerSample], near: Sequence[ServerSample], traffic: int) -> StepTimes:
    times = server_times(near, step.key)
    spent = _spent(samples, step.key, traffic) or _spent(near, step.key, traffic)
    if spent is None:
        return StepTimes(step=step, times=times, calls_per_request=None)
    called, (requests, failures) = spent
    others = 0
    if step.calls is not None:
        due = step.calls * requests
        more = called - due - step.calls * failures  # a request that failed may have come this far
        others = more if more > _FEW and more > _FOREIGN_SHARE * due else 0
    calls = float(step.calls or 0) if others else called / requests
    return StepTimes(step=step, times=times, calls_per_request=calls, others=others)


def _spent(samples: Sequence[ServerSample], key: Key, traffic: int) -> tuple[int, tuple[int, int]] | None:
    """Return a step's successes, and successes and failures of the tested model; ``None`` where nothing succeeded."""
    known = [sample for sample in samples if key in sample.snapshots and traffic in sample.snapshots]
    if len(known) < 2 or began_anew(known, key) or began_anew(known, traffic):
        return None
    first, last = known[0].snapshots, known[-1].snapshots
    whole_first, whole_last = first[traffic], last[traffic]
    requests = whole_last.success_count - whole_first.success_count
    if not requests:
        return None
    return _successes(first[key], last[key]), (requests, whole_last.fail_count - whole_first.fail_count)


def _successes(first: ServerSnapshot, last: ServerSnapshot) -> int:
    return last.success_count - first.success_count


def _share(time_us: float | None, whole_us: float | None) -> float | None:
    return None if time_us is None or not whole_us else time_us / whole_us
