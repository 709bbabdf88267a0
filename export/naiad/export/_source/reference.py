"""The subject's own answers to every case: the truth that the exported graph is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from naiad.export._source.budget import Budget
from naiad.export._source.samples import MAX_ROWS, Case, Samples
from naiad.export._source.subject import Subject
from naiad.export.errors import CheckFailed, InvalidExport
from naiad.export.report import Tolerance

_SMALL_BATCHES = (1, 2, 3, 7)

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One case with the subject's outputs by name."""

    case: Case
    outputs: Arrays


def answers(
    subject: Subject, samples: Samples, *, budget: Budget | None = None, left_out: list[str] | None = None
) -> tuple[Answer, ...]:
    """Run every case in the subject itself, within a budget; `left_out` gets a sentence for each case beyond it.

    Raises:
        CheckFailed: The model itself fails at a size it would be served at.
        InvalidExport: An output is not a tensor that Triton knows, or the names given do not fit the outputs.
    """
    budget, notes = budget or Budget(), [] if left_out is None else left_out
    found: list[Answer] = []
    refused: list[Case] = []
    for planned in samples.cases():
        case = _within(budget, planned, samples, notes)
        if case is None:
            continue
        budget.begin()
        outputs = _run(subject, case, generated=samples.generated)
        if outputs is None:
            refused.append(case)
            continue
        budget.end(case, outputs)
        found.append(Answer(case=case, outputs=outputs))
    notes.extend(_one_size_only(found, refused, samples))
    if samples.num_rows_left_out():
        notes.append(f"{samples.num_rows_left_out()} rows of the samples were not compared: {MAX_ROWS} of a shape are")
    return tuple(found)


def _within(budget: Budget, case: Case, samples: Samples, notes: list[str]) -> Case | None:
    """Return a case that the budget allows: this one, the same with fewer rows, or none."""
    reason, smaller = budget.lacks(case), case
    while reason and case.required and samples.batch and smaller.sizes[samples.batch] > 2 * max(_SMALL_BATCHES):
        smaller = samples.with_batch(smaller, smaller.sizes[samples.batch] // 2)
        if not budget.lacks(smaller):
            notes.append(f"{describe(case)} was compared with {describe(smaller)} instead: {reason}")
            return smaller
    if reason:
        notes.append(f"{describe(case)} was not compared: {reason}")
    return None if reason else case


def _run(subject: Subject, case: Case, *, generated: bool) -> Arrays | None:
    """Return the subject's answer; None where it refuses a size that no sample has."""
    try:
        return subject.run(case.inputs)
    except InvalidExport:
        raise
    except Exception as exc:  # whatever a foreign forward() raises
        if not case.required:
            return None
        if generated:
            raise CheckFailed(
                f"{subject.label} fails in {subject.reference} on made-up samples: {_first_line(exc)}; give real ones, "
                "or the range of its inputs (inputs, or INPUTS in a recipe)"
            ) from exc
        raise CheckFailed(
            f"{subject.label} itself fails in {subject.reference} at {describe(case)}: {_first_line(exc)}. "
            "A constant in view() or reshape(), or squeeze() without a dimension, is the usual reason; "
            "correct the model, or declare the sizes it takes (dynamic, max_batch_size)"
        ) from exc


def _one_size_only(found: Sequence[Answer], refused: Sequence[Case], samples: Samples) -> list[str]:
    """Name the dynamic dimensions that the model takes at one size only."""
    notes = []
    for symbol in samples.symbols():
        sizes = {answer.case.sizes[symbol] for answer in found}
        others = sorted({case.sizes[symbol] for case in refused} - sizes)
        if symbol != samples.batch and len(sizes) == 1 and others:
            listed = " and ".join(map(str, others))
            notes.append(f"{symbol} was compared at {sizes.pop()} only: the model itself refuses {listed}")
    return notes


def check(subject: Subject, answers: Sequence[Answer], samples: Samples, tolerance: Tolerance) -> None:
    """Refuse a model whose answers depend on chance, or have no batch dimension where the server needs one.

    Raises:
        CheckFailed: With one sentence for each reason.
    """
    first = answers[0]
    again = subject.run(first.case.inputs)
    findings = [
        f"output {name!r} differs between two calls with the same input; remove what is random from forward()"
        for name, value in first.outputs.items()
        if value.shape != again[name].shape or not close(again[name], value, tolerance)
    ]
    _refuse(findings or _unbatched(answers, samples))


def check_rows(answers: Sequence[Answer], samples: Samples, tolerance: Tolerance) -> None:
    """Refuse a model that gives a row another answer in a batch than alone: the server decides who shares a batch.

    Raises:
        CheckFailed: With one sentence for each output.
    """
    single = next((answer for answer in answers if answer.case.sizes.get(str(samples.batch)) == 1), None)
    findings: dict[str, str] = {}
    for answer in answers if single else ():
        for name in answer.outputs:
            if single and _leaks(single, answer, name, tolerance):
                findings.setdefault(
                    name,
                    f"output {name!r} of one row is not the same alone and at {describe(answer.case)}: the model looks "
                    "at the other rows or at their number, so requests that the server batches together would change "
                    "each other's answers; export with max_batch_size=0",
                )
    _refuse(list(findings.values()))


def describe(case: Case) -> str:
    """Return the sizes of a case in words: `batch 3, length 12`."""
    return ", ".join(f"{symbol} {size}" for symbol, size in case.sizes.items()) or "the samples' size"


def close(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], tolerance: Tolerance) -> bool:
    """Whether every value is within the tolerance; other types than floats must be equal."""
    if not np.issubdtype(expected.dtype, np.floating):
        return bool(np.array_equal(actual, expected))
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    step = 4 * float(np.finfo(expected.dtype).eps)  # half precision cannot be nearer than this
    rtol, atol = max(tolerance.rtol, step), max(tolerance.atol, step) * scale
    return bool(np.allclose(a, b, rtol=rtol, atol=max(atol, 1e-9), equal_nan=True))


def _refuse(findings: list[str]) -> None:
    if findings:
        raise CheckFailed("; ".join(findings), findings=tuple(findings))


def _unbatched(answers: Sequence[Answer], samples: Samples) -> list[str]:
    findings: dict[str, str] = {}
    for answer in answers if samples.batch else ():
        batch = answer.case.sizes[str(samples.batch)]
        for name, value in answer.outputs.items():
            if value.ndim == 0 or value.shape[0] != batch:
                findings.setdefault(
                    name,
                    f"output {name!r} has shape {list(value.shape)} at batch {batch}; with max_batch_size > 0 its "
                    "first dimension must be the batch (a squeeze() or mean() without a dimension drops it)",
                )
    return list(findings.values())


def _leaks(single: Answer, answer: Answer, name: str, tolerance: Tolerance) -> bool:
    """Whether the first row has another answer in a batch than alone."""
    same_row = all(np.array_equal(row, answer.case.inputs[key][:1]) for key, row in single.case.inputs.items())
    alone, first = single.outputs[name], answer.outputs[name][:1]
    return same_row and alone.shape == first.shape and not close(first, alone, _loose(tolerance))


def _loose(tolerance: Tolerance) -> Tolerance:
    # Kernels differ with the batch size; ten times the tolerance still shows a row that leaks into another.
    return Tolerance(rtol=min(10 * tolerance.rtol, 0.5), atol=min(10 * tolerance.atol, 0.5))


def _first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__
