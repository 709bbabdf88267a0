"""Samples: arrays by the names of a subject's inputs, cut or repeated into cases of every size to verify."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from naiad.export.errors import InvalidExport
from naiad.export.report import Finding

Inputs = dict[str, np.ndarray[Any, Any]]
"""Arrays by input; text as arrays of objects."""
Dynamic = Mapping[str, Mapping[int, str]]

MAX_ROWS = 1024
"""Of the samples of one shape, that are compared."""
_CAPTURE_BATCHES = (3, 5, 7, 11, 13, 17, 19, 23)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Inputs of one size, to be answered by the subject and by ONNX Runtime."""

    sizes: dict[str, int]
    """By name of the dynamic dimension."""
    inputs: Inputs
    required: bool = True
    """A size that no sample has may be refused by the model itself; then the case does not count."""
    origins: tuple[tuple[int, int], ...] = ()
    """The sample and its row that each row is from; they repeat in a batch larger than the samples."""

    def origin(self, row: int) -> str:
        """Return where a row is from, in words: `sample 0, row 2`."""
        if not self.origins:
            return ""
        sample, place = self.origins[row % len(self.origins)]
        return f"sample {sample}, row {place}"

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
    notes: tuple[Finding, ...] = ()
    """What is worth knowing about how the samples came to be."""
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.rows[0]))

    def capture(self) -> Inputs:
        """Return inputs for the capture, whose dynamic sizes are at least 2 and no input's fixed size.

        A size of 1 would be baked in as a constant, and an accidental equality as a condition. Numbers are in another
        order than in any case, so that a value which was baked in shows there.
        """
        first = self.rows[0]
        fixed = {size for array in first.values() for size in array.shape[1:]}
        sizes = {symbol: max(size, 2) for symbol, size in self._sizes(first).items()}
        if self.batch:
            sizes[self.batch] = next((size for size in _CAPTURE_BATCHES if size not in fixed), 29)
        return {name: _shuffled(array) for name, array in self._resize(first, sizes).items()}

    def cases(self) -> Iterator[Case]:
        """Yield every case, the most telling first: all batch sizes, then other dynamic sizes, then all other rows."""
        groups = self._groups()
        for index, (group, origins) in enumerate(zip(groups, self._origins(), strict=True)):
            for batch in self.batches if index == 0 else self.batches[:4]:
                yield self._case(group, {self.batch: batch} if self.batch else {}, origins=origins)
        yield from self._other_sizes()
        for group, origins in zip(groups, self._origins(), strict=True):
            yield from self._other_rows(group, origins)

    def symbols(self) -> tuple[str, ...]:
        """Return the names of the dimensions that vary."""
        return tuple(self._sizes(self.rows[0]))

    def with_batch(self, case: Case, batch: int) -> Case:
        """Return the first rows of a case."""
        assert self.batch is not None
        sizes = case.sizes | {self.batch: batch}
        return replace(case, sizes=sizes, inputs=self._resize(case.inputs, sizes), origins=case.origins[:batch])

    def _other_sizes(self) -> Iterator[Case]:
        """Yield each other dynamic dimension smaller and larger, then all smaller at once and all larger at once."""
        first = self.rows[0]
        others = {symbol: size for symbol, size in self._sizes(first).items() if symbol != self.batch}
        small, large = ({s: change(size) for s, size in others.items()} for change in (_smaller, _larger))
        plans = [({symbol: size}, 2) for symbol in others for size in sorted({small[symbol], large[symbol]})]
        if others:
            plans += [(small, self.max_batch_size), (large, 1)]
        seen = []
        for sizes, batch in plans:
            whole = self._sizes(first) | sizes
            if self.batch:
                whole |= {self.batch: min(batch, self.max_batch_size)}
            if whole not in seen:
                seen.append(whole)
                yield self._case(first, whole, required=False, origins=self._origins()[0])

    def _other_rows(self, group: Inputs, origins: tuple[tuple[int, int], ...]) -> Iterator[Case]:
        """Yield the rows that the largest batch did not hold, in batches of that size."""
        size = self.max_batch_size
        for start in range(size, min(len(origins), MAX_ROWS) if self.batch else 0, max(size, 1)):
            rows = {name: array[start : start + size] for name, array in group.items()}
            yield self._case(rows, {str(self.batch): size}, origins=origins[start : start + size])

    def num_rows_left_out(self) -> int:
        """Return how many rows no case has."""
        return sum(max(len(origins) - max(MAX_ROWS, self.max_batch_size), 0) for origins in self._origins())

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

    def _case(
        self,
        inputs: Inputs,
        sizes: dict[str, int],
        *,
        required: bool = True,
        origins: tuple[tuple[int, int], ...] = (),
    ) -> Case:
        resized = self._resize(inputs, sizes)
        return Case(sizes=self._sizes(inputs) | sizes, inputs=resized, required=required, origins=origins)

    def _groups(self) -> list[Inputs]:
        """Join the rows of samples whose other dimensions are equal; each other shape stays on its own."""
        if not self.batch:
            return list(self.rows)
        groups: dict[tuple[Any, ...], list[Inputs]] = {}
        for row in self.rows:
            groups.setdefault(tuple(array.shape[1:] for array in row.values()), []).append(row)
        return [{name: np.concatenate([row[name] for row in rows]) for name in self.names} for rows in groups.values()]

    def _origins(self) -> list[tuple[tuple[int, int], ...]]:
        """Return, for each group, the sample and the row that each of its rows is from."""
        if not self.batch:
            return [((index, 0),) for index in range(len(self.rows))]
        groups: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
        for index, row in enumerate(self.rows):
            shape = tuple(array.shape[1:] for array in row.values())
            groups.setdefault(shape, []).extend((index, place) for place in range(len(next(iter(row.values())))))
        return [tuple(origins) for origins in groups.values()]

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


def _shuffled(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the same numbers in another order; indices keep theirs, since not all may be valid everywhere."""
    return np.roll(array.reshape(-1), 1).reshape(array.shape) if array.dtype.kind == "f" else array


def arrange(rows: tuple[Inputs, ...], dynamic: Dynamic, max_batch_size: int) -> Samples:
    """Check that samples fit together and with the dimensions that vary, and find the batch among these.

    Raises:
        InvalidExport: They contradict each other, or `dynamic`.
    """
    _check_alike(rows)
    _check_dynamic(rows[0], dynamic)
    batch = _batch_symbol(rows, dynamic) if max_batch_size else None
    return Samples(rows=rows, dynamic=dynamic, batch=batch, max_batch_size=max_batch_size)


def _smaller(size: int) -> int:
    return max(size // 2, 1)


def _larger(size: int) -> int:
    return size + 1


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
