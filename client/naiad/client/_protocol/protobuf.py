"""protobuf's wire format: numbers and fields to bytes, and bytes to fields.

Source: https://protobuf.dev/programming-guides/encoding/. Reading is as strict as protobuf's own parser for Python.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from naiad.client.errors import InvalidResponse

VARINT, FIXED64, BYTES, GROUP, END_OF_GROUP, FIXED32 = 0, 1, 2, 3, 4, 5
DOUBLE: Final = struct.Struct("<d")
_MAX_VARINT_BYTES: Final = 10
_MAX_KEY_BYTES: Final = 5  # of keys and lengths, which have 32 bits
_MAX_KEY: Final = 2**32 - 1  # field numbers have 29 bits, and the lowest is 1
_MAX_DEPTH: Final = 96  # of groups within groups; protobuf's parsers take 100, with the messages around them


def varint(value: int) -> bytes:
    """Encode a number; negative ones take ten bytes, as protobuf's int64 does."""
    if 0 <= value < 0x80:
        return value.to_bytes(1, "little")
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire_type: int) -> bytes:
    """Encode what a field begins with."""
    return varint(number << 3 | wire_type)


def nested(number: int, payload: bytes) -> bytes:
    """Encode a field of bytes or of another message."""
    return tag(number, BYTES) + varint(len(payload)) + payload


def text(number: int, value: str) -> bytes:
    """Encode a field of text; one without any is left out."""
    return nested(number, value.encode()) if value else b""


Value = int | memoryview | bytes  # a varint, something with a length, or four or eight bytes without one


def fields(view: memoryview) -> Iterator[tuple[int, Value]]:
    """Walk a message: (field number, value); a group, which nothing in this protocol is, comes as field 0.

    Raises:
        InvalidResponse: the message is cut off, or is none.
    """
    at, end = 0, len(view)
    while at < end:
        key = view[at]
        at += 1
        if key > 0x7F:
            key, at = _read_varint(view, at - 1, _MAX_KEY_BYTES)
        if not 7 < key <= _MAX_KEY:
            raise InvalidResponse(f"expected a protobuf field, found number {key >> 3}")
        wire_type = key & 7
        if wire_type == BYTES:
            if at < end and view[at] < 0x80:
                size = view[at]
                at += 1
            else:
                size, at = _read_varint(view, at, _MAX_KEY_BYTES)
            after = at + size
            if after > end:
                raise _cut_off(key >> 3, size, end - at)
            yield key >> 3, view[at:after]
            at = after
        elif wire_type == VARINT:
            value, at = _read_varint(view, at)
            yield key >> 3, value
        elif wire_type == GROUP:
            at = _end_of_group(view, at, key >> 3)
            yield 0, b""
        else:
            size = _fixed_size(wire_type)
            if at + size > end:
                raise _cut_off(key >> 3, size, end - at)
            yield key >> 3, view[at : at + size].tobytes()
            at += size


def _cut_off(number: int, size: int, left: int) -> InvalidResponse:
    return InvalidResponse(f"the message ends within field {number} ({size} bytes announced, {left} left)")


def _end_of_group(view: memoryview, at: int, number: int) -> int:
    """Return where the group ends whose first field is at ``at``."""
    opened = [number]
    while opened:
        key, at = _read_varint(view, at, _MAX_KEY_BYTES)
        number, wire_type = key >> 3, key & 7
        if not 7 < key <= _MAX_KEY:
            raise InvalidResponse(f"expected a protobuf field, found number {number}")
        if wire_type == GROUP:
            opened.append(number)
            if len(opened) > _MAX_DEPTH:
                raise InvalidResponse(f"expected groups within at most {_MAX_DEPTH} others, found more")
        elif wire_type == END_OF_GROUP:
            if opened.pop() != number:
                raise InvalidResponse(f"expected the end of another group, found that of {number}")
        elif wire_type == VARINT:
            _, at = _read_varint(view, at)
        elif wire_type == BYTES:
            size, at = _read_varint(view, at, _MAX_KEY_BYTES)
            at += size
        else:
            at += _fixed_size(wire_type)
    return at


def _fixed_size(wire_type: int) -> int:
    if wire_type == FIXED64:
        return 8
    if wire_type == FIXED32:
        return 4
    raise InvalidResponse(f"expected a protobuf field, found wire type {wire_type}")


def _read_varint(view: memoryview, at: int, max_bytes: int = _MAX_VARINT_BYTES) -> tuple[int, int]:
    value = 0
    for shift, position in enumerate(range(at, min(at + max_bytes, len(view)))):
        byte = view[position]
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position + 1
    raise InvalidResponse(f"the message ends within a number, or the number goes on after {max_bytes} bytes")


def packed(view: memoryview) -> Iterator[int]:
    """Walk a repeated int64 field."""
    at = 0
    while at < len(view):
        value, at = _read_varint(view, at)
        yield signed(value)


def signed(value: int) -> int:
    """Return the int64 that a varint stands for."""
    return value - 2**64 if value >= 2**63 else value


def number_of(value: Value) -> int:
    """Return the value of a varint field; raise :class:`InvalidResponse` for another kind."""
    if not isinstance(value, int):
        raise InvalidResponse("expected a number, found bytes")
    return value


def double_of(value: Value) -> float:
    """Return the value of a double field; raise :class:`InvalidResponse` for another kind."""
    if not isinstance(value, bytes) or len(value) != DOUBLE.size:
        raise InvalidResponse(f"expected a double of {DOUBLE.size} bytes, found another kind of field")
    return float(DOUBLE.unpack(value)[0])


def view_of(value: Value) -> memoryview:
    """Return the contents of a field that has a length; raise :class:`InvalidResponse` for another kind."""
    if not isinstance(value, memoryview):
        raise InvalidResponse("expected bytes with their length, found a number")
    return value


def string_of(value: Value) -> str:
    """Return the text of a field; raise :class:`InvalidResponse` for another kind, and for what is no UTF-8."""
    try:
        return str(view_of(value), "utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidResponse(f"expected UTF-8 text, found {bytes(view_of(value))[:40]!r}") from exc
