"""What one client has of the GPUs: the driver, loaded at the first use, its arena and its streams."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from naiad.client._device import cuda
from naiad.client._device.arena import DeviceArena
from naiad.client._device.driver import DeviceError, Driver
from naiad.client._device.region import Slice
from naiad.client._device.tensor import CudaTensor, Memory
from naiad.client._protocol.dlpack import DeviceArray, is_on_cuda
from naiad.client._protocol.request import InferOptions, Inputs
from naiad.client.errors import InvalidInput, Unsupported
from naiad.client.options import CudaMemory

_log = logging.getLogger("naiad.client")
_PLACE = re.compile(r"cuda(?::(\d+))?|(\d+)")


class _Loaded(NamedTuple):
    driver: Driver
    arena: DeviceArena
    process: int


class Stream:
    """A stream of a GPU, lent; it goes back when this object is gone."""

    __slots__ = ("__weakref__", "device", "number")

    def __init__(self, device: int, number: int, free: deque[int]) -> None:
        self.device: int = device
        self.number: int = number
        finalize(self, free.append, number).atexit = False


class Devices:
    """The GPUs as one client uses them; may be shared by threads. CUDA is touched at the first use."""

    def __init__(self, options: CudaMemory, load: Callable[[], Driver] | None = None) -> None:
        self.options = options
        self._load = load
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._failure: DeviceError | None = None
        self._streams: dict[int, deque[int]] = {}
        self._num_users = 0
        self._said: set[str] = set()

    @classmethod
    def of(cls, value: CudaMemory | bool | str) -> Devices | None:
        """Read what a client was given; ``None`` is without."""
        options = CudaMemory.of(value)
        return None if options is None else cls(options)

    @property
    def driver(self) -> Driver:
        """CUDA.

        Raises:
            DeviceError: it cannot be used.
            Unsupported: this process was forked from one that has used it.
        """
        return self._use().driver

    @property
    def arena(self) -> DeviceArena:
        """The slices; errors as for :attr:`driver`."""
        return self._use().arena

    def concerns(self, inputs: Inputs, options: InferOptions) -> bool:
        """Whether a request has anything to do with a GPU.

        Raises:
            InvalidInput: outputs are wanted at a place that has no such name.
        """
        wished = options.outputs_on
        if wished is not None and str(wished) != "cpu":
            _number(wished)
            return True
        return any(map(is_on_cuda, inputs.values())) or (options.out is not None and received_on_cuda(options))

    def attach(self) -> None:
        """Count a user: the connection to one server."""
        with self._lock:
            self._num_users += 1

    def detach(self) -> bool:
        """Count one user less; return whether it was the last."""
        with self._lock:
            self._num_users -= 1
            return self._num_users == 0

    def close(self) -> None:
        """Free what no server knows and no tensor has; the rest follows when that is so."""
        with self._lock:
            loaded, self._loaded = self._loaded, None
        if loaded is not None and loaded.process == os.getpid():
            loaded.arena.close()
            with suppress(DeviceError):
                for free in self._streams.values():
                    while free:
                        loaded.driver.end_stream(free.pop())

    def forget(self) -> None:
        """Count one user less in a forked process; nothing else is touched there."""
        self._lock = threading.Lock()
        self._num_users -= 1

    def wanted(self, outputs_on: Any, inputs: Sequence[DeviceArray]) -> int | None:
        """Return the GPU on which outputs are wanted, ``None`` for the host.

        Raises:
            InvalidInput: there is no such GPU.
        """
        if outputs_on is None or str(outputs_on) == "cpu":
            return None
        number = _number(outputs_on)
        if number is None:
            return inputs[0].device if inputs else self.driver.current_device()
        num_devices = self.driver.num_devices()
        if number >= num_devices:
            raise InvalidInput(
                f"expected the GPU of outputs_on to be below {num_devices}, the number of GPUs that this process sees; "
                f"found {outputs_on!r}"
            )
        return number

    def stream(self, device: int) -> Stream:
        """Return a stream of a GPU."""
        free = self._streams.setdefault(device, deque())
        try:
            number = free.pop()
        except IndexError:
            with self.driver.using(device):
                number = self.driver.new_stream()
        return Stream(device, number, free)

    def export(self, name: str, tensor: Any, stream: Stream) -> DeviceArray:
        """Return a GPU's tensor as the stream may use it.

        Raises:
            InvalidInput: it is not one that can be copied as it is.
        """
        try:
            with self.driver.using(stream.device):
                return DeviceArray(tensor, stream.number)
        except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as exc:
            raise InvalidInput(
                f"'{name}': expected a row-major CUDA tensor with DLPack, without gaps and without a gradient, "
                f"found {type(tensor).__name__}: {exc}"
            ) from exc

    def download(self, device: int, address: int, array: NDArray[Any], stream: Stream | None = None) -> None:
        """Copy memory of a GPU into a row-major array, after what ``stream`` has to do before."""
        stream = stream or self.stream(device)
        self._copy(device, array.ctypes.data, address, array.nbytes, stream)

    def upload(self, device: int, address: int, array: NDArray[Any], stream: Stream | None = None) -> None:
        """Copy an array into memory of a GPU, after what ``stream`` has to do before."""
        stream = stream or self.stream(device)
        contents = np.ascontiguousarray(array)
        self._copy(device, address, contents.ctypes.data, contents.nbytes, stream)

    def tensor(self, part: Slice, dtype: np.dtype[Any], shape: tuple[int, ...]) -> CudaTensor:
        """Return the tensor in a slice, which has the slice from now on."""
        device = part.region.device
        memory = Memory(part, part.size_bytes, part.region.arena)
        return CudaTensor(memory, dtype, shape, lambda address, array: self.download(device, address, array))

    def uploaded(self, device: int, array: NDArray[Any]) -> CudaTensor:
        """Return a tensor on a GPU with the contents of an array in the host's memory.

        Raises:
            Unsupported: there is no memory for it.
        """
        try:
            parts = self.arena.lease([(device, array.nbytes)])
        except DeviceError as exc:
            raise Unsupported(f"expected {array.nbytes} bytes of GPU memory for an output: {exc}") from exc
        if parts is None:
            raise Unsupported(self.full(array.nbytes))
        tensor = self.tensor(parts[0], array.dtype, array.shape)
        self.upload(device, tensor.address, array)
        return tensor

    def full(self, size_bytes: int) -> str:
        """Say that there is no room."""
        return (
            f"expected {size_bytes} bytes of CUDA memory, found too few within CudaMemory.max_bytes "
            f"({self.options.max_bytes}): raise it, or let go of CudaTensors and of what was made from them"
        )

    def say_once(self, why: str) -> None:
        """Log why tensors go by the host."""
        if why not in self._said:
            self._said.add(why)
            _log.info("no CUDA memory, tensors go by the host's: %s", why)

    def _copy(self, device: int, to: int, source: int, size_bytes: int, stream: Stream) -> None:
        if size_bytes:
            try:
                with self.driver.using(device):
                    self.driver.copy(to, source, size_bytes, stream.number)
                    self.driver.wait(stream.number)
            except DeviceError as exc:
                raise Unsupported(f"a copy from or to GPU {device} failed: {exc}") from exc

    def _use(self) -> _Loaded:
        loaded = self._loaded
        if loaded is None:
            with self._lock:
                loaded = self._loaded or self._start()
        if loaded.process != os.getpid():
            raise Unsupported(
                "expected the process that uses CUDA, found one that was forked from it, where CUDA does not work: "
                "start processes by 'spawn', or use CUDA memory only after the fork"
            )
        return loaded

    def _start(self) -> _Loaded:
        if self._failure is not None:
            raise self._failure
        try:
            driver = (self._load or cuda.load)()
        except DeviceError as exc:
            self._failure = exc
            raise
        arena = DeviceArena(driver, self.options.max_bytes, self.options.region_bytes)
        self._loaded = _Loaded(driver, arena, os.getpid())
        return self._loaded


def received_on_cuda(options: InferOptions) -> bool:
    """Whether an output is received by a tensor on a GPU."""
    return any(map(is_on_cuda, (options.out or {}).values()))


def _number(place: object) -> int | None:
    """Return the number of the GPU that a place names, ``None`` for whichever is the current one.

    Raises:
        InvalidInput: it is no name of a place.
    """
    match = _PLACE.fullmatch(str(place))
    if match is None:
        raise InvalidInput(f"expected outputs_on to be 'cuda', 'cuda:N', N or 'cpu', found {place!r}")
    number = match[1] or match[2]
    return int(number) if number else None
