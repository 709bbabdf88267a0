"""The samples a load test sends: random ones made from the model's metadata, or the golden ones of a version."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from naiad.client import ModelMetadata, TensorMetadata
from naiad.loadtest._codec import numpy_dtype
from naiad.loadtest.errors import InvalidData
from naiad.loadtest.plan import Traffic

__all__ = ["Sample", "Signature", "make_samples"]

DYNAMIC_SIZE: Final = 16  # of a dynamic dimension for which nothing was said
STRING_LENGTH: Final = 16
HIGHEST_INTEGER: Final = 9  # small, so that the values are valid indices for most embeddings
_MAX_SAMPLES: Final = 64
_MAX_SAMPLES_BYTES: Final = 64 << 20
_ALPHABET: Final = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """What a model takes and gives; shapes hold -1 where a size may vary, first of all that of the batch."""

    metadata: ModelMetadata
    max_batch_size: int = 0
    optional: frozenset[str] = frozenset()
    """Names of the inputs a request may leave out."""

    @property
    def batching(self) -> bool:
        """Whether the first dimension of every tensor is the batch."""
        return self.max_batch_size > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One request's inputs and, where they are known, the outputs to expect."""

    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def make_samples(traffic: Traffic, signature: Signature) -> list[Sample]:
    """Return the samples that ``traffic`` asks for, at least one.

    Raises:
        InvalidData: they do not fit the model.
    """
    _check_batch(traffic, signature)
    if traffic.golden is not None:
        return _golden_samples(traffic.golden, traffic.batch, signature)
    return _random_samples(traffic, signature)


def _check_batch(traffic: Traffic, signature: Signature) -> None:
    model, limit = signature.metadata.name, signature.max_batch_size
    if traffic.batch > max(limit, 1):
        found = f"at most {limit}" if limit else "1 (the model does not batch: max_batch_size is 0)"
        raise InvalidData(f"expected a batch of {found} for model '{model}', found {traffic.batch}", model=model)
    unknown = set(traffic.shapes) - {tensor.name for tensor in signature.metadata.inputs}
    if unknown:
        takes = ", ".join(map(str, signature.metadata.inputs))
        raise InvalidData(f"model '{model}' has no input {', '.join(sorted(unknown))}; it takes {takes}", model=model)


