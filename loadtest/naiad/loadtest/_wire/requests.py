"""The header fields of requests, encoded once for a connection."""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib import metadata
from typing import Final, NamedTuple

from naiad.loadtest._wire import frames
from naiad.loadtest._wire.hpack import Field, FieldWriter
from naiad.loadtest._wire.status import grpc_timeout

__all__ = ["MODEL_INFER", "MODEL_STREAM_INFER", "Opening", "RequestHeaders"]

_SERVICE: Final = "/inference.GRPCInferenceService/"
MODEL_INFER: Final = _SERVICE + "ModelInfer"
MODEL_STREAM_INFER: Final = _SERVICE + "ModelStreamInfer"
MAX_HEADERS_BYTES: Final = 8_192
"""Of the user's headers together: what fits one frame, and what gRPC servers take."""
_MAX_KEPT: Final = 256


class Opening(NamedTuple):
    """A HEADERS frame but for the number of its stream, which goes between."""

    start: bytes
    block: bytes
    timeout_ns: float


class RequestHeaders:
    """Header blocks by method and timeout. The server's table makes them a few bytes from the second request on."""

    def __init__(self, scheme: str, authority: str, headers: Iterable[Field]) -> None:
        self._before = ((":method", "POST"), (":scheme", scheme))
        self._after = (
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", f"naiad-loadtest/{_version()}"),
            *headers,
        )
        self._writer = FieldWriter()
        self.unary: dict[float | None, Opening] = {}
        """Of ModelInfer, by timeout, as far as they were made; :meth:`get` makes them."""
        self._kept = {MODEL_INFER: self.unary, MODEL_STREAM_INFER: dict[float | None, Opening]()}

    def shrink(self, max_table_bytes: int) -> None:
        """Keep to a smaller table of the server."""
        self._forget()
        self._writer.shrink(max_table_bytes)

    def get(self, method: str, timeout_s: float | None) -> Opening:
        """Return what opens a call. It has to be sent, and before what is returned next."""
        return self._kept[method].get(timeout_s) or self._make(method, timeout_s)

    def _make(self, method: str, timeout_s: float | None) -> Opening:
        timeout = () if timeout_s is None else (("grpc-timeout", grpc_timeout(timeout_s)),)
        block, again = self._writer.write((*self._before, (":path", method), *self._after, *timeout))
        start = frames.start(frames.HEADERS, frames.END_HEADERS, len(block))
        opening = Opening(start, block, math.inf if timeout_s is None else timeout_s * 1e9)
        if not again or len(self._kept[method]) >= _MAX_KEPT:
            self._forget()  # what is in the table has other numbers now
        if again:
            self._kept[method][timeout_s] = opening
        return opening

    def _forget(self) -> None:
        for kept in self._kept.values():
            kept.clear()


def _version() -> str:
    try:
        return metadata.version("naiad")
    except metadata.PackageNotFoundError:
        return "unknown"
