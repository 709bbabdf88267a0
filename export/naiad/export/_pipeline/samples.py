"""The samples of a pipeline: arrays by tensor name, joined and cut into cases of every batch size."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from naiad.export._pipeline.served.model import Arrays, tensor
from naiad.export.errors import InvalidExport

BATCHES = (1, 2, 3, 7)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What goes into a pipeline at once, and after the reference run every tensor of it."""

    batch: int
    """0 without a batch dimension."""
    tensors: Arrays
    whole: bool = False
    """Whether it holds samples as they were given, each once: those become samples of the models."""
    without: tuple[str, ...] = ()
    """Optional steps that no script gets to call."""

    def __str__(self) -> str:
        size = f"batch {self.batch}" if self.batch else "the samples' size"
        return f"{size} without {', '.join(self.without)}" if self.without else size


def cases(samples: Sequence[Any], max_batch_size: int) -> list[Case]:
    """Return the samples at every batch size to verify, and once as they are.

    Raises:
        InvalidExport: A sample is no dict of arrays, or differs from the others in names, types or batch.
    """
    rows = _rows(samples, max_batch_size)
    if not max_batch_size:
        return [Case(batch=0, tensors=row, whole=True) for row in rows]
    return [case for index, group in enumerate(_groups(rows)) for case in _cases(group, max_batch_size, index)]


def chunks(inputs: Mapping[str, Any], max_batch_size: int) -> list[Case]:
    """Return inputs of any number of rows as cases that a server would take."""
    (row,) = _rows([inputs], max_batch_size)
    return list(_whole(row, max_batch_size)) if max_batch_size else [Case(batch=0, tensors=row, whole=True)]


def joined(parts: Sequence[Arrays], names: Sequence[str]) -> Arrays:
    """Return the answers to chunks as one."""
    return {name: np.concatenate([part[name] for part in parts]) if parts[1:] else parts[0][name] for name in names}


def _whole(group: Arrays, largest: int) -> Iterator[Case]:
    num_rows = len(next(iter(group.values())))
    for start in range(0, num_rows, largest):
        part = {name: array[start : start + largest] for name, array in group.items()}
        yield Case(batch=min(largest, num_rows - start), tensors=part, whole=True)


def _cases(group: Arrays, largest: int, index: int) -> Iterator[Case]:
    num_rows = len(next(iter(group.values())))
    sizes = [size for size in BATCHES if size <= largest] + ([largest] if index == 0 else [])
    yield from _whole(group, largest)
    for size in dict.fromkeys(sizes):
        if size != num_rows:
            chosen = np.arange(size) % num_rows
            yield Case(batch=size, tensors={name: array[chosen] for name, array in group.items()})


def _rows(samples: Sequence[Any], max_batch_size: int) -> list[Arrays]:
    if not isinstance(samples, list | tuple) or not samples:
        raise InvalidExport("samples must be a list with at least one dict of arrays by tensor name")
    rows = [_row(sample, index) for index, sample in enumerate(samples)]
    first = {name: array.dtype for name, array in rows[0].items()}
    for index, row in enumerate(rows):
        found = {name: array.dtype for name, array in row.items()}
        if found != first:
            raise InvalidExport(f"sample {index} has {_listed(found)}, sample 0 has {_listed(first)}")
        sizes = {name: array.shape[0] if array.ndim else 0 for name, array in row.items()}
        if max_batch_size and (len(set(sizes.values())) != 1 or 0 in sizes.values()):
            raise InvalidExport(f"the first dimension of every tensor is the batch; sample {index} has {sizes}")
    return rows


def _row(sample: Any, index: int) -> Arrays:
    if not isinstance(sample, Mapping) or not sample:
        raise InvalidExport(
            f"sample {index} is {type(sample).__name__}; expected a dict of arrays by tensor name, as in "
            '{"text": np.array([["some words"]])}'
        )
    try:
        return {str(name): tensor(str(name), _array(value)) for name, value in sample.items()}
    except TypeError as exc:
        raise InvalidExport(f"sample {index}: {exc}") from exc


def _array(value: Any) -> Any:
    if hasattr(value, "detach"):  # a tensor of PyTorch
        return value.detach().cpu().numpy()
    if not isinstance(value, list):
        return value
    array = np.asarray(value)
    # As fixed-width characters, bytes would lose the zeros at their end.
    return np.array(value, object) if array.dtype.kind in "SU" else array


def _groups(rows: list[Arrays]) -> list[Arrays]:
    groups: dict[tuple[Any, ...], list[Arrays]] = {}
    for row in rows:
        groups.setdefault(tuple(array.shape[1:] for array in row.values()), []).append(row)
    return [{name: np.concatenate([row[name] for row in group]) for name in group[0]} for group in groups.values()]


def _listed(dtypes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {'text' if dtype.hasobject else dtype}" for name, dtype in dtypes.items())
