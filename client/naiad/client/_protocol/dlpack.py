"""DLPack for what NumPy itself does not pass on: bfloat16, the 8-bit floats, and memory of a GPU.

What is handed over is a struct with a type code and a device in it; here they are changed on the way, the code to that
of integers with as many bits or back, and the memory is neither read nor copied.
Source: ``dlpack.h`` of DLPack 1.1 (``DLTensor``, ``DLManagedTensor``, ``DLDataTypeCode``) and the Python specification.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

_UINT: Final = 1
_CODES: Final = {
    np.dtype(ml_dtypes.bfloat16): 4,
    np.dtype(ml_dtypes.float8_e3m4): 7,
    np.dtype(ml_dtypes.float8_e4m3): 8,
    np.dtype(ml_dtypes.float8_e4m3b11fnuz): 9,
    np.dtype(ml_dtypes.float8_e4m3fn): 10,
    np.dtype(ml_dtypes.float8_e4m3fnuz): 11,
    np.dtype(ml_dtypes.float8_e5m2): 12,
    np.dtype(ml_dtypes.float8_e5m2fnuz): 13,
    np.dtype(ml_dtypes.float8_e8m0fnu): 14,
}
_DTYPES: Final = {code: dtype for dtype, code in _CODES.items()}
_KINDS: Final = {"i": 0, "u": _UINT, "f": 2, "b": 6}
_NAMES: Final = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_NUMPY_DTYPES: Final = {(_KINDS[dtype.kind], dtype.itemsize * 8): dtype for dtype in map(np.dtype, _NAMES)}
CUDA: Final = 2


class _Tensor(ctypes.Structure):  # DLTensor, which a DLManagedTensor begins with
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("num_dims", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),  # int64_t*
        ("strides", ctypes.c_void_p),  # int64_t*, in elements; or NULL for row-major
        ("offset_bytes", ctypes.c_uint64),
    )


class _VersionedTensor(ctypes.Structure):  # DLManagedTensorVersioned
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)
_name_of = ctypes.pythonapi.PyCapsule_GetName
_name_of.restype = ctypes.c_char_p
_name_of.argtypes = (ctypes.py_object,)


def _described_by(capsule: object) -> _Tensor:
    name = _name_of(capsule)
    pointer = _pointer_of(capsule, name)
    if name == b"dltensor_versioned":
        versioned: _Tensor = _VersionedTensor.from_address(pointer).tensor
        return versioned
    return _Tensor.from_address(pointer)


class _Recoded:
    """Passes on another object's tensor under another type code."""

    def __init__(self, tensor: Any, code: int) -> None:
        self._tensor = tensor
        self._code = code
        self.found: int | None = None
        """The code before."""

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self._tensor.__dlpack_device__()
        return device

    def __dlpack__(self, **wishes: Any) -> object:
        capsule = self._tensor.__dlpack__(**wishes)
        described = _described_by(capsule)
        self.found = described.code
        described.code = self._code
        return capsule


def array_from(tensor: Any) -> NDArray[Any]:
    """Return the memory of any CPU tensor as an array.

    Raises:
        BufferError, RuntimeError, TypeError, ValueError: the tensor is elsewhere, needs a gradient, or has a type that
            NumPy has not.
    """
    try:
        return np.from_dlpack(tensor)
    except (BufferError, RuntimeError):
        as_integers: Any = _Recoded(tensor, _UINT)
        array: NDArray[Any] = np.from_dlpack(as_integers)
        if as_integers.found not in _DTYPES:
            raise
        return array.view(_DTYPES[as_integers.found])


def tensor_of(array: NDArray[Any]) -> Any:
    """Return an object that every DLPack consumer takes for a tensor with the array's memory and type."""
    code = _CODES.get(array.dtype)
    return array if code is None else _Recoded(array.view(f"u{array.dtype.itemsize}"), code)


class DeviceArray:
    """A GPU's tensor as its owner describes it; refers to the memory as long as it lives.

    Its type and shape have the names that NumPy's have, so that it is checked as an array is.
    """

    __slots__ = ("_capsule", "address", "device", "dtype", "shape")

    def __init__(self, tensor: Any, stream: int) -> None:
        """Ask a tensor for its memory, which may be used on ``stream`` from now on.

        Raises:
            BufferError: it is not on a GPU, has gaps or another order than rows first, or a type that NumPy has not.
            AttributeError, RuntimeError, TypeError, ValueError: its owner does not hand it over.
        """
        self._capsule = tensor.__dlpack__(stream=stream)
        found = _described_by(self._capsule)
        if found.device_type != CUDA:
            raise BufferError(f"expected a tensor on a CUDA device, found DLPack's device type {found.device_type}")
        dtype = _NUMPY_DTYPES.get((found.code, found.bits)) or _DTYPES.get(found.code)
        if dtype is None or found.lanes != 1 or dtype.itemsize * 8 != found.bits:
            raise BufferError(f"DLPack's type code {found.code} with {found.bits} bits is no type that NumPy has")
        dims = ctypes.c_int64 * found.num_dims
        self.dtype: np.dtype[Any] = dtype
        self.shape: tuple[int, ...] = tuple(dims.from_address(found.shape)) if found.num_dims else ()
        self.device: int = found.device_id
        self.address: int = (found.data or 0) + found.offset_bytes
        if found.strides and not _is_row_major(self.shape, tuple(dims.from_address(found.strides))):
            raise BufferError("expected a row-major tensor without gaps, found other strides: call its contiguous()")

    @property
    def ndim(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)

    def __len__(self) -> int:
        """How many bytes its elements have."""
        return math.prod(self.shape) * self.dtype.itemsize


def is_on_cuda(value: Any) -> bool:
    """Whether a value is a tensor on a CUDA device."""
    if type(value) is np.ndarray or not hasattr(value, "__dlpack_device__"):
        return False
    try:
        return int(value.__dlpack_device__()[0]) == CUDA
    except (BufferError, RuntimeError, TypeError, ValueError):  # of a device that DLPack has no number for
        return False


def on_device(unread: NDArray[Any], dtype: np.dtype[Any], device: int, max_version: tuple[int, int] | None) -> object:
    """Return the DLPack capsule of memory on a GPU; ``unread`` has its address, and integers of the type's size."""
    capsule = unread.__dlpack__() if max_version is None else _versioned(unread, max_version)
    described = _described_by(capsule)
    code = _CODES.get(dtype)
    described.code = _KINDS[dtype.kind] if code is None else code
    described.device_type, described.device_id = CUDA, device
    return capsule


def _versioned(array: NDArray[Any], max_version: tuple[int, int]) -> object:
    export: Any = array.__dlpack__
    try:
        return export(max_version=max_version)
    except TypeError:  # NumPy before 2.1
        return export()


def _is_row_major(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for dim, stride in zip(reversed(shape), reversed(strides), strict=True):
        if dim != 1 and stride != expected:
            return 0 in shape
        expected *= dim
    return True
