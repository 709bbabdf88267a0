"""What the executor asks of a device, and the copies between requests and it."""

import math
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from _ort_datatypes import DataType
from _ort_memory import Block, DeviceArray, Memory, Pool, host_view
from numpy.typing import NDArray

_ALIGNMENT_BYTES: Final = 16
"""Kernels read their inputs in pieces of this size."""

Piece = NDArray[Any] | DeviceArray


class Device(Protocol):
    """A device with one queue: what is asked of it happens in order, and has happened after ``synchronise``."""

    name: str
    """ONNX Runtime's name of its memory, such as ``cuda``."""
    index: int
    dlpack_type: int
    """``DLDeviceType`` of its memory."""

    def allocate(self, size_bytes: int) -> Memory:
        """Memory of the device."""

    def allocate_host(self, size_bytes: int) -> Memory:
        """Memory of the host that the device copies from and to without a detour."""

    def copy(self, target: int, source: int, size_bytes: int) -> None:
        """Queue a copy between two addresses, on the device or the host."""

    def synchronise(self) -> None:
        """Wait for everything queued. Raises ``DeviceLostError``."""

    def check(self, error: Exception) -> None:
        """After a failed run: wait, and raise ``DeviceLostError`` where nothing can run any more."""


class Copies:
    """Copies between requests and one device, through blocks that are used again.

    Blocks of the host must not be given back before the device was synchronised: nothing else orders the
    processor's writing after the device's reading.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._on_device = Pool(device.allocate)
        self._on_host = Pool(device.allocate_host)
        self._staged: list[Block] = []

    def array(self, shape: tuple[int, ...], data_type: DataType) -> DeviceArray:
        """A new array on the device, with anything in it."""
        block = self._on_device.take(math.prod(shape) * data_type.numpy.itemsize)
        return DeviceArray(
            pointer=block.pointer, shape=shape, data_type=data_type, index=self._device.index, owner=block
        )

    def gathered(self, pieces: Sequence[Piece], shape: tuple[int, ...], data_type: DataType) -> DeviceArray:
        """The pieces one after the other in one array on the device; one that is there alone is not copied."""
        first = pieces[0]
        if len(pieces) == 1 and isinstance(first, DeviceArray) and self._is_usable(first):
            return first.reshape(shape)
        target = self.array(shape, data_type)
        self.fill(target, pieces)
        return target

    def _is_usable(self, array: DeviceArray) -> bool:
        return array.index == self._device.index and array.pointer % _ALIGNMENT_BYTES == 0

    def fill(self, target: DeviceArray, pieces: Sequence[Piece]) -> None:
        """Put the pieces into an array of the device: those of the host by one copy, where all are there."""
        host = [piece for piece in pieces if isinstance(piece, np.ndarray)]
        if len(host) == len(pieces):
            self._fill_from_host(target.pointer, host)
            return
        pointer = target.pointer
        for piece in pieces:
            if isinstance(piece, DeviceArray):
                self._copy(pointer, piece.pointer, piece.nbytes)
            else:
                self._fill_from_host(pointer, [piece])
            pointer += piece.nbytes

    def _fill_from_host(self, pointer: int, arrays: Sequence[NDArray[Any]]) -> None:
        size_bytes = sum(array.nbytes for array in arrays)
        block = self._on_host.take(size_bytes)
        self._staged.append(block)
        start = block.pointer
        for array in arrays:
            host_view(start, array.shape, array.dtype, block)[...] = array
            start += array.nbytes
        self._copy(pointer, block.pointer, size_bytes)

    def _copy(self, target: int, source: int, size_bytes: int) -> None:
        if size_bytes:
            self._device.copy(target, source, size_bytes)

    def copied(self, array: DeviceArray) -> DeviceArray:
        """Another array of the same elements on the device."""
        copy = self.array(array.shape, array.data_type)
        self._copy(copy.pointer, array.pointer, array.nbytes)
        return copy

    def fetched(self, array: DeviceArray) -> NDArray[Any]:
        """An array of the host that has the elements once the device was synchronised."""
        block = self._on_host.take(array.nbytes)
        self._copy(block.pointer, array.pointer, array.nbytes)
        return host_view(block.pointer, array.shape, array.dtype, block)

    def finish(self) -> None:
        """Wait for the device. Raises ``DeviceLostError``."""
        self._device.synchronise()
        self._staged.clear()

    def recover(self, error: Exception) -> None:
        """Wait for the device after a failed run. Raises ``DeviceLostError`` where nothing can run any more."""
        self._device.check(error)
        self._staged.clear()
