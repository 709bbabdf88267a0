"""HTTP/2 frames: their numbers, how they are written, and the settings that either side announces.

Source: RFC 9113. What a server that misbehaves would send is in :mod:`naiad.client.testing.http2`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["ProtocolError", "Settings", "frame", "goaway", "rst_stream", "settings", "window_update"]

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
FRAME_SIZE_ERROR: Final = 0x6
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER: Final = struct.Struct(">IBI")
"""A frame's first nine bytes: size and kind in one number (``size << 8 | kind``), flags, stream."""
HEADER_BYTES: Final = 9
MAX_STREAM: Final = 0x7FFF_FFFF
MAX_WINDOW: Final = 0x7FFF_FFFF
FIRST_WINDOW: Final = 65_535
"""Every window before anybody said otherwise."""
FIRST_MAX_FRAME_BYTES: Final = 16_384
MAX_FRAME_BYTES: Final = 0xFF_FFFF
FIRST_TABLE_BYTES: Final = 4_096

_SETTING: Final = struct.Struct(">HI")


class ProtocolError(Exception):
    """The other side did what HTTP/2 forbids; the connection cannot go on."""

    def __init__(self, message: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return HEADER.pack(len(payload) << 8 | kind, flags, stream) + payload


def start(kind: int, flags: int, size_bytes: int) -> bytes:
    """Return a frame's first five bytes: all of its header but the stream."""
    return HEADER.pack(size_bytes << 8 | kind, flags, 0)[:5]


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def window_update(stream: int, more_bytes: int) -> bytes:
    """Return the leave to send so many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, more_bytes.to_bytes(4, "big"))


def rst_stream(stream: int, code: int) -> bytes:
    """Return the end of a stream."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last_stream: int, code: int, text: str = "") -> bytes:
    """Return the end of a connection."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream, code) + text.encode())


def number_of(payload: bytes, kind: str) -> int:
    """Return the one number that a frame carries, without its reserved bit.

    Raises:
        ProtocolError: the frame has not the four bytes for it.
    """
    if len(payload) != 4:
        raise ProtocolError(f"{kind} has 4 bytes, found {len(payload)}", FRAME_SIZE_ERROR)
    return int.from_bytes(payload, "big") & MAX_STREAM


def unpad(flags: int, payload: bytes) -> bytes:
    """Return the payload of DATA or HEADERS without padding and priority.

    Raises:
        ProtocolError: there is more padding than payload.
    """
    begin, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ProtocolError("a padded frame has no length of its padding", FRAME_SIZE_ERROR)
        begin, end = 1, end - payload[0]
    if flags & WITH_PRIORITY:
        begin += 5
    if begin > end:
        raise ProtocolError("a frame has more padding than payload")
    return payload[begin:end]


class Settings:
    """What the other side announced."""

    __slots__ = ("max_frame_bytes", "max_streams", "table_bytes", "window_bytes")

    def __init__(self) -> None:
        self.max_frame_bytes = FIRST_MAX_FRAME_BYTES
        self.max_streams = MAX_STREAM
        self.table_bytes = FIRST_TABLE_BYTES
        self.window_bytes = FIRST_WINDOW

    def update(self, payload: bytes) -> None:
        """Take over a SETTINGS frame.

        Raises:
            ProtocolError: it has values that HTTP/2 forbids.
        """
        for name, value in _read_settings(payload):
            if name == HEADER_TABLE_SIZE:
                self.table_bytes = value
            elif name == MAX_CONCURRENT_STREAMS:
                self.max_streams = value
            elif name == INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise ProtocolError(f"SETTINGS announces a window of {value} bytes", FLOW_CONTROL_ERROR)
                self.window_bytes = value
            elif name == MAX_FRAME_SIZE:
                if not FIRST_MAX_FRAME_BYTES <= value <= MAX_FRAME_BYTES:
                    raise ProtocolError(f"SETTINGS announces frames of {value} bytes")
                self.max_frame_bytes = value


def _read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    if len(payload) % _SETTING.size:
        raise ProtocolError(f"SETTINGS has 6 bytes for each value, found {len(payload)}", FRAME_SIZE_ERROR)
    yield from _SETTING.iter_unpack(payload)
