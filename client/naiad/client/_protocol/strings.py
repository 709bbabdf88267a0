"""BYTES tensors: each element is its length in four bytes, little-endian, and then itself.

Fixed-width arrays are handled as a whole, others element by element with as little Python between them as there can be.
Source: "BYTES" of Triton's binary tensor data extension.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from naiad.client.errors import InvalidInput, InvalidResponse

_LENGTH: Final = struct.Struct("<I")
_SHORT: Final = [_LENGTH.pack(size) for size in range(1024)]  # the lengths of most strings, packed
_BLOCK_BYTES: Final = 1 << 24  # how much of an array is worked on at a time, where that takes more memory than it has
_MAX_WIDENING: Final = 4  # how much larger fixed-width copies of other strings may be than those


def encode_strings(array: NDArray[Any]) -> bytes | NDArray[Any]:
    """Return the bytes of an array of ``str`` (as UTF-8) or ``bytes``, of any of NumPy's string types.

    Fixed-width elements (``S``, ``U``) are as long as NumPy says: without the NULs at their end.

    Raises:
        InvalidInput: an element is neither ``str`` nor ``bytes``, or is no text that UTF-8 can hold.
    """
    if array.dtype == object:
        return _encode_items(array.reshape(-1))
    flat = np.ascontiguousarray(array).reshape(-1)
    fixed = _fixed_width(flat)
    return _encode_fixed(fixed) if fixed is not None else _encode_items(flat)


def decode_strings(buffer: bytes | memoryview, num_elements: int, *, to_the_end: bool = True) -> NDArray[np.object_]:
    """Return the first ``num_elements`` strings as an object array of ``bytes``.

    Raises:
        InvalidResponse: there are fewer of them, or more, unless they need not go ``to_the_end``.
    """
    if num_elements * _LENGTH.size > len(buffer):
        raise InvalidResponse(f"expected {num_elements} strings, found {len(buffer)} bytes in all")
    array = np.empty(num_elements, np.object_)
    data = buffer if isinstance(buffer, bytes) else bytes(buffer)  # a slice of bytes is made faster than of a view
    items = _equally_long(data, num_elements)
    if items is None:
        items, end = _one_by_one(data, num_elements)
        if to_the_end and end != len(data):
            raise InvalidResponse(f"expected {num_elements} strings, found {len(data) - end} bytes after them")
    array[:] = items
    return array


def _fixed_width(flat: NDArray[Any]) -> NDArray[np.bytes_] | None:
    """Return the elements as an ``S`` array if that is what they are, or loses nothing of them."""
    kind = flat.dtype.kind
    if not flat.size or not flat.dtype.itemsize:
        return None
    if kind == "S":
        return flat
    if kind == "U":
        codes = flat.view(flat.dtype.str[0] + "u4")
        return codes.astype("u1").view(f"S{flat.dtype.itemsize // 4}") if codes.max() < 0x80 else None
    if kind == "T" and not hasattr(flat.dtype, "na_object"):
        return _narrowed(flat)
    return None


def _narrowed(flat: NDArray[Any]) -> NDArray[np.bytes_] | None:
    """Return the elements of a StringDType array as ``S`` if they are of similar length, ASCII and end with no NUL."""
    sizes = np.strings.str_len(flat)
    width = int(sizes.max())
    if width * len(flat) > _MAX_WIDENING * int(sizes.sum()):
        return None
    try:
        fixed = flat.astype(f"S{max(width, 1)}")
    except UnicodeEncodeError:
        return None
    return fixed if (fixed.astype(flat.dtype) == flat).all() else None


def _encode_fixed(flat: NDArray[np.bytes_]) -> bytes | NDArray[Any]:
    width = flat.dtype.itemsize
    # An element fills its width if its last byte is none of those that NumPy does not count.
    if flat.view("u1").reshape(len(flat), width)[:, -1].all():
        return _framed(flat, width).view("u1")
    rows = max(_BLOCK_BYTES // width, 1)
    return b"".join(_encode_shorter(flat[at : at + rows]) for at in range(0, len(flat), rows))


def _framed(flat: NDArray[np.bytes_], sizes: Any) -> NDArray[Any]:
    """Return the elements at their full width, each behind its length."""
    width = flat.dtype.itemsize
    framed = np.empty(len(flat), [("size", "<u4"), ("item", f"V{width}")])
    framed["size"] = sizes
    framed["item"] = flat.view(f"V{width}")
    return framed


def _encode_shorter(flat: NDArray[np.bytes_]) -> bytes:
    sizes = np.strings.str_len(flat)
    framed = _framed(flat, sizes).view("u1").reshape(len(flat), -1)
    return framed[np.arange(framed.shape[1]) < sizes[:, None] + _LENGTH.size].tobytes()


def _encode_items(flat: NDArray[Any]) -> bytes:
    try:
        items = _as_bytes(flat.tolist())
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"expected text in a BYTES tensor, found what is none: {exc}") from exc
    parts = [b""] * (2 * len(items))
    try:
        parts[::2] = [_SHORT[len(item)] for item in items]
    except IndexError:
        parts[::2] = [_LENGTH.pack(len(item)) for item in items]
    parts[1::2] = items
    return b"".join(parts)


def _as_bytes(items: list[Any]) -> list[bytes]:
    kinds = set(map(type, items))
    if kinds <= {bytes}:
        return items
    if kinds == {str}:
        return list(map(str.encode, items))
    return [item if isinstance(item, bytes) else _encoded(item) for item in items]


def _encoded(item: object) -> bytes:
    if isinstance(item, str):
        return item.encode()
    raise InvalidInput(f"expected str or bytes in a BYTES tensor, found {type(item).__name__}")


def _equally_long(data: bytes, num_elements: int) -> list[bytes] | None:
    """Return the strings if all of them have the length of the first, and nothing follows them."""
    if num_elements < 2:
        return None
    (width,) = _LENGTH.unpack_from(data)
    if (_LENGTH.size + width) * num_elements != len(data):
        return None
    framed = np.ndarray(num_elements, [("size", "<u4"), ("item", f"V{width}")], data)
    if not (framed["size"] == width).all():
        return None
    items: list[bytes] = framed["item"].tolist() if width else [b""] * num_elements
    return items


def _one_by_one(data: bytes, num_elements: int) -> tuple[list[bytes], int]:
    """Return the strings and where the last one ends."""
    items, read, at = list[bytes](), _LENGTH.unpack_from, 0
    try:
        for _ in range(num_elements):
            start = at + 4
            at = start + read(data, at)[0]
            items.append(data[start:at])
    except struct.error as exc:
        raise InvalidResponse(
            f"expected {num_elements} strings, found the end of the tensor after {len(items)}"
        ) from exc
    if at > len(data):
        raise InvalidResponse(f"expected {num_elements} strings, found the end of the tensor within one of them")
    return items, at
