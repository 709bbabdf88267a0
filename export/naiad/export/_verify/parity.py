"""The parity gate: ONNX Runtime must answer every case as PyTorch did."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from naiad.export._runtime.session import session
from naiad.export._source.reference import Answer, Arrays, close, describe
from naiad.export._source.samples import Samples
from naiad.export.errors import VerificationFailed
from naiad.export.report import OutputParity, Tolerance


def verify(
    path: Path, samples: Samples, answers: Sequence[Answer], tolerance: Tolerance, *, model: str
) -> tuple[OutputParity, ...]:
    """Compare every case, and return the largest differences by output.

    Raises:
        VerificationFailed: An output is beyond the tolerance, or the graph cannot be run.
    """
    runtime = _open(path, model)
    worst: dict[str, OutputParity] = {}
    for answer in answers:
        batch = answer.case.sizes.get(str(samples.batch), 0)
        actual = _run(runtime, answer, batch, model)
        for name, expected in answer.outputs.items():
            parity = _compare(name, actual[name], expected, batch)
            if actual[name].shape != expected.shape or not close(actual[name], expected, tolerance):
                raise _failure(parity, actual[name], expected, answer, tolerance, model)
            if name not in worst or parity.max_rel_error > worst[name].max_rel_error:
                worst[name] = parity
    return tuple(worst.values())


def _open(path: Path, model: str) -> Any:
    try:
        return session(path)
    except Exception as exc:  # ONNX Runtime's errors share no public base class
        raise VerificationFailed(f"ONNX Runtime cannot load the graph of {model}: {exc}", model=model) from exc


def _run(runtime: Any, answer: Answer, batch: int, model: str) -> Arrays:
    names = [output.name for output in runtime.get_outputs()]
    try:
        return dict(zip(names, runtime.run(names, answer.case.feeds()), strict=True))
    except Exception as exc:  # as above
        raise VerificationFailed(
            f"{model} runs in PyTorch at {describe(answer.case)} and fails in ONNX Runtime: {exc}; "
            "nothing was published",
            model=model,
            batch=batch,
        ) from exc


def _compare(name: str, actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], batch: int) -> OutputParity:
    absolute = relative = 0.0
    if actual.shape != expected.shape:
        absolute = relative = float("inf")
    elif expected.size:
        a, b = actual.astype(np.float64), expected.astype(np.float64)
        with np.errstate(invalid="ignore"):
            difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        absolute = float("inf") if np.isnan(difference).any() else float(difference.max())
        scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
        relative = absolute / scale if scale else absolute
    return OutputParity(output=name, max_abs_error=absolute, max_rel_error=relative, worst_batch=batch)


def _failure(
    parity: OutputParity,
    actual: np.ndarray[Any, Any],
    expected: np.ndarray[Any, Any],
    answer: Answer,
    tolerance: Tolerance,
    model: str,
) -> VerificationFailed:
    name = parity.output
    if actual.shape != expected.shape:
        found = f"it has shape {list(actual.shape)} in ONNX Runtime and {list(expected.shape)} in PyTorch"
    else:
        found = (
            f"the largest error is {parity.max_abs_error:.3g} ({parity.max_rel_error:.3g} of the largest value), "
            f"expected at most {tolerance.atol:g} of it plus {tolerance.rtol:g} of each value"
        )
    return VerificationFailed(
        f"output {name!r} of {model} differs from PyTorch at {describe(answer.case)}: {found}; nothing was published",
        model=model,
        output=name,
        batch=parity.worst_batch,
        max_abs_error=parity.max_abs_error,
        max_rel_error=parity.max_rel_error,
    )
