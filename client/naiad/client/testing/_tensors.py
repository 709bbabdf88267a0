"""Tensors of a request and an answer; apart from the client's own code, so that neither hides the other's errors."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naiad.client._protocol.datatypes import numpy_dtype, triton_datatype
from naiad.client.testing._status import Refusal, invalid

TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def split_strings(data: bytes, name: str, model: str = "", request_id: str = "") -> list[bytes]:
    """Read the strings of a BYTES input; each has its length before it, in four bytes.

    Raises:
        Refusal: the data ends within one.
    """
    strings, at = list[bytes](), 0
    while at < len(data):
        if at + 4 > len(data):
            raise invalid(
                f"incomplete string length indicator for inference input '{name}' for model '{model}', expecting 4 "
                f"bytes but only {len(data) - at} bytes available. Please make sure the string length indicator is in "
                "one buffer.",
                request_id,
            )
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + size > len(data):
            raise invalid(
                f"incomplete string data for inference input '{name}', expecting string of length {size} but only "
                f"{len(data) - at} bytes available"
            )
        strings.append(data[at : at + size])
        at += size
    return strings


def num_elements(shape: tuple[int, ...]) -> int:
    """Return how many elements a tensor of that shape has."""
    total = 1
    for dim in shape:
        total *= dim
    return total


def decode(data: bytes, datatype: str, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """Return the array that ``data`` holds; its size must have been checked."""
    if datatype == "BYTES":
        array = np.empty(num_elements(shape), np.object_)
        array[:] = split_strings(data, name)
        return array.reshape(shape)
    return np.frombuffer(bytearray(data), numpy_dtype(datatype)).reshape(shape)


def encode(array: NDArray[Any], datatype: str) -> bytes:
    """Return the bytes of an array as they go over the wire."""
    if datatype != "BYTES":
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
    items = [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()]
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def typed_contents(tensor: Any, model: str) -> bytes | None:
    """Return the raw form of an input whose values are in the typed fields, ``None`` if there are none.

    Raises:
        Refusal: the values are in the field of another type.
    """
    used = [field.name for field, _ in tensor.contents.ListFields()]
    if not used:
        return None
    expected = TYPED_FIELDS.get(tensor.datatype)
    for field in used:
        if field != expected:
            raise invalid(
                f"unexpected explicit tensor data for input tensor '{tensor.name}' for model '{model}' of type "
                f"'{_type_of(field)}', expected datatype '{tensor.datatype}'"
            )
    values = list(getattr(tensor.contents, used[0]))
    array = np.empty(len(values), numpy_dtype(tensor.datatype))
    array[:] = values
    return encode(array, tensor.datatype)


def _type_of(field: str) -> str:
    return {"int_contents": "INT32", "uint_contents": "UINT32"}.get(field, field.removesuffix("_contents").upper())


def as_output(value: Any, datatype: str | None, name: str, model: str) -> tuple[NDArray[Any], str]:
    """Return what a model's function gave as an array, with its Triton data type.

    Arrays keep their type; numbers, strings and lists take ``datatype`` where it is declared.

    Raises:
        Refusal: Triton has no such type, or it is another one than declared.
    """
    has_type = hasattr(value, "dtype") or hasattr(value, "__dlpack__")
    wanted = None if has_type or datatype is None else numpy_dtype(datatype)
    array = np.asarray(value, dtype=wanted)
    found = triton_datatype(array.dtype)
    if found is None or found != (datatype or found):
        raise Refusal(
            f"output '{name}' of model '{model}' is {datatype or 'of no type that Triton has'}: its function gave "
            f"{array.dtype}",
            "INTERNAL",
        )
    return array, found
