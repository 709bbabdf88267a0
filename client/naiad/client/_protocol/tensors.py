"""Tensors on the wire: little-endian, row-major bytes; strings carry a four-byte length each.

Source: "Inference Request/Response, raw contents" of the KServe v2 gRPC specification and Triton's BYTES extension.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naiad.client._protocol.datatypes import numpy_dtype
from naiad.client.errors import InvalidInput, InvalidResponse

Buffer = bytes | memoryview
Payload = bytes | NDArray[Any]  # an array stands for its own memory: row-major and little-endian
_LENGTH = struct.Struct("<I")


def as_array(value: Any, datatype: str | None = None) -> NDArray[Any]:
    """Return ``value`` as an array without changing the type of what already has one.

    Arrays stay as they are; other tensors come in through DLPack (no copy on the CPU); Python numbers, strings and
    lists have
    no type of their own and take that of ``datatype`` where it is known.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, np.generic):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(value)
    dtype = numpy_dtype(datatype) if datatype is not None and not hasattr(value, "__array__") else None
    try:
        return np.asarray(value, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidInput(
            f"expected an array{f' of {datatype}' if datatype else ''}, found {type(value).__name__}: {exc}"
        ) from exc


def _from_dlpack(value: Any) -> NDArray[Any]:
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as exc:
        raise InvalidInput(
            "expected a tensor that NumPy can read where it lies (on the CPU, detached), "
            f"found {type(value).__name__}: {exc}"
        ) from exc


def encode(array: NDArray[Any], datatype: str) -> Payload:
    """Return what goes over the wire for ``array``: the array itself where its memory is laid out right already.

    Raises:
        InvalidInput: an object array holds something else than ``str`` and ``bytes``.
    """
    if datatype == "BYTES":
        return _encode_strings(array)
    dtype = array.dtype
    if dtype.byteorder == ">":
        dtype = dtype.newbyteorder("<")
    elif array.flags.c_contiguous:
        return array
    return np.ascontiguousarray(array, dtype=dtype)


def decode(buffer: Buffer, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a writable array that owns its memory.

    Raises:
        InvalidResponse: the bytes do not make a tensor of that type and shape.
    """
    dtype = numpy_dtype(datatype)
    if dtype is None:
        raise InvalidResponse(f"expected one of Triton's data types, found {datatype!r}")
    num_elements = _num_elements(shape)
    if datatype == "BYTES":
        return _decode_strings(buffer, num_elements, shape)
    if len(buffer) != num_elements * dtype.itemsize:
        raise InvalidResponse(
            f"expected {num_elements * dtype.itemsize} bytes for {datatype} {list(shape)}, found {len(buffer)} bytes"
        )
    return np.ndarray(shape, dtype, buffer).copy() if num_elements else np.empty(shape, dtype)


def decode_start(memory: memoryview, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the tensor that memory begins with, where only the shape tells how much of it that is.

    Raises:
        InvalidResponse: the memory is too small for a tensor of that type and shape.
    """
    dtype = numpy_dtype(datatype)
    if datatype == "BYTES":
        # Lengths that another process could change meanwhile are not walked: a copy of our own is.
        return _decode_strings(bytes(memory), _num_elements(shape), shape, to_the_end=False)
    size = 0 if dtype is None else _num_elements(shape) * dtype.itemsize
    return decode(memory[:size], datatype, shape)


def _num_elements(shape: tuple[int, ...]) -> int:
    total = 1
    for dim in shape:
        if dim < 0:
            raise InvalidResponse(f"expected dimensions of 0 or more, found {list(shape)}")
        total *= dim
    return total


def _encode_strings(array: NDArray[Any]) -> bytes:
    parts: list[bytes] = []
    for item in array.reshape(-1).tolist():
        data = item if isinstance(item, bytes) else _to_bytes(item)
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
    return b"".join(parts)


def _to_bytes(item: object) -> bytes:
    if isinstance(item, str):
        return item.encode()
    raise InvalidInput(f"expected str or bytes in a BYTES tensor, found {type(item).__name__}")


def _decode_strings(buffer: Buffer, num_elements: int, shape: tuple[int, ...], to_the_end: bool = True) -> NDArray[Any]:
    if num_elements * _LENGTH.size > len(buffer):
        raise InvalidResponse(
            f"expected {num_elements} strings for BYTES {list(shape)}, found {len(buffer)} bytes in all"
        )
    array = np.empty(num_elements, np.object_)
    count = 0
    strings = _strings(memoryview(buffer))
    for count, item in enumerate(strings if to_the_end else islice(strings, num_elements), start=1):
        if count > num_elements:
            break
        array[count - 1] = item
    if count != num_elements:
        raise InvalidResponse(f"expected {num_elements} strings for BYTES {list(shape)}, found {count} or more")
    return array.reshape(shape)


def _strings(view: memoryview) -> Iterator[bytes]:
    at = 0
    while at < len(view):
        if at + _LENGTH.size > len(view):
            raise InvalidResponse("a BYTES tensor ends within the length of a string")
        (size,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if at + size > len(view):
            raise InvalidResponse(f"a BYTES tensor ends within a string of {size} bytes")
        yield bytes(view[at : at + size])
        at += size
