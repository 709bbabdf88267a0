"""How far two tensors are apart: absolute, relative and by direction, with NaN and infinity in their places."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from naiad.export.report import Tolerance

Array = np.ndarray[Any, Any]

_DIRECTION_FLOOR = 1e-2
"""A row whose norm is below this share of the largest row's has no direction worth comparing."""
_NEXT_TO_ZERO = 1e-9
"""What an output may be that is zero everywhere in PyTorch."""
_EPS_STEPS = 4
"""An output cannot be nearer than a few steps of its own type, whatever tolerance was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One output of one case, compared."""

    ok: bool
    max_abs_error: float
    max_rel_error: float
    """The largest absolute error divided by the output's scale."""
    cosine: float | None
    """The least cosine similarity of a row; None for integers, and where a direction means nothing."""
    row: int
    """The first index of the value that is furthest beyond the tolerance, or nearest to it."""
    reason: str = ""
    """What is beyond the tolerance, in words; empty when all is well."""


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether values of this type are compared within a tolerance: NumPy's floats, bfloat16 and the 8-bit floats."""
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def scale_of(values: Array) -> float:
    """Return the largest finite magnitude of a tensor, 0 for one that has none."""
    if not is_float(values.dtype) or not values.size:
        return 0.0
    magnitudes = np.abs(values.astype(np.float64))
    return float(magnitudes[np.isfinite(magnitudes)].max(initial=0.0))


def difference(actual: Array, expected: Array, tolerance: Tolerance, scale: float) -> Difference:
    """Compare one tensor; `scale` is the magnitude that `atol` refers to. Other types than floats must be equal."""
    if actual.shape != expected.shape:
        return _other_shape(actual, expected)
    if not is_float(expected.dtype):
        return _exact(actual, expected)
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    errors = _errors(a, b)
    limits = _limits(b, expected.dtype, tolerance, scale)
    largest = float(errors.max(initial=0.0))
    cosine, turned = _least_cosine(a, b)
    reason = _reason(a, b, errors, limits, cosine, tolerance, scale)
    worst = _row_of(errors - limits, errors.shape) if errors.size else 0
    if reason and not (errors > limits).any():
        worst = turned
    return Difference(
        ok=not reason,
        max_abs_error=largest,
        max_rel_error=largest / scale if scale else largest,
        cosine=cosine,
        row=worst,
        reason=reason,
    )


def _other_shape(actual: Array, expected: Array) -> Difference:
    return Difference(
        ok=False,
        max_abs_error=float("inf"),
        max_rel_error=float("inf"),
        cosine=None,
        row=0,
        reason=f"it has shape {list(actual.shape)} in ONNX Runtime and {list(expected.shape)} in PyTorch",
    )


def _exact(actual: Array, expected: Array) -> Difference:
    differs = np.atleast_1d(actual != expected)
    if not differs.any():
        return Difference(ok=True, max_abs_error=0.0, max_rel_error=0.0, cosine=None, row=0)
    count, first = int(differs.sum()), tuple(int(index) for index in np.argwhere(differs)[0])
    pair = f"{np.atleast_1d(actual)[first]!s} instead of {np.atleast_1d(expected)[first]!s} at {list(first)}"
    largest = 1.0
    if expected.dtype.kind in "iu":
        largest = float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max())
    return Difference(
        ok=False,
        max_abs_error=largest,
        max_rel_error=count / differs.size,
        cosine=None,
        row=first[0],
        reason=f"{count} of {differs.size} values differ ({pair}); {expected.dtype} must be equal",
    )


def _errors(a: Array, b: Array) -> Array:
    """Return absolute errors; infinite where a NaN or an infinity is not in its place."""
    with np.errstate(invalid="ignore", over="ignore"):
        errors: Array = np.asarray(np.abs(a - b))
    errors[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    errors[np.isnan(errors)] = np.inf
    return errors


def _limits(b: Array, dtype: np.dtype[Any], tolerance: Tolerance, scale: float) -> Array:
    step = _EPS_STEPS * float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]
    finite = np.where(np.isfinite(b), np.abs(b), 0.0)
    least = max(tolerance.atol, step) * scale if scale else _NEXT_TO_ZERO
    limits: Array = least + max(tolerance.rtol, step) * finite
    return limits


def _reason(
    a: Array, b: Array, errors: Array, limits: Array, cosine: float | None, tolerance: Tolerance, scale: float
) -> str:
    for what, test in (("NaN", np.isnan), ("infinity", np.isinf)):
        wrong = test(a) & ~test(b)
        if wrong.any():
            place = list(map(int, np.argwhere(np.atleast_1d(wrong))[0]))
            return f"it has {int(wrong.sum())} × {what} where PyTorch has numbers, first at {place}"
    if np.isinf(errors).any():
        return "PyTorch's NaN or infinity is not in the same places"
    if (errors > limits).any():
        largest = float(errors.max())
        share = f" ({largest / scale:.3g} of the largest value)" if scale else ""
        return (
            f"the largest error is {largest:.3g}{share}, expected at most {tolerance.atol:g} of it plus "
            f"{tolerance.rtol:g} of each value"
        )
    if cosine is not None and cosine < tolerance.cosine:
        return f"the least cosine similarity of a row is {cosine:.5f}, expected at least {tolerance.cosine:g}"
    return ""


def _row_of(values: Array, shape: tuple[int, ...]) -> int:
    return int(np.unravel_index(int(np.argmax(values)), shape)[0]) if shape else 0


def _least_cosine(a: Array, b: Array) -> tuple[float | None, int]:
    """Return the least cosine over rows of several values, and its row; rows of one value are one vector together."""
    rows = b.shape[0] if b.ndim > 1 and b.size > b.shape[0] else 1
    if b.size < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None, 0
    a, b = a.reshape(rows, -1), b.reshape(rows, -1)
    norms = np.linalg.norm(b, axis=1)
    kept = norms > _DIRECTION_FLOOR * norms.max()
    if not kept.any():
        return None, 0
    product = np.linalg.norm(a[kept], axis=1) * norms[kept]
    dots = (a[kept] * b[kept]).sum(axis=1)
    cosines = np.divide(dots, product, out=np.zeros_like(dots), where=product > 0)
    least = int(np.argmin(cosines))
    return float(np.clip(cosines[least], -1.0, 1.0)), int(np.flatnonzero(kept)[least])
