"""Rows of data, wherever they come from, and the requests they are put together to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from naiad.loadtest._data.signature import Signature

__all__ = [
    "MAX_BYTES",
    "MAX_SAMPLES",
    "Rows",
    "Sample",
    "Samples",
    "evenly",
    "requests_of",
    "sequences_of",
    "size_bytes",
    "size_of",
    "thinned",
]

MAX_BYTES: Final = 64 << 20
"""What all different requests have together, at most: more would only take the generator's memory."""
MAX_SAMPLES: Final = 10_000
Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One request's inputs and, where they are known, the outputs to expect."""

    inputs: Tensors
    outputs: Tensors = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows that were found in one place: the first axis of every array counts them, with or without batching."""

    inputs: Tensors
    outputs: Tensors = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def __getitem__(self, rows: NDArray[np.intp]) -> Rows:
        return Rows(
            inputs={name: array[rows] for name, array in self.inputs.items()},
            outputs={name: array[rows] for name, array in self.outputs.items()},
        )

    @property
    def form(self) -> tuple[Any, ...]:
        """What rows need to have in common to be sent in one request: tensors and their shapes."""
        return (_shapes(self.inputs), _shapes(self.outputs))


@dataclass(kw_only=True, slots=True)
class Samples:
    """The different requests of a model's traffic."""

    samples: list[Sample]
    steps: list[tuple[int, ...]] = field(default_factory=list)
    """Recorded sequences: the samples of each one in their order; empty where any sample may follow any other."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the report has to know about them."""


def requests_of(pools: Iterable[Rows], batch: int, signature: Signature) -> list[Sample]:
    """Put rows of the same form together to requests of ``batch`` rows; the last one goes on with the first rows."""
    samples = list[Sample]()
    for pool in _joined(pools):
        if signature.batching:
            starts = range(0, len(pool), batch)
            samples += [_sample(pool[np.arange(start, start + batch) % len(pool)]) for start in starts]
        else:
            samples += _one_by_one(pool, signature)
    return samples


def sequences_of(
    sequences: Iterable[Iterable[Rows]], signature: Signature
) -> tuple[list[Sample], list[tuple[int, ...]]]:
    """Make each row a request of its own; return them, and the indices of each sequence's in their order."""
    samples, steps = list[Sample](), list[tuple[int, ...]]()
    for pools in sequences:
        found = [sample for pool in pools for sample in _one_by_one(pool, signature)]
        steps.append(tuple(range(len(samples), len(samples) + len(found))))
        samples += found
    return samples, steps


def thinned(samples: list[Sample]) -> list[Sample]:
    """Return samples that have :data:`MAX_BYTES` together, evenly picked where there are more."""
    total = sum(map(size_of, samples))
    most = max(1, len(samples) * MAX_BYTES // total) if total > MAX_BYTES else len(samples)
    return [samples[index] for index in evenly(len(samples), min(most, MAX_SAMPLES))]


def evenly(number: int, most: int) -> Sequence[int]:
    """Return the indices of at most ``most`` of ``number`` things, the first one among them."""
    return range(number) if number <= most else [index * number // most for index in range(most)]


def size_of(sample: Sample | Rows) -> int:
    """Return how many bytes the inputs take in a request."""
    return sum(map(size_bytes, sample.inputs.values()))


def size_bytes(array: NDArray[Any]) -> int:
    """Return how many bytes a tensor takes in a request; strings have a length of four bytes each."""
    return sum(4 + len(text) for text in array.flat) if array.dtype.hasobject else array.nbytes


def _joined(pools: Iterable[Rows]) -> list[Rows]:
    groups: dict[tuple[Any, ...], list[Rows]] = {}
    for pool in pools:
        groups.setdefault(pool.form, []).append(pool)
    return [_concatenated(group) for group in groups.values()]


def _concatenated(pools: Sequence[Rows]) -> Rows:
    first = pools[0]
    if len(pools) == 1:
        return first
    return Rows(
        inputs={name: np.concatenate([pool.inputs[name] for pool in pools]) for name in first.inputs},
        outputs={name: np.concatenate([pool.outputs[name] for pool in pools]) for name in first.outputs},
    )


def _one_by_one(pool: Rows, signature: Signature) -> list[Sample]:
    if signature.batching:
        return [_sample(pool[np.array([row])]) for row in range(len(pool))]
    return [
        Sample(
            inputs={name: _at(array, row) for name, array in pool.inputs.items()},
            outputs={name: _at(array, row) for name, array in pool.outputs.items()},
        )
        for row in range(len(pool))
    ]


def _at(array: NDArray[Any], row: int) -> NDArray[Any]:
    return array[row : row + 1].reshape(array.shape[1:])  # array[row] of a vector would be no array


def _sample(rows: Rows) -> Sample:
    return Sample(inputs=rows.inputs, outputs=rows.outputs)


def _shapes(tensors: Tensors) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted((name, array.shape[1:]) for name, array in tensors.items()))
