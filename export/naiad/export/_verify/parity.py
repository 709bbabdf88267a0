"""The parity gate: ONNX Runtime must answer every case as PyTorch did."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from naiad.export._runtime.place import CPU, Place
from naiad.export._runtime.session import replayed, session
from naiad.export._source.reference import Answer, Arrays, describe
from naiad.export._source.samples import Samples
from naiad.export._verify import measures as _measures
from naiad.export._verify import ties as _ties
from naiad.export.errors import VerificationFailed
from naiad.export.report import CaseParity, Divergence, Finding, MetricResult, OutputParity, Tolerance


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """The first comparison that was beyond the tolerance."""

    answer: Answer
    batch: int
    output: str | None
    """None where the graph could not be run at all."""
    reason: str
    max_abs_error: float | None = None
    max_rel_error: float | None = None
    cause: Exception | None = None
    scales: dict[str, float] = field(default_factory=dict)
    """The magnitude that `atol` refers to, by output."""
    divergence: Divergence | None = None
    """Where the graph first differs, once that was looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A graph against PyTorch, over every case."""

    parity: tuple[OutputParity, ...]
    """The worst of each output."""
    cases: tuple[CaseParity, ...]
    failure: Failure | None
    metric: MetricResult | None = None
    tolerance: Tolerance | None = None

    @property
    def passed(self) -> bool:
        """Whether every output of every case was within its tolerance."""
        return self.failure is None

    def findings(self) -> tuple[Finding, ...]:
        """Return what is worth knowing although it passed."""
        return tuple(
            Finding(
                check="near tie",
                message=f"{each.num_near_ties} values of output {each.output!r} differ from PyTorch's, each where two "
                "scores, or a value and its threshold, are nearly equal",
            )
            for each in self.parity
            if each.num_near_ties
        )


def compare(
    path: Path,
    samples: Samples,
    answers: Sequence[Answer],
    tolerance: Tolerance,
    *,
    model: str,
    level: int = 0,
    place: Place = CPU,
    replay: bool = False,
) -> Comparison:
    """Compare every case; a graph that cannot be loaded or run is a comparison that did not pass.

    `level` is `optimization.graph.level` of the configuration that it will be served with; `replay` runs each case as
    the replay of a CUDA graph.
    """
    try:
        runtime = replayed(path, level=level, place=place) if replay else session(path, level=level, place=place)
    except Exception as exc:  # noqa: BLE001 - ONNX Runtime's errors share no public base class
        reason = f"ONNX Runtime cannot load the graph of {model}: {exc}"
        unloadable = Failure(answer=answers[0], batch=0, output=None, reason=reason, cause=exc)
        return Comparison(parity=(), cases=(), failure=unloadable)
    where = place.name if place.on_gpu else "ONNX Runtime"
    scales = _scales(answers)
    cases: list[CaseParity] = []
    worst: dict[str, OutputParity] = {}
    failure: Failure | None = None
    for answer in answers:
        batch = answer.case.sizes.get(str(samples.batch), 0)
        try:
            actual = _run(runtime, answer)
        except Exception as exc:  # noqa: BLE001 - as above
            reason = f"{model} runs in PyTorch at {describe(answer.case)} and fails in {where}: {exc}"
            failure = failure or Failure(answer=answer, batch=batch, output=None, reason=reason, cause=exc)
            break
        for name, expected in answer.outputs.items():
            limits = tolerance.for_output(name)
            found = _measures.difference(actual[name], expected, limits, scales[name])
            ties = 0
            if not found.ok and expected.dtype.kind in "iub":
                ties = _ties.explained(path, answer.case.feeds(), name, expected, limits, level=level, place=place)
                found = replace(found, ok=ties > 0)
            cases.append(_case(name, answer, found))
            worst[name] = _worse(worst.get(name), _parity(name, answer, batch, found, ties))
            if not found.ok and failure is None:
                failure = replace(_failure(name, answer, batch, found, model, place), scales=scales)
    return Comparison(parity=tuple(worst.values()), cases=tuple(cases), failure=failure, tolerance=tolerance)


def verify(
    path: Path, samples: Samples, answers: Sequence[Answer], tolerance: Tolerance, *, model: str, level: int = 0
) -> Comparison:
    """Compare every case, and return the differences.

    Raises:
        VerificationFailed: An output is beyond the tolerance, or the graph cannot be run.
    """
    comparison = compare(path, samples, answers, tolerance, model=model, level=level)
    if comparison.failure is not None:
        raise refusal(comparison.failure, model, comparison) from comparison.failure.cause
    return comparison


def refusal(failure: Failure, model: str, comparison: Comparison | None = None) -> VerificationFailed:
    """Return the error of a comparison that did not pass."""
    where = f"; {failure.divergence}"
    where = "" if failure.divergence is None or failure.reason.endswith(where) else where
    return VerificationFailed(
        f"{failure.reason}{where}; nothing was published",
        model=model,
        output=failure.output,
        batch=failure.batch,
        max_abs_error=failure.max_abs_error,
        max_rel_error=failure.max_rel_error,
        divergence=failure.divergence,
        parity=comparison.parity if comparison else (),
        cases=comparison.cases if comparison else (),
        metric=comparison.metric if comparison else None,
        tolerance=comparison.tolerance if comparison else None,
    )


def _scales(answers: Sequence[Answer]) -> dict[str, float]:
    """Return the largest magnitude of each output over all cases: a value near zero is not held to less than noise."""
    scales: dict[str, float] = {}
    for answer in answers:
        for name, value in answer.outputs.items():
            scales[name] = max(scales.get(name, 0.0), _measures.scale_of(value))
    return scales


def _run(runtime: Any, answer: Answer) -> Arrays:
    names = [output.name for output in runtime.get_outputs()]
    return dict(zip(names, runtime.run(names, answer.case.feeds()), strict=True))


def _case(name: str, answer: Answer, found: _measures.Difference) -> CaseParity:
    return CaseParity(
        output=name,
        sizes=describe(answer.case),
        sample=answer.case.origin(0),
        max_abs_error=found.max_abs_error,
        max_rel_error=found.max_rel_error,
        cosine=found.cosine,
        passed=found.ok,
    )


def _parity(name: str, answer: Answer, batch: int, found: _measures.Difference, ties: int) -> OutputParity:
    return OutputParity(
        output=name,
        max_abs_error=found.max_abs_error,
        max_rel_error=found.max_rel_error,
        worst_batch=batch,
        cosine=found.cosine,
        worst_sizes=describe(answer.case),
        worst_sample=answer.case.origin(found.row),
        num_near_ties=ties,
    )


def _worse(before: OutputParity | None, after: OutputParity) -> OutputParity:
    if before is None:
        return after
    worst = after if after.max_rel_error > before.max_rel_error else before
    cosines = [parity.cosine for parity in (before, after) if parity.cosine is not None]
    ties = before.num_near_ties + after.num_near_ties
    return replace(worst, cosine=min(cosines, default=None), num_near_ties=ties)


def _failure(
    name: str, answer: Answer, batch: int, found: _measures.Difference, model: str, place: Place = CPU
) -> Failure:
    on = f" on {place.name}" if place.on_gpu else ""
    origin = answer.case.origin(found.row)
    where = f" ({origin})" if origin else ""
    return Failure(
        answer=answer,
        batch=batch,
        output=name,
        reason=f"output {name!r} of {model} differs from PyTorch{on} at {describe(answer.case)}{where}: {found.reason}",
        max_abs_error=found.max_abs_error,
        max_rel_error=found.max_rel_error,
    )


def compare_answers(
    actual: Sequence[Arrays], samples: Samples, answers: Sequence[Answer], tolerance: Tolerance, *, model: str
) -> Comparison:
    """Compare the answers that something else than ONNX Runtime gave to every case."""
    scales = _scales(answers)
    cases: list[CaseParity] = []
    worst: dict[str, OutputParity] = {}
    failure: Failure | None = None
    for given, answer in zip(actual, answers, strict=True):
        batch = answer.case.sizes.get(str(samples.batch), 0)
        for name, expected in answer.outputs.items():
            found = _measures.difference(given[name], expected, tolerance.for_output(name), scales[name])
            cases.append(_case(name, answer, found))
            worst[name] = _worse(worst.get(name), _parity(name, answer, batch, found, 0))
            if not found.ok and failure is None:
                failure = replace(_failure(name, answer, batch, found, model), scales=scales)
    return Comparison(parity=tuple(worst.values()), cases=tuple(cases), failure=failure, tolerance=tolerance)
