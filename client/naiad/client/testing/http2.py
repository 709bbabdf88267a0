"""HTTP/2 frames as bytes, for answers that no proper server gives.

Source: RFC 9113 (frames), RFC 7541 (header fields, here always literal and never indexed), and the gRPC protocol's
"HTTP/2 transport mapping".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

DATA: Final = 0x0
HEADERS: Final = 0x1
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PING: Final = 0x6
GOAWAY: Final = 0x7
CONTINUATION: Final = 0x9
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
HEADER_BYTES: Final = 9
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends before its first frame."""
MAX_FRAME_BYTES: Final = 16_384
"""The largest payload that every peer takes."""

RESPONSE: Final = ((":status", "200"), ("content-type", "application/grpc"))
"""The header fields before a gRPC answer."""
OK: Final = (("grpc-status", "0"),)
"""The header fields after one."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def field_block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return header fields as HPACK literals without indexing, so that no table changes."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)


def headers(stream: int, fields: Iterable[tuple[str, str]], *, end: bool = False) -> bytes:
    """Return header fields as one HEADERS frame and as many CONTINUATION frames as they need."""
    block = field_block(fields)
    pieces = [block[at : at + MAX_FRAME_BYTES] for at in range(0, len(block), MAX_FRAME_BYTES)] or [b""]
    out = []
    for number, piece in enumerate(pieces):
        flags = (END_STREAM if end and number == 0 else 0) | (END_HEADERS if piece is pieces[-1] else 0)
        out.append(frame(CONTINUATION if number else HEADERS, flags, stream, piece))
    return b"".join(out)


def data(stream: int, payload: bytes, *, end: bool = False) -> bytes:
    """Return bytes of a body as DATA frames."""
    pieces = [payload[at : at + MAX_FRAME_BYTES] for at in range(0, len(payload), MAX_FRAME_BYTES)] or [b""]
    ends = [0] * (len(pieces) - 1) + [END_STREAM if end else 0]
    return b"".join(frame(DATA, flags, stream, piece) for piece, flags in zip(pieces, ends, strict=True))


def message(content: bytes, *, announced: int | None = None) -> bytes:
    """Return a gRPC message with its five bytes before it, which may announce another length than it has."""
    return struct.pack(">BI", 0, len(content) if announced is None else announced) + content


def rst_stream(stream: int, error: int = 0x2) -> bytes:
    """Return the end of a stream by an error; 2 is INTERNAL_ERROR, 8 CANCEL, 7 REFUSED_STREAM."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", error))


def goaway(last_stream: int, error: int = 0x0, text: bytes = b"") -> bytes:
    """Return the announcement that streams after ``last_stream`` were not and will not be processed."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream, error) + text)


def _text(text: str) -> bytes:
    raw = text.encode()
    return _number(len(raw)) + raw


def _number(value: int) -> bytes:
    """Encode an HPACK integer with a prefix of seven bits; the eighth, for Huffman, stays 0."""
    if value < 0x7F:
        return bytes((value,))
    out, value = bytearray((0x7F,)), value - 0x7F
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
