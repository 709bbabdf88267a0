"""DLPack capsules: reads those of requests, and makes those of responses, by the layout of dlpack.h."""

import ctypes
from collections.abc import Mapping
from typing import Any, Final

from _ort_datatypes import BF16, DataType
from _ort_errors import RequestError, mismatch
from _ort_memory import DeviceArray

_CODES: Final[Mapping[str, int]] = {"i": 0, "u": 1, "f": 2, "b": 6}
"""``DLDataTypeCode`` by numpy's kind."""
_BFLOAT: Final = 4
_NAME: Final = b"dltensor"


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


# Prototypes of our own: those of ctypes.pythonapi are shared with everyone in the process.
_new: Final = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_pointer: Final = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
# By address: a capsule that is being destroyed must not be referred to again.
_is_valid: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_address: Final = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)

_lent: Final[dict[int, tuple[Any, ...]]] = {}
"""What must live until its consumer calls the deleter, by the address that the deleter is called with."""


def dlpack_type(data_type: DataType) -> tuple[int, int]:
    """DLPack's code and number of bits of a type that is not a string."""
    code = _BFLOAT if data_type.triton == BF16 else _CODES[data_type.numpy.kind]
    return code, 8 * data_type.numpy.itemsize


def array_from(capsule: Any, data_type: DataType, device_type: int) -> DeviceArray:
    """The array of an unused capsule, on a device of that ``DLDeviceType``, of that type, row by row.

    Raises ``RequestError`` where it is not.
    """
    tensor = managed_of(capsule).tensor
    shape = _integers(tensor.shape, tensor.ndim)
    found = tensor.device_type, (tensor.code, tensor.bits), tensor.lanes
    wanted = device_type, dlpack_type(data_type), 1
    if found != wanted or not _is_contiguous(tensor, shape):
        expected = f"{data_type.triton}, row by row (DLPack's device, type and lanes {wanted})"
        message = mismatch("a tensor on a GPU", expected=expected, found=found, advice="send it in CPU memory")
        raise RequestError(message)
    pointer = (tensor.data or 0) + tensor.byte_offset
    return DeviceArray(pointer=pointer, shape=shape, data_type=data_type, index=tensor.device_id, owner=capsule)


def managed_of(capsule: Any) -> Any:
    """The ``DLManagedTensor`` of an unused capsule. Raises ``ValueError`` for a used one."""
    return _Managed.from_address(_pointer(capsule, _NAME))


def capsule_of(array: DeviceArray, device_type: int) -> Any:
    """A capsule of an array, which lives until the capsule's consumer, or the capsule itself, is gone."""
    dims = (ctypes.c_int64 * max(1, array.ndim))(*array.shape)
    managed = _Managed()
    tensor = managed.tensor
    tensor.data = array.pointer
    tensor.device_type, tensor.device_id = device_type, array.index
    tensor.ndim = array.ndim
    tensor.code, tensor.bits = dlpack_type(array.data_type)
    tensor.lanes = 1
    tensor.shape = ctypes.addressof(dims)
    managed.deleter = _DELETER_ADDRESS
    address = ctypes.addressof(managed)
    _lent[address] = managed, dims, array
    return _new(address, _NAME, _DESTRUCTOR_ADDRESS)


def num_lent() -> int:
    """How many arrays are in the hands of a consumer."""
    return len(_lent)


def _integers(address: int | None, count: int) -> tuple[int, ...]:
    return tuple((ctypes.c_int64 * count).from_address(address)) if address and count else ()


def _is_contiguous(tensor: _Tensor, shape: tuple[int, ...]) -> bool:
    if not tensor.strides or 0 in shape:
        return True
    step = 1
    for stride, size in reversed(list(zip(_integers(tensor.strides, tensor.ndim), shape, strict=True))):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


def _delete(address: int) -> None:
    _lent.pop(address, None)


def _destroy(capsule: int) -> None:
    # A consumer renames the capsule, and calls the deleter itself.
    if _is_valid(capsule, _NAME):
        _lent.pop(_address(capsule, _NAME), None)


_DELETER: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_delete)
_DESTRUCTOR: Final = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_destroy)
_DELETER_ADDRESS: Final = ctypes.c_void_p.from_buffer(_DELETER).value
_DESTRUCTOR_ADDRESS: Final = ctypes.c_void_p.from_buffer(_DESTRUCTOR).value
