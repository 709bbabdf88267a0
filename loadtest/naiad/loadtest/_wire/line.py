"""A socket that never waits, with TLS or without."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["RECEIVE_BYTES", "Address", "BrokenLine", "Line", "TlsLine", "open_line"]

RECEIVE_BYTES: Final = 65_536
"""A call's worth; with more, the allocator maps fresh memory for every call."""
_UNDER_WAY: Final = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)
_MAX_PARTS: Final = 512
_NOWHERE: Final = bytearray(1 << 20)

Address = tuple[Any, ...]
"""As :func:`socket.getaddrinfo` gives it."""


def open_line(address: Address, host: str, tls: ssl.SSLContext | None) -> Line:
    """Begin to connect; all errors show in :meth:`Line.advance`."""
    family, kind, protocol, _, where = address
    raw = socket.socket(family, kind, protocol)
    raw.setblocking(False)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    error = raw.connect_ex(where)
    return Line(raw, error) if tls is None else TlsLine(raw, error, tls, host)


class Line:
    """A TCP connection."""

    hides_bytes = False
    """Whether it may hold bytes that waiting for the socket does not show."""

    def __init__(self, raw: socket.socket, error: int = 0) -> None:
        self._socket = raw
        self._error = error
        self.wants_write = True
        """Whether it has to be writable before :meth:`advance` is of use."""

    def fileno(self) -> int:
        """Return what to wait for."""
        return self._socket.fileno()

    def advance(self) -> bool:
        """Return whether the line stands; go on with what is needed for it.

        Raises:
            OSError: it will not.
        """
        error = self._error if self._error not in _UNDER_WAY else 0
        error = error or self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        try:
            self._socket.getpeername()
        except OSError as exc:
            if exc.errno == errno.ENOTCONN:
                return False
            raise
        self.wants_write = False
        return True

    def send(self, data: bytes | memoryview) -> int:
        """Hand bytes to the kernel; return how many it took."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def send_parts(self, parts: Sequence[bytes | memoryview]) -> int:
        """Hand several pieces to the kernel, uncopied; return how many bytes it took."""
        try:
            return self._socket.sendmsg(parts[:_MAX_PARTS])
        except BlockingIOError:
            return 0

    def receive(self) -> bytes | None:
        """Return what is there: empty at the end of the connection, ``None`` where there is nothing yet."""
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None

    def receive_into(self, view: memoryview) -> int | None:
        """Receive into an array; return how many bytes, as :meth:`receive` does."""
        try:
            return self._socket.recv_into(view)
        except BlockingIOError:
            return None

    def discard(self, num_bytes: int) -> int | None:
        """Receive, but let Linux drop the bytes where they are; return how many, as :meth:`receive` does."""
        try:
            return self._socket.recv_into(_NOWHERE, min(num_bytes, len(_NOWHERE)), socket.MSG_TRUNC)
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class TlsLine(Line):
    """A TCP connection with TLS, which has to agree on HTTP/2."""

    hides_bytes = True

    def __init__(self, raw: socket.socket, error: int, tls: ssl.SSLContext, host: str) -> None:
        super().__init__(raw, error)
        self._tls, self._host = tls, host
        self._secure: ssl.SSLSocket | None = None

    def advance(self) -> bool:
        """Connect, then shake hands."""
        if self._secure is None:
            if not super().advance():
                return False
            secure = self._tls.wrap_socket(self._socket, server_hostname=self._host, do_handshake_on_connect=False)
            self._socket = self._secure = secure
        try:
            self._secure.do_handshake()
        except ssl.SSLWantReadError:
            self.wants_write = False
            return False
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return False
        self.wants_write = False
        if self._secure.selected_alpn_protocol() not in ("h2", None):
            raise OSError(errno.EPROTO, "the server does not offer HTTP/2 (ALPN)")
        return True

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and send."""
        try:
            return self._socket.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0

    def send_parts(self, parts: Sequence[bytes | memoryview]) -> int:
        """Encrypt and send the first pieces."""
        return self.send(parts[0])

    def receive(self) -> bytes | None:
        """Receive and decrypt."""
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLEOFError:
            return b""

    def receive_into(self, view: memoryview) -> int | None:
        """Receive and decrypt into an array."""
        try:
            return self._socket.recv_into(view)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLEOFError:
            return 0


class BrokenLine(Line):
    """A line that could not even be begun: no such name, or no sockets left."""

    def __init__(self, error: OSError) -> None:
        self._reason = error

    def fileno(self) -> int:
        """Return what to wait for, which is nothing."""
        return -1

    def advance(self) -> bool:
        """Say why."""
        raise self._reason

    def close(self) -> None:
        """Nothing was opened."""