def _random_samples(traffic: Traffic, signature: Signature) -> list[Sample]:
    generator = np.random.default_rng(traffic.seed)
    shapes = {tensor.name: _shape(tensor, traffic, signature) for tensor in signature.metadata.inputs}
    size_bytes = sum(8 * math.prod(shape) for shape in shapes.values())
    num_samples = max(1, min(_MAX_SAMPLES, _MAX_SAMPLES_BYTES // max(size_bytes, 1)))
    return [
        Sample(
            inputs={
                tensor.name: _random(tensor.datatype, shapes[tensor.name], generator)
                for tensor in signature.metadata.inputs
            }
        )
        for _ in range(num_samples)
    ]


def _shape(tensor: TensorMetadata, traffic: Traffic, signature: Signature) -> tuple[int, ...]:
    declared = tensor.shape[1:] if signature.batching else tensor.shape
    given = traffic.shapes.get(tensor.name, tuple(DYNAMIC_SIZE if dim < 0 else dim for dim in declared))
    fits = len(given) == len(declared) and all(want in (-1, size) for want, size in zip(declared, given, strict=True))
    if not fits:
        raise InvalidData(
            f"expected the shape {list(declared)} (-1 is any size; without the batch) for input {tensor}, "
            f"found {list(given)}",
            model=signature.metadata.name,
        )
    return (traffic.batch, *given) if signature.batching else given


def _random(datatype: str, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[Any]:
    dtype = numpy_dtype(datatype)
    if dtype is None:
        raise InvalidData(f"expected one of Triton's data types, found {datatype!r}")
    if datatype == "BYTES":
        letters = generator.choice(_ALPHABET, (math.prod(shape), STRING_LENGTH))
        strings = np.empty(math.prod(shape), np.object_)
        strings[:] = [row.tobytes() for row in letters]
        return strings.reshape(shape)
    if datatype == "BOOL":
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return generator.integers(0, HIGHEST_INTEGER, shape, endpoint=True).astype(dtype)
    return generator.random(shape, np.float32).astype(dtype)


Case = dict[str, dict[str, NDArray[Any]]]  # {"input": {tensor: values}, "output": {…}}


def _golden_samples(path: Path, batch: int, signature: Signature) -> list[Sample]:
    cases = [_typed(case, path, signature) for case in _read_cases(path)]
    if not signature.batching:
        return cases[:_MAX_SAMPLES]
    samples: list[Sample] = []
    for pool in _pools(cases):
        num_rows = len(next(iter(pool.inputs.values())))
        for start in range(0, num_rows, batch):
            samples.append(_rows(pool, np.arange(start, start + batch) % num_rows))
    return samples[:_MAX_SAMPLES]


def _read_cases(path: Path) -> list[Case]:
    """Read the arrays ``input/<case>/<tensor>`` and ``output/<case>/<tensor>``."""
    cases: dict[str, Case] = {}
    try:
        with path.open("rb") as file:  # NumPy leaves a broken archive open
            for key, array in np.lib.npyio.NpzFile(file).items():
                kind, _, rest = key.partition("/")
                number, _, tensor = rest.partition("/")
                if kind in {"input", "output"} and tensor:
                    cases.setdefault(number, {"input": {}, "output": {}})[kind][tensor] = array
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise InvalidData(
            f"expected a version's golden.npz at {path}, could not read it: {exc}", path=str(path)
        ) from exc
    found = [case for _, case in sorted(cases.items()) if case["input"]]
    if not found:
        raise InvalidData(f"expected arrays named input/<case>/<tensor> in {path}, found none", path=str(path))
    return found


def _typed(case: Case, path: Path, signature: Signature) -> Sample:
    """Give a case the model's data types; refuse what the model would refuse."""
    takes = {tensor.name: tensor for tensor in signature.metadata.inputs}
    missing = takes.keys() - case["input"].keys() - signature.optional
    extra = case["input"].keys() - takes.keys()
    if missing or extra:
        raise InvalidData(
            f"expected samples of the inputs {', '.join(map(str, takes.values()))}, found "
            f"{', '.join(sorted(case['input']))} in {path}: these golden samples are of another model",
            model=signature.metadata.name,
            path=str(path),
        )
    inputs = {name: _as(takes[name], array, path) for name, array in case["input"].items()}
    gives = {tensor.name: tensor for tensor in signature.metadata.outputs}
    outputs = {name: _as(gives[name], array, path) for name, array in case["output"].items() if name in gives}
    return Sample(inputs=inputs, outputs=outputs)


def _as(tensor: TensorMetadata, array: NDArray[Any], path: Path) -> NDArray[Any]:
    dims_fit = len(array.shape) == len(tensor.shape) and all(
        want in (-1, size) for want, size in zip(tensor.shape, array.shape, strict=True)
    )
    dtype = numpy_dtype(tensor.datatype)
    if (
        dtype is not None
        and array.dtype.kind in "Vu"
        and tensor.datatype == "BF16"
        and array.dtype.itemsize == dtype.itemsize
    ):
        array = array.view(dtype)  # .npz has no bfloat16: it stores the bits
    strings = tensor.datatype == "BYTES" and array.dtype.kind in "SU"
    if not dims_fit or not (strings or array.dtype == dtype):
        raise InvalidData(
            f"expected {tensor}, found {array.dtype} {list(array.shape)} in {path}: "
            "these golden samples do not fit the model",
            path=str(path),
        )
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    return array.astype(np.object_) if strings else array


def _pools(cases: Sequence[Sample]) -> list[Sample]:
    """Put the rows of all cases together whose tensors have the same shapes but for the batch."""
    groups: dict[tuple[Any, ...], list[Sample]] = {}
    for case in cases:
        tensors = [*case.inputs.items(), *case.outputs.items()]
        groups.setdefault(tuple((name, array.shape[1:]) for name, array in tensors), []).append(case)
    return [_joined(group) for group in groups.values()]


def _joined(cases: Sequence[Sample]) -> Sample:
    first = cases[0]
    return Sample(
        inputs={name: np.concatenate([case.inputs[name] for case in cases]) for name in first.inputs},
        outputs={name: np.concatenate([case.outputs[name] for case in cases]) for name in first.outputs},
    )


def _rows(pool: Sample, rows: NDArray[np.intp]) -> Sample:
    return Sample(
        inputs={name: array[rows] for name, array in pool.inputs.items()},
        outputs={name: array[rows] for name, array in pool.outputs.items()},
    )
