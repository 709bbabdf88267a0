"""Memory of a device: arrays in it, and blocks of it that are used again."""

import ctypes
import math
import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from _ort_datatypes import DataType
from numpy.typing import NDArray

_SMALLEST_BYTES: Final = 512
"""Blocks begin at addresses at least this round, as CUDA's own allocations do."""


class Memory(Protocol):
    """Memory that is freed when this object is collected."""

    pointer: int


class Block:
    """Memory on loan from a pool, given back when this object is collected."""

    __slots__ = ("__weakref__", "pointer")

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer


class Pool:
    """Blocks of memory by powers of two; to allocate on a GPU takes longer than many a run of a model."""

    def __init__(self, allocate: Callable[[int], Memory]) -> None:
        self._allocate = allocate
        self._free: defaultdict[int, list[Memory]] = defaultdict(list)

    def take(self, size_bytes: int) -> Block:
        """A block of at least this size."""
        size = max(_SMALLEST_BYTES, 1 << (size_bytes - 1).bit_length()) if size_bytes > 1 else _SMALLEST_BYTES
        free = self._free[size]
        memory = free.pop() if free else self._new(size)
        block = Block(memory.pointer)
        weakref.finalize(block, free.append, memory).atexit = False
        return block

    def _new(self, size_bytes: int) -> Memory:
        try:
            return self._allocate(size_bytes)
        except RuntimeError:
            # Perhaps there is room in blocks of other sizes that nobody uses.
            for memories in self._free.values():
                memories.clear()
            return self._allocate(size_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceArray:
    """A contiguous array in a device's memory, with as much of numpy's manners as the batches need."""

    pointer: int
    shape: tuple[int, ...]
    data_type: DataType
    index: int
    """The device's number among those of its type."""
    owner: object
    """Keeps the memory alive."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of the elements; uint16 for bfloat16."""
        return self.data_type.numpy

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return self.size * self.dtype.itemsize

    def reshape(self, shape: int | tuple[int, ...]) -> "DeviceArray":
        """The same memory in another shape of as many elements; -1 alone makes it flat."""
        return replace(self, shape=shape if isinstance(shape, tuple) else (self.size,))

    def __getitem__(self, rows: slice) -> "DeviceArray":
        """Consecutive rows, without a copy."""
        start, stop, _ = rows.indices(self.shape[0])
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        return replace(self, pointer=self.pointer + start * row_bytes, shape=(stop - start, *self.shape[1:]))


def host_view(pointer: int, shape: tuple[int, ...], dtype: np.dtype[Any], owner: object) -> NDArray[Any]:
    """A numpy array over host memory, which keeps ``owner`` alive."""
    size_bytes = math.prod(shape) * dtype.itemsize
    if size_bytes == 0:
        return np.empty(shape, dtype)
    memory: Any = (ctypes.c_uint8 * size_bytes).from_address(pointer)
    memory.owner = owner
    return np.frombuffer(memory, dtype=dtype).reshape(shape)
