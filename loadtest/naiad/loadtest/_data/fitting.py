"""From what was found in a file to rows that fit the model, or an error that says where they do not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naiad.client import InvalidInput, TensorMetadata
from naiad.loadtest._data.codec import typed
from naiad.loadtest._data.samples import Rows, evenly
from naiad.loadtest._data.signature import Signature
from naiad.loadtest.errors import InvalidData

__all__ = ["Found", "Reading", "Where"]


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a file."""

    path: Path
    line: int | None = None
    within: str = ""
    """Such as ``"data[3]"`` in a JSON document."""

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        return f"{self.path}{line}{f', {self.within}' if self.within else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Tensors as a file has them: arrays or nested lists, of one row or of many."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any] = field(default_factory=dict)
    where: Where


@dataclass(kw_only=True, slots=True)
class Reading:
    """Reads files for one model, and keeps what is worth a note."""

    signature: Signature
    input: str | None = None
    """The input that values without a name are for, where the model has several."""
    num_found: int = 0
    """Rows there were in what was read, used or not."""
    num_resized: int = 0
    """Images that had another size than the model takes."""

    def sole_input(self, where: Where) -> TensorMetadata:
        """Return the input that values without a name are for.

        Raises:
            InvalidData: there is no such input, or several.
        """
        inputs, name = self.signature.inputs, self.input
        if name is not None:
            if name not in inputs:
                raise self.wrong(where, f"model '{self.signature.name}' has no input '{name}'; it takes {self._takes}")
            return inputs[name]
        needed = [tensor for tensor in inputs.values() if tensor.name not in self.signature.optional]
        candidates = needed or list(inputs.values())
        if len(candidates) != 1:
            raise self.wrong(
                where,
                f"model '{self.signature.name}' takes {self._takes}: say which input this is for (input = …), "
                "or give files with the names in them (.npz, .jsonl)",
            )
        return candidates[0]

    def rows(self, found: Found, most: int | None = None) -> Rows:
        """Return the rows of ``found``, at most so many of them, evenly picked.

        Raises:
            InvalidData: names, shapes or values do not fit the model.
        """
        self._check_names(found)
        inputs, outputs = self.signature.inputs, self.signature.outputs
        arrays = {name: self._stacked(inputs[name], value, found.where) for name, value in found.inputs.items()}
        expected = {name: self._stacked(outputs[name], value, found.where) for name, value in found.outputs.items()}
        number = self._number_of_rows(
            {**arrays, **{f"output {name}": array for name, array in expected.items()}}, found
        )
        self.num_found += number
        picked = np.asarray(evenly(number, number if most is None else most), np.intp)
        return Rows(
            inputs={
                name: self._typed(inputs[name], np.asarray(array[picked]), found.where)
                for name, array in arrays.items()
            },
            outputs={
                name: self._typed(outputs[name], np.asarray(array[picked]), found.where)
                for name, array in expected.items()
            },
        )

    def wrong(self, where: Where, text: str) -> InvalidData:
        """Return an error about a place in a file."""
        return InvalidData(f"{where}: {text}", model=self.signature.name, path=str(where.path))

    @property
    def _takes(self) -> str:
        return self.signature.takes

    def _check_names(self, found: Found) -> None:
        takes, gives = self.signature.inputs, self.signature.outputs
        missing = takes.keys() - found.inputs.keys() - self.signature.optional
        extra = found.inputs.keys() - takes.keys()
        if missing or extra or not found.inputs:
            names = ", ".join(sorted(found.inputs)) or "none"
            raise self.wrong(found.where, f"expected the inputs {self._takes}, found {names}")
        unknown = sorted(found.outputs.keys() - gives.keys())
        if unknown:
            known = ", ".join(map(str, gives.values()))
            raise self.wrong(found.where, f"expected outputs among {known}, found {', '.join(unknown)}")

    def _stacked(self, tensor: TensorMetadata, value: Any, where: Where) -> NDArray[Any]:
        """Return ``value`` with an axis of rows before the shape of one row; its type is not changed yet."""
        array = value if isinstance(value, np.ndarray) else self._typed(tensor, value, where)
        row = self.signature.row_shape(tensor)
        stacked = stacked_rows(array, row)
        if stacked is None:
            raise self.wrong(
                where,
                f"expected the shape {_shown(row)} for one row of {tensor.name} {tensor.datatype}, or that with the "
                f"number of rows before it, found {list(array.shape)}",
            )
        return stacked

    def _typed(self, tensor: TensorMetadata, value: Any, where: Where) -> NDArray[Any]:
        try:
            return typed(value, tensor.datatype)
        except InvalidInput as exc:
            raise self.wrong(where, f"{tensor}: {exc}") from exc

    def _number_of_rows(self, arrays: Mapping[str, NDArray[Any]], found: Found) -> int:
        numbers = {name: len(array) for name, array in arrays.items()}
        if len(set(numbers.values())) != 1:
            said = ", ".join(f"{name} {number}" for name, number in numbers.items())
            raise self.wrong(found.where, f"expected as many rows of every tensor, found {said}")
        number = next(iter(numbers.values()))
        if not number:
            raise self.wrong(found.where, "expected at least one row, found none")
        return number


def stacked_rows(array: NDArray[Any], row: tuple[int, ...]) -> NDArray[Any] | None:
    """Return the array with an axis of rows before ``row`` (-1 is any size), ``None`` if it has another shape.

    A single value is a row of one element, and a vector may be many of those.
    """
    shape = array.shape
    if _fits(shape, row):
        return array[np.newaxis]
    if shape and _fits(shape[1:], row):
        return array
    scalar_rows = all(size in (1, -1) for size in row)
    if not shape and scalar_rows:
        return array.reshape(1, *(1 for _ in row))
    if len(shape) == 1 and scalar_rows:
        return array.reshape(-1, *(1 for _ in row))
    return None


def _fits(shape: tuple[int, ...], row: tuple[int, ...]) -> bool:
    return len(shape) == len(row) and all(want in (-1, size) for want, size in zip(row, shape, strict=True))


def _shown(row: tuple[int, ...]) -> str:
    return f"[{', '.join('?' if size < 0 else str(size) for size in row)}]"


def reshaped(array: NDArray[Any], row: tuple[int, ...]) -> NDArray[Any]:
    """Return a row that was written as a flat list in its shape, anything else as it is."""
    if array.ndim == 1 and len(row) != 1 and -1 not in row and math.prod(row) == array.size:
        return array.reshape(row)
    return array
