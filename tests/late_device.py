"""A device in CPU memory that is as late as a GPU: what is queued has happened only once something waited for it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from _ort_datatypes import BY_TRITON
from _ort_errors import DeviceLostError
from _ort_memory import DeviceArray

from stub_double import Tensor

_GARBAGE = 0xA5


class _Memory:
    def __init__(self, size_bytes: int) -> None:
        # Aligned as a GPU's memory is, and never zero by chance.
        self._bytes = np.full(size_bytes + 64, _GARBAGE, np.uint8)
        self.pointer = self._bytes.ctypes.data + (-self._bytes.ctypes.data % 64)


class LateDevice:
    """A device whose copies read their source, and write their target, when the queue is waited for."""

    name = "cpu"
    dlpack_type = 1

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.copies = 0
        self.lost: str | None = None
        self._queue: list[tuple[int, int, int]] = []

    def allocate(self, size_bytes: int) -> _Memory:
        return _Memory(size_bytes)

    def allocate_host(self, size_bytes: int) -> _Memory:
        return _Memory(size_bytes)

    def copy(self, target: int, source: int, size_bytes: int) -> None:
        self.copies += 1
        self._queue.append((target, source, size_bytes))

    def run_queue(self) -> None:
        """What was queued happens, in order."""
        for copy in self._queue:
            ctypes.memmove(*copy)
        self._queue.clear()

    def synchronise(self) -> None:
        if self.lost:
            raise DeviceLostError(self.lost)
        self.run_queue()

    def check(self, error: Exception) -> None:
        self.synchronise()


class QueuedSession:
    """An ONNX Runtime session on the CPU whose runs take their turn in a device's queue."""

    def __init__(self, session: Any, device: LateDevice) -> None:
        self._session, self._device = session, device
        self.graph_ids: list[int] = []
        self.fail: Exception | None = None

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        self._device.run_queue()
        number = -1
        if options is not None:
            entry = options.get_run_config_entry("gpu_graph_id")
            number = int(entry) if entry else -1
        self.graph_ids.append(number)
        if self.fail is not None and number != -1:
            raise self.fail
        self._session.run_with_iobinding(binding, options)


def device_tensor(name: str, array: np.ndarray[Any, Any], data_type: str, *, index: int = 0) -> Tensor:
    """A tensor of a request, on the device."""
    from _ort_dlpack import capsule_of

    array = np.ascontiguousarray(array)
    held = DeviceArray(
        pointer=array.ctypes.data, shape=array.shape, data_type=BY_TRITON[data_type], index=index, owner=array
    )
    return Tensor(name, array, capsule_of(held, LateDevice.dlpack_type))
