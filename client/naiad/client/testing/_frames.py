"""The bytes of a connection read as HTTP/2 frames while they pass, so that some can be replaced, or added between."""

from __future__ import annotations

import secrets
import struct
import threading
from collections.abc import Callable
from typing import Final

from naiad.client.testing import http2

Script = Callable[[int, bool], bytes]
"""Gives the frames that answer a stream: by its number, and whether the header fields before the answer are among
them, or have gone out already."""
_MARK_BYTES: Final = 24
_MARKED_FRAME_BYTES: Final = 5 + _MARK_BYTES


class Marks:
    """Answers of a server that stand for scripts: the frames of a script go to the client instead."""

    def __init__(self) -> None:
        self._scripts: dict[bytes, tuple[Script, bool]] = {}
        self._lock = threading.Lock()

    def add(self, script: Script, *, cut: bool = False) -> bytes:
        """Return the message that the server has to answer with; with ``cut`` the connection breaks after it."""
        mark = secrets.token_bytes(_MARK_BYTES)
        with self._lock:
            self._scripts[mark] = script, cut
        return mark

    def pop(self, mark: bytes) -> tuple[Script, bool] | None:
        """Return the script of a mark, once."""
        with self._lock:
            return self._scripts.pop(mark, None)

    def __bool__(self) -> bool:
        return bool(self._scripts)


class Frames:
    """One direction of a connection. What is no HTTP/2 (TLS) passes untouched.

    The base class only looks; what passes is decided in :meth:`see`, for each frame with its header and payload.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._left = 0
        """Bytes of the present frame that are still to come, and pass."""
        self._dropping = False
        self._headers_open = False
        self.readable: bool | None = None
        """Whether this is HTTP/2; ``None`` as long as it cannot be told."""
        self.last_stream = 0
        self.cut = False
        """Whether the connection is to break after what was returned last."""

    def feed(self, data: bytes) -> bytes:
        """Take what came, return what goes on."""
        if self.readable is False:
            return data
        self._held += data
        if self.readable is None:
            self.readable = self.begins(self._held)
        if not self.readable:
            return self._unreadable()
        out = bytearray()
        while self._held and (self._pass_on(out) or self._next(out)):
            pass
        return bytes(out)

    def begins(self, first: bytearray) -> bool | None:
        """Whether the first bytes are those of HTTP/2; ``None`` if more are needed to tell."""
        raise NotImplementedError

    def wants_whole(self, kind: int, size: int, stream: int) -> bool:
        """Whether a frame is to be seen with its payload."""
        return False

    def see(self, kind: int, flags: int, stream: int, whole: bytes) -> bytes:
        """Return what goes on instead of a frame that was wanted whole."""
        return whole

    def drops(self, kind: int, flags: int, stream: int) -> bool:
        """Whether a frame is not passed on."""
        return False

    @property
    def between_frames(self) -> bool:
        """Whether something may be added here."""
        return self.readable is True and not self._left and not self._headers_open

    def _unreadable(self) -> bytes:
        if self.readable is None:
            return b""
        data = bytes(self._held)
        self._held.clear()
        return data

    def _pass_on(self, out: bytearray) -> bool:
        size = min(self._left, len(self._held))
        if not size:
            return False
        if not self._dropping:
            out += self._held[:size]
        del self._held[:size]
        self._left -= size
        return True

    def _next(self, out: bytearray) -> bool:
        if len(self._held) < http2.HEADER_BYTES:
            return False
        size = int.from_bytes(self._held[:3], "big")
        kind, flags, stream = struct.unpack_from(">BBI", self._held, 3)
        total = http2.HEADER_BYTES + size
        if self.wants_whole(kind, size, stream):
            if len(self._held) < total:
                return False
            whole = bytes(self._held[:total])
            del self._held[:total]
            out += self.see(kind, flags, stream, whole)
            return True
        self._dropping = self.drops(kind, flags, stream)
        self._left = total
        if not self._dropping:
            self._passing(kind, flags, stream)
        return True

    def _passing(self, kind: int, flags: int, stream: int) -> None:
        if kind in (http2.HEADERS, http2.CONTINUATION):
            self._headers_open = not flags & http2.END_HEADERS  # nothing may come between the two
            self.last_stream = max(self.last_stream, stream)


class FramesToServer(Frames):
    """What the client sends; after :meth:`close` no new stream gets through."""

    def __init__(self) -> None:
        super().__init__()
        self._closed_after: int | None = None

    def begins(self, first: bytearray) -> bool | None:
        """Look for the preface, which passes."""
        size = min(len(first), len(http2.PREFACE))
        if first[:size] != http2.PREFACE[:size]:
            return False
        if size < len(http2.PREFACE):
            return None
        self._left = size
        return True

    def close(self) -> int:
        """Let no stream through that begins from now on; return the number of the last that did."""
        if self._closed_after is None:
            self._closed_after = self.last_stream
        return self._closed_after

    def drops(self, kind: int, flags: int, stream: int) -> bool:
        """Drop the frames of streams that came too late."""
        return self._closed_after is not None and stream > self._closed_after


class FramesToClient(Frames):
    """What the server sends; an answer that is a mark is replaced by its script."""

    def __init__(self, marks: Marks | None) -> None:
        super().__init__()
        self._marks = marks
        self._held_headers: dict[int, bytes] = {}
        self._replaced: set[int] = set()

    def begins(self, first: bytearray) -> bool | None:
        """Look for a SETTINGS frame, which is short."""
        if first[:2] != bytes(len(first[:2])):
            return False
        return None if len(first) < 4 else first[3] == http2.SETTINGS

    def wants_whole(self, kind: int, size: int, stream: int) -> bool:
        """Look at answers as long as there are marks, and at whatever follows a HEADERS frame that waits."""
        if stream in self._held_headers or stream in self._replaced:
            return True
        return bool(self._marks) and stream != 0 and kind in (http2.HEADERS, http2.DATA)

    def see(self, kind: int, flags: int, stream: int, whole: bytes) -> bytes:
        """Hold the headers of an answer until it is known whether it is a mark."""
        if stream in self._replaced:
            if flags & http2.END_STREAM or kind == http2.RST_STREAM:
                self._replaced.discard(stream)
            return b""
        if kind == http2.HEADERS and not flags & http2.END_STREAM and stream not in self._held_headers:
            self._held_headers[stream] = whole
            return b""
        held = self._held_headers.pop(stream, b"")
        found = self._script(kind, whole)
        if found is None:
            return held + whole
        script, self.cut = found
        self._replaced.add(stream)
        return script(stream, bool(held))

    def _script(self, kind: int, whole: bytes) -> tuple[Script, bool] | None:
        if self._marks is None or kind != http2.DATA or len(whole) != http2.HEADER_BYTES + _MARKED_FRAME_BYTES:
            return None
        return self._marks.pop(whole[-_MARK_BYTES:])
