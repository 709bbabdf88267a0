"""DLPack for the types that NumPy itself does not pass on: bfloat16 and the 8-bit floats.

What is handed over is a struct with a type code in it; here the code is changed on the way, to that of integers with as
many bits or back, and the memory is neither read nor copied.
Source: ``dlpack.h`` of DLPack 1.1 (``DLTensor``, ``DLManagedTensor``, ``DLDataTypeCode``) and the Python specification.
"""

from __future__ import annotations

import ctypes
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


class _Tensor(ctypes.Structure):  # DLTensor, which a DLManagedTensor begins with
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("num_dims", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
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
