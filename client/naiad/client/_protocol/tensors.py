"""Tensors on the wire: little-endian, row-major bytes; strings carry a four-byte length each.

Source: "Inference Request/Response, raw contents" of the KServe v2 gRPC specification and Triton's BYTES extension.
"""

from __future__ import annotations

import math
from ctypes import addressof, c_char
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from naiad.client._protocol.datatypes import numpy_dtype
from naiad.client._protocol.dlpack import array_from, is_on_cuda
from naiad.client._protocol.strings import decode_strings, encode_strings
from naiad.client.errors import InvalidInput, InvalidResponse

Buffer = bytes | memoryview
Payload = bytes | NDArray[Any]  # an array stands for its own memory: row-major and little-endian
ALIGNMENT: Final = 64  # a cache line, and the widest vector registers
ALIGNED_FROM_BYTES: Final = 1 << 18  # below, finding the place would be felt beside the copying
MAX_DIMS: Final = 64  # NumPy's
_NUMBERS: Final = frozenset("biuf")


def as_array(value: Any, datatype: str | None = None) -> NDArray[Any]:
    """Return ``value`` as an array without changing the type of what already has one.

    Arrays stay as they are; other tensors come in through DLPack (no copy on the CPU); Python numbers, strings and
    lists have no type of their own and take that of ``datatype`` where it is known and holds them.

    Raises:
        InvalidInput: a tensor is not on the CPU, a list is ragged, or its values are none of ``datatype``.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, np.generic):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(value)
    dtype = numpy_dtype(datatype) if datatype is not None and not hasattr(value, "__array__") else None
    try:
        return np.asarray(value) if dtype is None else _from_python(value, dtype)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidInput(
            f"expected an array{f' of {datatype}' if datatype else ''}, found {type(value).__name__}: {exc}"
        ) from exc


def _from_dlpack(value: Any) -> NDArray[Any]:
    try:
        return array_from(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as exc:
        if is_on_cuda(value):
            raise InvalidInput(
                "expected a tensor in the host's memory, found one on a CUDA device: make the client with "
                "cuda_memory=True or 'auto' (and call `infer` or `submit`), or copy it yourself: tensor.cpu()"
            ) from exc
        raise InvalidInput(
            "expected a tensor that NumPy can read where it lies (on the CPU, detached), "
            f"found {type(value).__name__}: {exc}"
        ) from exc


def _from_python(value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return Python's numbers or strings in ``dtype``, or raise a ValueError.

    NumPy itself would parse text, cut off fractions, make infinities and take ``None`` for a number.
    """
    if dtype.hasobject:
        return np.asarray(value, dtype)
    found = np.asarray(value)
    if found.size == 0:
        return found.astype(dtype)
    if found.dtype.kind not in _NUMBERS:
        raise ValueError(f"the values are {found.dtype}")
    if found.dtype == dtype:
        return found
    with np.errstate(all="ignore"):
        array = found.astype(dtype)
        if dtype.kind in "biu":
            same = array == found
        else:
            same = np.isfinite(array)
            if not same.all():  # a float is the nearest one that there is, but infinite only if it was
                same = same == np.isfinite(found)
    if not same.all():
        raise ValueError(f"{found[~same].flat[0]} is no value of {dtype}")
    return array


def encode(array: NDArray[Any], datatype: str) -> Payload:
    """Return what goes over the wire for ``array``: the array itself where its memory is laid out right already.

    Raises:
        InvalidInput: an object array holds something else than ``str`` and ``bytes``.
    """
    if datatype == "BYTES":
        return encode_strings(array)
    dtype = array.dtype
    if dtype.byteorder == ">":
        dtype = dtype.newbyteorder("<")
    elif array.flags.c_contiguous:
        return array
    return np.ascontiguousarray(array, dtype=dtype)


def decode(buffer: Buffer, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a writable array of its own, at a multiple of 64 bytes if it has 256 KiB or more.

    Raises:
        InvalidResponse: the bytes do not make a tensor of that type and shape.
    """
    dtype, num_elements = described(datatype, shape)
    if datatype == "BYTES":
        return _strings(buffer, num_elements, shape, to_the_end=True)
    if len(buffer) != num_elements * dtype.itemsize:
        raise InvalidResponse(
            f"expected {num_elements * dtype.itemsize} bytes for {datatype} {list(shape)}, found {len(buffer)} bytes"
        )
    return copy_of(np.ndarray(shape, dtype, buffer)) if num_elements else empty(shape, dtype)


def decode_start(memory: memoryview, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the tensor that memory begins with, where only the shape tells how much of it that is.

    Raises:
        InvalidResponse: the memory is too small for a tensor of that type and shape.
    """
    dtype, num_elements = described(datatype, shape)
    if datatype == "BYTES":
        # Lengths that another process could change meanwhile are not walked: a copy of our own is.
        return _strings(bytes(memory), num_elements, shape, to_the_end=False)
    return decode(memory[: num_elements * dtype.itemsize], datatype, shape)


@lru_cache(maxsize=4096)  # answers describe the same few tensors again and again
def described(datatype: str, shape: tuple[int, ...]) -> tuple[np.dtype[Any], int]:
    """Return the NumPy type, and the number of elements, of a tensor that a server describes.

    Raises:
        InvalidResponse: there is no such data type, there are more dimensions than NumPy knows, or one is negative.
    """
    dtype = numpy_dtype(datatype)
    if dtype is None:
        raise InvalidResponse(f"expected one of Triton's data types, found {datatype!r}")
    if len(shape) > MAX_DIMS or min(shape, default=0) < 0:
        raise InvalidResponse(f"expected at most {MAX_DIMS} dimensions of 0 or more, found {list(shape)}")
    return dtype, math.prod(shape)


def copy_of(array: NDArray[Any]) -> NDArray[Any]:
    """Return a row-major copy that is aligned if it is large."""
    if array.nbytes < ALIGNED_FROM_BYTES:
        return array.copy()
    copy = room_for(array.shape, array.dtype)
    copy[...] = array
    return copy


def room_for(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array to be filled, which is aligned if it is large."""
    size = math.prod(shape) * dtype.itemsize
    if size < ALIGNED_FROM_BYTES or dtype.hasobject:
        return np.empty(shape, dtype)
    room = np.empty(size + ALIGNMENT, np.uint8)
    address = addressof(c_char.from_buffer(room.data))  # a third of the time that room.ctypes.data takes
    return np.ndarray(shape, dtype, room, -address % ALIGNMENT)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array without an element.

    Raises:
        InvalidResponse: its other dimensions are absurd.
    """
    try:
        return np.empty(shape, dtype)
    except ValueError as exc:
        raise InvalidResponse(f"expected the shape of an array, found {list(shape)}: {exc}") from exc


def _strings(buffer: Buffer, num_elements: int, shape: tuple[int, ...], *, to_the_end: bool) -> NDArray[Any]:
    try:
        strings = decode_strings(buffer, num_elements, to_the_end=to_the_end)
    except InvalidResponse as exc:
        raise InvalidResponse(f"BYTES {list(shape)}: {exc}") from exc
    return strings.reshape(shape) if num_elements else empty(shape, strings.dtype)
