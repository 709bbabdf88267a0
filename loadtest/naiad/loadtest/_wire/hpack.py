"""Header fields of HTTP/2: reading and writing them (RFC 7541)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from naiad.loadtest._wire.frames import COMPRESSION_ERROR, FIRST_TABLE_BYTES, ProtocolError
from naiad.loadtest._wire.huffman import decode_huffman

__all__ = ["Field", "FieldReader", "FieldWriter"]

Field = tuple[str, str]

_NAMES: Final = """
accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control
content-disposition content-encoding content-language content-length content-location content-range content-type cookie
date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified
link location max-forwards proxy-authenticate proxy-authorization range referer refresh retry-after server set-cookie
strict-transport-security transfer-encoding user-agent vary via www-authenticate
"""
_STATIC: Final[tuple[Field, ...]] = (
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    *((name, "") for name in _NAMES.split()),
)
_NUM_STATIC: Final = len(_STATIC)
_FIRST_DYNAMIC: Final = _NUM_STATIC + 1
_FIELD_OVERHEAD: Final = 32
_MAX_NUMBER: Final = 1 << 31
_STATIC_FIELDS: Final = {field: number for number, field in enumerate(_STATIC, 1) if field[1]}
_STATIC_NAMES: Final = {name: number for number, (name, _) in reversed([*enumerate(_STATIC, 1)])}


class FieldReader:
    """Decodes header blocks; keeps the table that the other side's encoder fills."""

    def __init__(self, max_table_bytes: int = FIRST_TABLE_BYTES) -> None:
        self._allowed_bytes = self._max_bytes = max_table_bytes
        self._table: deque[Field] = deque()
        self._table_bytes = 0
        self.num_changes = 0
        """How often the table changed; as long as it did not, the same bytes have the same meaning."""

    def read(self, block: bytes) -> list[Field]:
        """Decode a header block.

        Raises:
            ProtocolError: it is none.
        """
        fields: list[Field] = []
        at = 0
        try:
            while at < len(block):
                at = self._next(block, at, fields)
        except IndexError:
            raise ProtocolError("a header block ends within a field", COMPRESSION_ERROR) from None
        return fields

    def _next(self, block: bytes, at: int, fields: list[Field]) -> int:
        first = block[at]
        if first & 0x80:
            number, at = _read_number(block, at, 7)
            fields.append(self._field(number))
        elif first & 0x40:
            field, at = self._literal(block, at, 6)
            fields.append(field)
            self._insert(field)
        elif first & 0x20:
            size, at = _read_number(block, at, 5)
            if size > self._allowed_bytes:
                raise ProtocolError(f"a header block wants a table of {size} bytes", COMPRESSION_ERROR)
            self._max_bytes = size
            self._evict()
        else:
            field, at = self._literal(block, at, 4)
            fields.append(field)
        return at

    def _field(self, number: int) -> Field:
        if 1 <= number <= _NUM_STATIC:
            return _STATIC[number - 1]
        if not 0 <= number - _FIRST_DYNAMIC < len(self._table):
            raise ProtocolError(f"a header block names field {number}, which there is not", COMPRESSION_ERROR)
        return self._table[number - _FIRST_DYNAMIC]

    def _literal(self, block: bytes, at: int, prefix_bits: int) -> tuple[Field, int]:
        number, at = _read_number(block, at, prefix_bits)
        if number:
            name = self._field(number)[0]
        else:
            name, at = _read_text(block, at)
        value, at = _read_text(block, at)
        return (name, value), at

    def _insert(self, field: Field) -> None:
        self._table.appendleft(field)
        self._table_bytes += _size(field)
        self._evict()

    def _evict(self) -> None:
        self.num_changes += 1
        while self._table_bytes > self._max_bytes:
            self._table_bytes -= _size(self._table.pop())


class FieldWriter:
    """Encodes header blocks. Fields enter the table once, as long as there is room, and never leave it."""

    def __init__(self, max_table_bytes: int = FIRST_TABLE_BYTES) -> None:
        self._table: dict[Field, int] = {}
        self._free_bytes = max_table_bytes
        self._update = b""  # what the next block has to begin with

    def write(self, fields: Iterable[Field]) -> tuple[bytes, bool]:
        """Encode fields; return them, and whether the same bytes may be sent again (nothing entered the table)."""
        again = not self._update
        out, self._update = [self._update], b""
        for field in fields:
            if (number := self._number_of(field)) is not None:
                out.append(_number(number, 7, 0x80))
                continue
            kept = _size(field) <= self._free_bytes
            name = _STATIC_NAMES.get(field[0], 0)
            out.append(_number(name, 6, 0x40) if kept else _number(name, 4, 0x00))
            out += (b"" if name else _text(field[0]), _text(field[1]))
            if kept:
                again = False
                self._free_bytes -= _size(field)
                self._table[field] = len(self._table)
        return b"".join(out), again

    def shrink(self, max_table_bytes: int) -> None:
        """Start the table anew, because the other side wants a smaller one."""
        self._table.clear()
        self._free_bytes = min(max_table_bytes, FIRST_TABLE_BYTES)
        self._update = _number(0, 5, 0x20) + _number(self._free_bytes, 5, 0x20)

    def _number_of(self, field: Field) -> int | None:
        if (position := self._table.get(field)) is not None:
            return _FIRST_DYNAMIC + len(self._table) - 1 - position
        return _STATIC_FIELDS.get(field)


def _size(field: Field) -> int:
    return len(field[0]) + len(field[1]) + _FIELD_OVERHEAD


def _read_number(block: bytes, at: int, prefix_bits: int) -> tuple[int, int]:
    limit = (1 << prefix_bits) - 1
    value = block[at] & limit
    at += 1
    if value < limit:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if value > _MAX_NUMBER:
            raise ProtocolError("a header block has a number that is too large", COMPRESSION_ERROR)
        if not byte & 0x80:
            return value, at


def _read_text(block: bytes, at: int) -> tuple[str, int]:
    coded = block[at] & 0x80
    size, at = _read_number(block, at, 7)
    raw = block[at : at + size]
    if len(raw) != size:
        raise IndexError
    return (decode_huffman(raw) if coded else raw).decode("latin-1"), at + size


def _number(value: int, prefix_bits: int, pattern: int) -> bytes:
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((pattern | value,))
    out, value = bytearray((pattern | limit,)), value - limit
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(text: str) -> bytes:
    raw = text.encode("latin-1")
    return _number(len(raw), 7, 0x00) + raw
