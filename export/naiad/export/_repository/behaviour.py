"""What two versions answer to the same requests, in ONNX Runtime: the golden inputs of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from naiad.export._repository import golden as _golden
from naiad.export.errors import InvalidModel

Array = np.ndarray[Any, Any]


class Runnable(NamedTuple):
    """The files of a version."""

    directory: Path
    filename: str
    manifest: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerDifference:
    """How far two versions' answers are apart in one output, over all requests."""

    output: str
    max_abs_difference: float
    max_rel_difference: float
    """Relative to the largest value of the first version; for integers and text the share of values that differ."""
    num_rows: int
    num_changed: int | None
    """Rows whose largest value is at another place, or whose integers or text differ; None for single floats."""

    @property
    def changed_share(self) -> float | None:
        """The share of rows that would be decided otherwise, 0 to 1."""
        return None if self.num_changed is None else self.num_changed / max(self.num_rows, 1)


class Behaviour(NamedTuple):
    """The outcome of running two versions."""

    answers: tuple[AnswerDifference, ...]
    num_requests: int
    note: str


NOT_RUN = Behaviour((), 0, "not asked for")


def compare(a: Runnable, b: Runnable) -> Behaviour:
    """Run both versions with the golden inputs of both; a note says where that is not possible."""
    missing = [
        each for each in (a, b) if not each.filename.endswith(".onnx") or not (each.directory / each.filename).exists()
    ]
    if missing:
        return Behaviour((), 0, "one of them is no ONNX graph, so they cannot be run here")
    try:
        pairs = [pair for each in (a, b) for pair in _golden.read(each.directory / _golden.FILE, _types(each))]
    except InvalidModel as error:
        return Behaviour((), 0, str(error))
    requests = _distinct([pair.inputs for pair in pairs])
    if len({tuple(sorted((name, array.dtype.str) for name, array in each.items())) for each in requests}) != 1:
        return Behaviour((), 0, "their inputs differ, so no request fits both")
    try:
        answers = [_run(each, requests) for each in (a, b)]
    except Exception as exc:  # noqa: BLE001 - ONNX Runtime's errors share no public base class
        return Behaviour((), 0, f"ONNX Runtime cannot run them with the same requests: {_first_line(exc)}")
    names = [name for name in answers[0][0] if name in answers[1][0]]
    compared = tuple(
        _difference(name, [one[name] for one in answers[0]], [one[name] for one in answers[1]]) for name in names
    )
    return Behaviour(compared, len(requests), "" if names else "they have no output in common")


def _run(version: Runnable, requests: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    from naiad.export._runtime.session import session

    runtime = session(version.directory / version.filename)
    names = [output.name for output in runtime.get_outputs()]
    return [dict(zip(names, runtime.run(names, _feeds(each)), strict=True)) for each in requests]


def _feeds(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return inputs as ONNX Runtime takes them: text as objects that are strings."""
    return {
        name: np.array([each.decode() for each in array.flat], object).reshape(array.shape)
        if array.dtype == object
        else array
        for name, array in inputs.items()
    }


def _types(version: Runnable) -> dict[str, str]:
    manifest = version.manifest
    return {tensor["name"]: tensor["dtype"] for kind in ("inputs", "outputs") for tensor in manifest.get(kind, ())}


def _distinct(requests: Sequence[Mapping[str, Array]]) -> list[Mapping[str, Array]]:
    """Leave out requests that both versions brought."""
    found: list[Mapping[str, Array]] = []
    for each in requests:
        if not any(_equal(each, other) for other in found):
            found.append(each)
    return found


def _equal(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def _difference(name: str, before: Sequence[Array], after: Sequence[Array]) -> AnswerDifference:
    if any(a.shape != b.shape for a, b in zip(before, after, strict=True)):
        rows = sum(_num_rows(array) for array in before)
        infinite = float("inf")
        return AnswerDifference(
            output=name, max_abs_difference=infinite, max_rel_difference=infinite, num_rows=rows, num_changed=rows
        )
    pairs = [(_rows(a), _rows(b)) for a, b in zip(before, after, strict=True)]
    if before[0].dtype.kind != "f" or after[0].dtype.kind != "f":
        return _exact(name, pairs)
    errors = [np.abs(a.astype(np.float64) - b.astype(np.float64)) for a, b in pairs]
    errors = [
        np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, error)
        for error, (a, b) in zip(errors, pairs, strict=True)
    ]
    largest = max((float(np.nan_to_num(error, nan=np.inf).max(initial=0.0)) for error in errors), default=0.0)
    scale = max((float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) for a, _ in pairs), default=0.0)
    decides = all(a.shape[-1] > 1 for a, _ in pairs)
    changed = sum(int((a.argmax(-1) != b.argmax(-1)).sum()) for a, b in pairs) if decides else None
    return AnswerDifference(
        output=name,
        max_abs_difference=largest,
        max_rel_difference=largest / scale if scale else largest,
        num_rows=sum(len(a) for a, _ in pairs),
        num_changed=changed,
    )


def _exact(name: str, pairs: Sequence[tuple[Array, Array]]) -> AnswerDifference:
    differs = [a != b for a, b in pairs]
    total, count = sum(each.size for each in differs), sum(int(each.sum()) for each in differs)
    numeric = all(array.dtype.kind in "iufb" for pair in pairs for array in pair)
    largest = (
        max((float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0)) for a, b in pairs))
        if numeric
        else float(count > 0)
    )
    return AnswerDifference(
        output=name,
        max_abs_difference=largest,
        max_rel_difference=count / max(total, 1),
        num_rows=sum(len(a) for a, _ in pairs),
        num_changed=sum(int(each.any(-1).sum()) for each in differs),
    )


def _rows(array: Array) -> Array:
    """Return an array as rows of its last dimension; single values are rows of one."""
    return array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(-1, 1)


def _num_rows(array: Array) -> int:
    return len(_rows(array))


def _first_line(exc: Exception) -> str:
    return next(iter(str(exc).strip().splitlines()), type(exc).__name__)
