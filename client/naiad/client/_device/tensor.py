"""Outputs that stay on the GPU: tensors for every library that takes DLPack."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from naiad.client._device.arena import DeviceArena
from naiad.client._device.region import Slice
from naiad.client._protocol.dlpack import CUDA, on_device

_INTERFACE_VERSION: Final = 3


class Memory:
    """A slice that goes back to its arena when nobody refers to this object any more: no tensor, no export of one."""

    __slots__ = ("__array_interface__", "__weakref__", "part")

    def __init__(self, part: Slice, size_bytes: int, arena: DeviceArena) -> None:
        self.part: Slice = part
        self.__array_interface__: dict[str, Any] = {  # NumPy keeps this object, and hands the address on unread
            "data": (part.address, False),
            "shape": (size_bytes,),
            "typestr": "|u1",
            "version": _INTERFACE_VERSION,
        }
        finalize(self, arena.release_later, part).atexit = False


class CudaTensor:
    """An output in the GPU's memory, row-major: ``torch.from_dlpack(tensor)`` takes it without a copy.

    The memory is lent: it goes back to the client when this tensor and everything that was made from it by DLPack are
    gone. :meth:`numpy` makes a copy in the host's memory.
    """

    __slots__ = ("_download", "_memory", "_shape", "dtype")

    def __init__(
        self,
        memory: Memory,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        download: Callable[[int, NDArray[Any]], None],
    ) -> None:
        self._memory = memory
        self._shape = shape
        self._download = download
        self.dtype: np.dtype[Any] = dtype
        """NumPy's name of the type; ``ml_dtypes.bfloat16`` for BF16."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions."""
        return self._shape

    @property
    def nbytes(self) -> int:
        """How many bytes its elements have."""
        return math.prod(self._shape) * self.dtype.itemsize

    @property
    def device(self) -> int:
        """The number of the GPU, as this process counts them."""
        return self._memory.part.region.device

    @property
    def address(self) -> int:
        """Where the elements are in the GPU's memory; valid while the tensor is."""
        return self._memory.part.address

    def numpy(self) -> NDArray[Any]:
        """Return a copy in the host's memory.

        Raises:
            Unsupported: CUDA failed.
        """
        array: NDArray[Any] = np.empty(self._shape, self.dtype)
        self._download(self.address, array)
        return array

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """Hand the memory over. It was written before the answer came, so that no ``stream`` has to wait."""
        if copy or (dl_device is not None and tuple(map(int, dl_device)) != (CUDA, self.device)):
            raise BufferError(f"the tensor is handed over where it is, on GPU {self.device}, and not copied")
        self._memory.part.exported = True
        unread: NDArray[Any] = np.asarray(self._memory)[: self.nbytes]
        as_integers = unread.view(f"u{self.dtype.itemsize}").reshape(self._shape)
        return on_device(as_integers, self.dtype, self.device, max_version)

    def __repr__(self) -> str:
        return f"<CudaTensor {self.dtype}{list(self._shape)} on GPU {self.device}>"


class CudaOutputs(Mapping[str, CudaTensor]):
    """The outputs of an answer that are on a GPU, by name: ``result.cuda["y"]`` or ``result.cuda("y")``."""

    __slots__ = ("_missing", "_tensors")

    def __init__(self, tensors: Mapping[str, CudaTensor], missing: Callable[[str], Exception]) -> None:
        self._tensors = tensors
        self._missing = missing

    def __call__(self, name: str) -> CudaTensor:
        """Return an output.

        Raises:
            KeyError: the answer has no such output on a GPU.
        """
        return self[name]

    def __getitem__(self, name: str) -> CudaTensor:
        try:
            return self._tensors[name]
        except KeyError:
            raise self._missing(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
