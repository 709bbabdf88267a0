"""The gate that every graph passes before it may be published, whatever its precision."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from naiad.export._capture.graph import Graph
from naiad.export._runtime.place import PlaceOf, on_cpu
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples
from naiad.export._source.subject import Subject
from naiad.export._verify import diverge as _diverge
from naiad.export._verify import metric as _metric
from naiad.export._verify import overflow as _overflow
from naiad.export._verify import trace as _trace
from naiad.export._verify.metric import Metric
from naiad.export._verify.parity import Comparison, Failure, compare, refusal
from naiad.export._verify.tolerances import Tolerances
from naiad.export.report import Divergence

_HALF = "fp16"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """What a graph of one model has to be equal to, and how nearly."""

    model: str
    subject: Subject
    graph: Graph
    """As it was captured, in the model's own precision."""
    samples: Samples
    answers: Sequence[Answer]
    tolerances: Tolerances
    level: int = 0
    """`optimization.graph.level` of the configuration that it will be served with."""
    metric: Metric | None = None
    expected_metric: float = 0.0
    """The metric of the model itself."""
    place_of: PlaceOf = on_cpu
    """Where graphs of a precision are run."""
    explains: bool = False
    """Whether a candidate that is refused is searched for the first node that differs, which takes a few runs of it."""

    def check(self, path: Path, precision: str) -> Comparison:
        """Compare a graph of any precision with the model, in its outputs and in its task."""
        tolerance = self.tolerances.of(precision)
        place = self.place_of(precision)
        found = compare(path, self.samples, self.answers, tolerance, model=self.model, level=self.level, place=place)
        if found.passed and precision == _HALF and path != self.graph.path and not place.on_gpu:
            found = replace(found, failure=self._overflow(path))
        if found.failure is not None and self.explains and path != self.graph.path:
            found = replace(found, failure=self._explained(path, found.failure, precision))
        return self._in_its_task(path, precision, found) if found.passed and self.metric else found

    def require(self, path: Path, precision: str, directory: Path) -> Comparison:
        """Return the comparison of a graph that passes; `directory` is for the search of the first diverging node.

        Raises:
            VerificationFailed: It does not pass; the message names the node where that could be found.
        """
        found = self.check(path, precision)
        if found.failure is None:
            return found
        where = found.failure.divergence or self.explain(path, found.failure, precision, directory)
        raise refusal(replace(found.failure, divergence=where), self.model, found) from found.failure.cause

    def explain(self, path: Path, failure: Failure, precision: str, directory: Path) -> Divergence | None:
        """Return the first node of a refused graph that differs, if one can be told."""
        place = self.place_of(precision)
        if failure.output is None or place.engines_are_built:
            return None
        tolerance = self.tolerances.of(precision)
        if path != self.graph.path:
            reference = _diverge.of_graph(self.graph.path, failure.answer.case.feeds())
            return _diverge.locate(
                path, failure, tolerance, level=self.level, reference=reference, cause="precision", place=place
            )
        found = _diverge.locate(path, failure, tolerance, level=self.level, place=place)  # the optimiser, if it is that
        if found is not None:
            return found
        if place.on_gpu:  # on the CPU it has passed
            on_cpu = _diverge.of_graph(path, failure.answer.case.feeds())
            return _diverge.locate(
                path, failure, tolerance, level=self.level, reference=on_cpu, cause="provider", place=place
            )
        trace, departure = _trace.of_program(self.subject, self.graph, self.samples, failure, directory)
        if departure is not None or trace is None:
            return departure
        return _diverge.locate(path, failure, tolerance, level=self.level, reference=trace)

    def _explained(self, path: Path, failure: Failure, precision: str) -> Failure:
        """Return a failure whose reason has the first node that differs."""
        where = failure.divergence or self.explain(path, failure, precision, path.parent)
        return failure if where is None else replace(failure, divergence=where, reason=f"{failure.reason}; {where}")

    def _overflow(self, path: Path) -> Failure | None:
        answer = max(self.answers, key=lambda each: each.case.sizes.get(str(self.samples.batch), 0))
        batch = answer.case.sizes.get(str(self.samples.batch), 0)
        return _overflow.find(path, self.graph.path, answer, batch=batch, model=self.model)

    def _in_its_task(self, path: Path, precision: str, found: Comparison) -> Comparison:
        assert self.metric is not None
        place = self.place_of(precision)
        predict = _metric.of_file(path, level=self.level, max_batch_size=self.samples.max_batch_size, place=place)
        result = self.metric.compare(self.expected_metric, self.metric.measure(predict))
        if result.passed:
            return replace(found, metric=result)
        reason = (
            f"{result.name} of {self.model} is {result.candidate:.6g} in ONNX Runtime and {result.pytorch:.6g} in "
            f"{self.subject.reference}, a change of {result.change:+.6g} ({result.limit} was allowed)"
        )
        failure = Failure(answer=self.answers[0], batch=0, output=None, reason=reason)
        return replace(found, metric=result, failure=failure)


def metric_of(subject: Subject, samples: Samples, metric: Metric) -> float:
    """Return the metric of the model itself, which is in the state that it is exported in."""

    def run(arrays: dict[str, Any]) -> dict[str, Any]:
        return subject.run({name: arrays[name] for name in samples.names})

    return metric.measure(_metric.predictor(run, samples.max_batch_size))
