"""PyTorch's own answers to every case: the truth that the exported graph is compared with."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from naiad.export._source.samples import Case, Inputs, Samples
from naiad.export.errors import CheckFailed, InvalidExport
from naiad.export.report import Tolerance

Arrays = dict[str, np.ndarray[Any, Any]]

DATATYPES: dict[torch.dtype, str] = {
    torch.float16: "FP16",
    torch.float32: "FP32",
    torch.float64: "FP64",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.uint8: "UINT8",
    torch.bool: "BOOL",
}

_DIFFER_IN_TRAINING = (torch.nn.modules.dropout._DropoutNd, torch.nn.modules.batchnorm._NormBase)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One case with PyTorch's outputs by name."""

    case: Case
    outputs: Arrays


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[bool]:
    """Put every part of the model in eval mode, restore each afterwards, and say whether that changes the answers."""
    training = [module for module in model.modules() if module.training]
    differs = any(isinstance(module, _DIFFER_IN_TRAINING) for module in training)
    model.eval()
    try:
        with torch.no_grad():
            yield differs
    finally:
        for module in training:
            module.training = True


def answers(model: torch.nn.Module, samples: Samples, names: Sequence[str] | None) -> tuple[Answer, ...]:
    """Run every case in PyTorch.

    Raises:
        CheckFailed: The model itself fails at a size it would be served at.
        InvalidExport: An output is not a tensor that Triton knows, or `names` does not fit the outputs.
    """
    _check_datatypes(samples.rows[0])
    if names is not None and set(names) & set(samples.names):
        raise InvalidExport(
            f"an output cannot have the name of an input; found {sorted(set(names) & set(samples.names))}"
        )
    found = []
    for case in samples.cases():
        try:
            outputs = model(**{name: tensor.clone() for name, tensor in case.inputs.items()})
        except Exception as exc:  # whatever a foreign forward() raises
            if not case.required:
                continue
            raise CheckFailed(
                f"{type(model).__name__} itself fails in PyTorch at {describe(case)}: {_first_line(exc)}. "
                "A constant in view() or reshape(), or squeeze() without a dimension, is the usual reason; "
                "correct the model, or declare the sizes it takes (dynamic, max_batch_size)"
            ) from exc
        named = _named(outputs, names)
        found.append(Answer(case=case, outputs={_distinct(name, samples): value for name, value in named.items()}))
    return tuple(found)


def check(model: torch.nn.Module, answers: Sequence[Answer], samples: Samples, tolerance: Tolerance) -> None:
    """Refuse a model whose answers depend on chance, or have no batch dimension where the server needs one.

    Raises:
        CheckFailed: With one sentence for each reason.
    """
    first = answers[0]
    again = _named(model(**first.case.inputs), tuple(first.outputs))
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
    same_row = all(torch.equal(row, answer.case.inputs[key][:1]) for key, row in single.case.inputs.items())
    alone, first = single.outputs[name], answer.outputs[name][:1]
    return same_row and alone.shape == first.shape and not close(first, alone, _loose(tolerance))


def _loose(tolerance: Tolerance) -> Tolerance:
    # Kernels differ with the batch size; ten times the tolerance still shows a row that leaks into another.
    return Tolerance(rtol=min(10 * tolerance.rtol, 0.5), atol=min(10 * tolerance.atol, 0.5))


def _named(outputs: Any, names: Sequence[str] | None) -> Arrays:
    leaves, _ = pytree.tree_flatten_with_path(outputs)
    tensors = [(path, leaf) for path, leaf in leaves if leaf is not None]
    found = [_name(path, index, len(tensors)) for index, (path, _) in enumerate(tensors)]
    if names is not None and len(names) != len(tensors):
        raise InvalidExport(f"the model has {len(tensors)} outputs ({', '.join(found)}); {len(names)} names were given")
    chosen = list(names) if names is not None else found
    if len(set(chosen)) != len(chosen) or not chosen:
        raise InvalidExport(f"the outputs need distinct names; found {chosen}")
    return {name: _array(name, leaf) for name, (_, leaf) in zip(chosen, tensors, strict=True)}


def _distinct(name: str, samples: Samples) -> str:
    """Return the name of an output that ONNX can tell from the inputs: a state goes in as `h` and out as `h_out`."""
    return f"{name}_out" if name in samples.names else name


def _name(path: tuple[Any, ...], index: int, count: int) -> str:
    """Return the name of an output by its place: a dict's key, a named tuple's field, else its number."""
    parts = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path]
    words = [re.sub(r"\W+", "_", part) for part in parts if part]
    if words and not words[0].isdigit():
        return "_".join(words)
    return "output" if count == 1 else f"output_{index}"


def _array(name: str, leaf: Any) -> np.ndarray[Any, Any]:
    if not isinstance(leaf, torch.Tensor):
        raise InvalidExport(f"output {name!r} is {type(leaf).__name__}; expected a tensor, which is all Triton returns")
    _check_datatype("output", name, leaf)
    return leaf.detach().cpu().contiguous().numpy()


def _check_datatypes(inputs: Inputs) -> None:
    for name, tensor in inputs.items():
        _check_datatype("input", name, tensor)


def _check_datatype(kind: str, name: str, tensor: torch.Tensor) -> None:
    if tensor.dtype not in DATATYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DATATYPES)
        raise InvalidExport(
            f"{kind} {name!r} is {tensor.dtype}; expected one of {known}: cast it in the model's forward()"
        )


def _first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__
