"""HTTP/2 frame by frame, for requests that no library would send."""

import socket
from collections.abc import Sequence

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """One frame (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def block(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Headers as literals without an index (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def _text(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, size = len(text) - 127, b"\x7f"
    while rest >= 128:
        rest, size = rest >> 7, size + bytes([rest & 127 | 128])
    return size + bytes([rest]) + text


def request(headers: Sequence[tuple[bytes, bytes]], body: bytes | None = None, *, stream: int = 1) -> bytes:
    """A request of one header frame and, perhaps, one data frame."""
    ends = END_STREAM if body is None else 0
    frames = frame(HEADERS, block(headers), flags=END_HEADERS | ends, stream=stream)
    return frames if body is None else frames + frame(DATA, body, flags=END_STREAM, stream=stream)


def exchange(connection: socket.socket, frames: bytes) -> str:
    """Send frames; returns `reset`, `closed`, or the status that came first."""
    try:
        connection.sendall(PREFACE + frame(SETTINGS) + frames)
        while head := _read(connection, 9):
            payload = _read(connection, int.from_bytes(head[:3], "big"))
            if head[3] == HEADERS:
                return _status(payload)
            if head[3] == RST_STREAM:
                return "reset"
            if head[3] == GOAWAY:
                return "closed"
    except OSError:
        pass
    return "closed"


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def _status(payload: bytes) -> str:
    """`:status` comes first: one of the static table, or a literal with that table's name."""
    static = {0x88: "200", 0x89: "204", 0x8A: "206", 0x8B: "304", 0x8C: "400", 0x8D: "404", 0x8E: "500"}
    return static.get(payload[0], "another status")
