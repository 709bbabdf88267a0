"""Samples: arrays by the names of a subject's inputs, cut or repeated into cases of every size to verify."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from naiad.export.errors import InvalidExport

Inputs = dict[str, np.ndarray[Any, Any]]
"""Arrays by input; text as arrays of objects."""
Dynamic = Mapping[str, Mapping[int, str]]

_CAPTURE_BATCHES = (3, 5, 7, 11, 13, 17, 19, 23)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Inputs of one size, to be answered by the subject and by ONNX Runtime."""

    sizes: dict[str, int]
    """By name of the dynamic dimension."""
    inputs: Inputs
    required: bool = True
    """A size that no sample has may be refused by the model itself; then the case does not count."""

    def feeds(self) -> Inputs:
        """Return the inputs as ONNX Runtime takes them."""
        return dict(self.inputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Samples of one model and the dimensions that vary."""

    rows: tuple[Inputs, ...]
    dynamic: Dynamic
    batch: str | None
    """The name of the batch dimension; None without one."""
    max_batch_size: int
    generated: bool = False
    """Whether the values were made up, because none were given."""
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.rows[0]))

    def capture(self) -> Inputs:
        """Return inputs for the capture, whose dynamic sizes are at least 2 and no input's fixed size.

        A size of 1 would be baked in as a constant, and an accidental equality as a condition.
        """
        first = self.rows[0]
        fixed = {size for array in first.values() for size in array.shape[1:]}
        sizes = {symbol: max(size, 2) for symbol, size in self._sizes(first).items()}
        if self.batch:
            sizes[self.batch] = next((size for size in _CAPTURE_BATCHES if size not in fixed), 29)
        return self._resize(first, sizes)

    def cases(self) -> Iterator[Case]:
        """Yield every case: all samples at every batch size, and other dynamic sizes beyond the samples' own."""
        for index, group in enumerate(self._groups()):
            for batch in self.batches if index == 0 else self.batches[:4]:
                yield self._case(group, {self.batch: batch} if self.batch else {})
        first = self.rows[0]
        for symbol, size in self._sizes(first).items():
            if symbol != self.batch:
                for other in sorted({max(size // 2, 1), size + 1}):
                    sizes = {symbol: other} | ({self.batch: min(2, self.max_batch_size)} if self.batch else {})
                    yield self._case(first, sizes, required=False)

    def typical(self, batch: int) -> Case:
        """Return a case of one batch size, at the length that the samples have in the middle; 0 without a batch."""
        groups = sorted(self._groups(), key=self._elements_of_a_row)
        return self._case(groups[len(groups) // 2], {self.batch: batch} if self.batch else {})

    def _elements_of_a_row(self, inputs: Inputs) -> float:
        rows = next(iter(inputs.values())).shape[0] if self.batch else 1
        return sum(array.size for array in inputs.values()) / max(rows, 1)

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes to verify: 1, 2, 3, 7 and the largest; (0,) without a batch dimension."""
        if not self.batch:
            return (0,)
        sizes = [size for size in (1, 2, 3, 7) if size <= self.max_batch_size]
        return tuple(dict.fromkeys([*sizes, self.max_batch_size]))

    def _case(self, inputs: Inputs, sizes: dict[str, int], *, required: bool = True) -> Case:
        resized = self._resize(inputs, sizes)
        return Case(sizes=self._sizes(inputs) | sizes, inputs=resized, required=required)

    def _groups(self) -> list[Inputs]:
        """Join the rows of samples whose other dimensions are equal; each other shape stays on its own."""
        if not self.batch:
            return list(self.rows)
        groups: dict[tuple[Any, ...], list[Inputs]] = {}
        for row in self.rows:
            groups.setdefault(tuple(array.shape[1:] for array in row.values()), []).append(row)
        return [{name: np.concatenate([row[name] for row in rows]) for name in self.names} for rows in groups.values()]

    def _sizes(self, inputs: Inputs) -> dict[str, int]:
        return {
            symbol: inputs[name].shape[axis] for name, axes in self.dynamic.items() for axis, symbol in axes.items()
        }

    def _resize(self, inputs: Inputs, sizes: Mapping[str, int]) -> Inputs:
        resized = {}
        for name, array in inputs.items():
            for axis, symbol in self.dynamic.get(name, {}).items():
                if symbol in sizes:
                    array = array.take(np.arange(sizes[symbol]) % array.shape[axis], axis=axis)
            resized[name] = array
        return resized


def arrange(rows: tuple[Inputs, ...], dynamic: Dynamic, max_batch_size: int, *, generated: bool = False) -> Samples:
    """Check that samples fit together and with the dimensions that vary, and find the batch among these.

    Raises:
        InvalidExport: They contradict each other, or `dynamic`.
    """
    _check_alike(rows)
    _check_dynamic(rows[0], dynamic)
    batch = _batch_symbol(rows, dynamic) if max_batch_size else None
    return Samples(rows=rows, dynamic=dynamic, batch=batch, max_batch_size=max_batch_size, generated=generated)


def _check_alike(rows: tuple[Inputs, ...]) -> None:
    first = rows[0]
    for index, row in enumerate(rows):
        if list(row) != list(first):
            raise InvalidExport(
                f"sample {index} has the inputs {list(row)}, sample 0 has {list(first)}; an optional input is given in "
                "every sample or in none"
            )
        for name, array in row.items():
            if array.dtype != first[name].dtype or array.ndim != first[name].ndim:
                raise InvalidExport(
                    f"input {name!r} is {array.dtype} of rank {array.ndim} in sample {index} and "
                    f"{first[name].dtype} of rank {first[name].ndim} in sample 0"
                )


def _check_dynamic(inputs: Inputs, dynamic: Dynamic) -> None:
    for name, axes in dynamic.items():
        if name not in inputs:
            raise InvalidExport(f"dynamic names the input {name!r}; the model has {list(inputs)}")
        for axis, symbol in axes.items():
            if not 0 <= axis < inputs[name].ndim or not isinstance(symbol, str):
                raise InvalidExport(
                    f"dynamic[{name!r}] has {{{axis!r}: {symbol!r}}}; expected a dimension from 0 to "
                    f"{inputs[name].ndim - 1} and a name for it, as in {{0: 'batch'}}"
                )


def _batch_symbol(rows: tuple[Inputs, ...], dynamic: Dynamic) -> str:
    symbols = {name: dynamic.get(name, {}).get(0) for name in rows[0]}
    distinct = set(symbols.values())
    if None in distinct or len(distinct) != 1:
        name = next((name for name, symbol in symbols.items() if symbol is None), next(iter(symbols)))
        raise InvalidExport(
            f"with max_batch_size > 0 the first dimension of every input is the batch, under one name; input {name!r} "
            f"has {symbols[name]!r}. Give dynamic={{{name!r}: {{0: 'batch'}}}}, or max_batch_size=0"
        )
    for index, row in enumerate(rows):
        sizes = {name: array.shape[0] for name, array in row.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise InvalidExport(f"the inputs of sample {index} have different batch sizes, or none: {sizes}")
    return str(symbols[next(iter(symbols))])
