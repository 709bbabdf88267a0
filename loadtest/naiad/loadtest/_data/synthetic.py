"""Random samples made from the model's metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from naiad.client import TensorMetadata
from naiad.loadtest._data.codec import numpy_dtype
from naiad.loadtest._data.samples import MAX_BYTES, Sample, Samples, size_bytes
from naiad.loadtest._data.signature import Signature
from naiad.loadtest.errors import InvalidData
from naiad.loadtest.plan import Synthetic

__all__ = ["synthetic_samples"]

DYNAMIC_SIZE: Final = 16  # of a dynamic dimension for which nothing was said
STRING_LENGTHS: Final = (16, 16)
HIGHEST_INTEGER: Final = 9  # small, so that the values are valid indices for most embeddings
_ALPHABET: Final = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)


def synthetic_samples(data: Synthetic, signature: Signature, *, batch: int, seed: int) -> Samples:
    """Return random samples, the same ones for the same seed.

    Inputs that may be left out are, unless ``data`` says something about them.

    Raises:
        InvalidData: ``data`` does not fit the model.
    """
    _check_names(data, signature)
    said = {*data.shapes, *data.ranges, *data.string_lengths}
    inputs = signature.inputs
    tensors = [tensor for name, tensor in inputs.items() if name in said or name not in signature.optional]
    makers = [_Maker(tensor, data, signature, batch) for tensor in tensors or inputs.values()]
    generator = np.random.default_rng(seed)
    samples, total_bytes = list[Sample](), 0
    while len(samples) < data.num_samples and (not samples or total_bytes < MAX_BYTES):
        sample = Sample(inputs={maker.name: maker.make(generator) for maker in makers})
        total_bytes += sum(map(size_bytes, sample.inputs.values()))
        samples.append(sample)
    notes = []
    if len(samples) < data.num_samples:
        notes.append(
            f"{len(samples)} different requests instead of {data.num_samples}: they have {MAX_BYTES >> 20} MiB"
        )
    return Samples(samples=samples, notes=notes)


def _check_names(data: Synthetic, signature: Signature) -> None:
    given: dict[str, Mapping[str, Any]] = {
        "shapes": data.shapes,
        "ranges": data.ranges,
        "string_lengths": data.string_lengths,
    }
    for what, values in given.items():
        unknown = sorted(values.keys() - signature.inputs.keys())
        if unknown:
            raise InvalidData(
                f"{what}: model '{signature.name}' has no input {', '.join(unknown)}; it takes {signature.takes}",
                model=signature.name,
            )


class _Maker:
    """Makes the values of one input."""

    def __init__(self, tensor: TensorMetadata, data: Synthetic, signature: Signature, batch: int) -> None:
        self.name = tensor.name
        dtype = numpy_dtype(tensor.datatype)
        if dtype is None:
            raise InvalidData(f"expected one of Triton's data types for input {tensor}", model=signature.name)
        self._tensor, self._dtype, self._model = tensor, dtype, signature.name
        row = self._row_shape(data, signature.row_shape(tensor))
        self._shape = (batch, *row) if signature.batching else row
        self._lengths = data.string_lengths.get(tensor.name)
        self._range = data.ranges.get(tensor.name)
        self._low, self._high = self._limits()

    def make(self, generator: np.random.Generator) -> NDArray[Any]:
        """Return new values."""
        if self._dtype.hasobject:
            return self._strings(generator)
        if self._dtype.kind == "b":
            return generator.integers(0, 2, self._shape).astype(np.bool_)
        if self._dtype.kind in "iu":
            low, high = math.ceil(self._low), math.floor(self._high)
            return generator.integers(low, high, self._shape, self._dtype, endpoint=True)
        if self._range is None:
            return generator.random(self._shape, np.float32).astype(self._dtype)
        return generator.uniform(self._low, self._high, self._shape).astype(self._dtype)

    def _row_shape(self, data: Synthetic, declared: tuple[int, ...]) -> tuple[int, ...]:
        given = data.shapes.get(self.name, tuple(DYNAMIC_SIZE if dim < 0 else dim for dim in declared))
        if len(given) != len(declared) or any(
            want not in (-1, size) for want, size in zip(declared, given, strict=True)
        ):
            raise self._wrong(f"the shape {list(declared)} (-1 is any size; without the batch)", list(given))
        return tuple(given)

    def _limits(self) -> tuple[float, float]:
        strings = self._dtype.hasobject
        if self._lengths is not None and not strings:
            raise self._wrong("string_lengths for inputs of strings (BYTES) only", self._tensor.datatype)
        if self._range is None:
            return (0, HIGHEST_INTEGER)
        if strings or self._dtype.kind == "b":
            raise self._wrong("a range for numbers only", self._tensor.datatype)
        low, high = self._range
        lowest, highest = _limits_of(self._dtype)
        if not (lowest <= low and high <= highest):
            raise self._wrong(f"a range within {lowest:g} to {highest:g}", f"{low:g} to {high:g}")
        if self._dtype.kind in "iu" and math.ceil(low) > math.floor(high):
            raise self._wrong("a range with a whole number in it", f"{low:g} to {high:g}")
        return low, high

    def _strings(self, generator: np.random.Generator) -> NDArray[Any]:
        number = math.prod(self._shape)
        low, high = self._lengths or STRING_LENGTHS
        lengths = generator.integers(low, high, number, endpoint=True)
        letters = generator.choice(_ALPHABET, int(lengths.sum())).tobytes()
        ends = np.cumsum(lengths)
        strings = np.empty(number, np.object_)
        strings[:] = [letters[end - size : end] for size, end in zip(lengths.tolist(), ends.tolist(), strict=True)]
        return strings.reshape(self._shape)

    def _wrong(self, expected: str, found: object) -> InvalidData:
        return InvalidData(f"input {self._tensor}: expected {expected}, found {found}", model=self._model)


def _limits_of(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind in "iu":
        whole = np.iinfo(dtype)
        return whole.min, whole.max
    limits = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return float(limits.min), float(limits.max)
