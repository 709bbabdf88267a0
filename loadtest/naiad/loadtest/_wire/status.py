"""gRPC over HTTP/2: how a call ended, and what its header fields say.

Source: the gRPC protocol's "HTTP/2 transport mapping" and "HTTP to gRPC status code mapping".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import unquote

from naiad.loadtest._wire.hpack import Field

__all__ = ["Head", "grpc_timeout", "status_of_reset"]

OK: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16

_OF_HTTP: Final = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    429: UNAVAILABLE,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}
_RESETS: Final = {
    0x0: (INTERNAL, "NO_ERROR"),
    0x1: (INTERNAL, "PROTOCOL_ERROR"),
    0x2: (INTERNAL, "INTERNAL_ERROR"),
    0x3: (INTERNAL, "FLOW_CONTROL_ERROR"),
    0x4: (INTERNAL, "SETTINGS_TIMEOUT"),
    0x5: (UNKNOWN, "STREAM_CLOSED"),
    0x6: (INTERNAL, "FRAME_SIZE_ERROR"),
    0x7: (UNAVAILABLE, "REFUSED_STREAM"),
    0x8: (CANCELLED, "CANCEL"),
    0x9: (INTERNAL, "COMPRESSION_ERROR"),
    0xA: (INTERNAL, "CONNECT_ERROR"),
    0xB: (RESOURCE_EXHAUSTED, "ENHANCE_YOUR_CALM"),
    0xC: (PERMISSION_DENIED, "INADEQUATE_SECURITY"),
    0xD: (UNKNOWN, "HTTP_1_1_REQUIRED"),
}
_TIMEOUT_UNITS: Final = ((1e9, "n"), (1e6, "u"), (1e3, "m"), (1.0, "S"), (1 / 60, "M"), (1 / 3600, "H"))
_MAX_TIMEOUT: Final = 99_999_999


class Head(NamedTuple):
    """What a block of header fields means for its call."""

    problem: tuple[int, str] | None
    """Before an answer: status and details where it is none of gRPC."""
    ending: tuple[int, str]
    """At the end: status and details."""
    interim: bool
    """Whether the proper header fields are still to come (HTTP status 1xx)."""
    path: str
    """The method's; only requests have one."""

    @classmethod
    def of(cls, fields: Iterable[Field]) -> Head:
        """Read the fields."""
        found = dict(fields)
        http = _int_of(found.get(":status", ""))
        problem = _problem(http, found) if http is not None else (INTERNAL, "an answer came without an HTTP status")
        ending = _ending(found, problem if http is not None else None)
        return cls(problem, ending, http is not None and 100 <= http < 200, found.get(":path", ""))


def status_of_reset(code: int) -> tuple[int, str]:
    """Return the status and details of a call whose stream the server reset."""
    status, name = _RESETS.get(code, (UNKNOWN, f"error {code}"))
    return status, f"the server reset the stream: {name}"


def grpc_timeout(timeout_s: float) -> str:
    """Return the value of the header field ``grpc-timeout``: at most eight digits, and a unit."""
    for per_second, unit in _TIMEOUT_UNITS:
        if (number := math.ceil(timeout_s * per_second)) <= _MAX_TIMEOUT:
            return f"{max(number, 1)}{unit}"
    return f"{_MAX_TIMEOUT}H"


def _problem(http: int, found: dict[str, str]) -> tuple[int, str] | None:
    if http != 200:
        return _OF_HTTP.get(http, UNKNOWN), f"the server answered with HTTP status {http}, which is not gRPC"
    content_type = found.get("content-type", "")
    if not content_type.startswith("application/grpc"):
        return UNKNOWN, f"expected an answer of type application/grpc, found {content_type!r}"
    if (encoding := found.get("grpc-encoding", "identity")) != "identity":
        return INTERNAL, f"the answer is compressed ({encoding}), which was not asked for"
    return None


def _ending(found: dict[str, str], problem: tuple[int, str] | None) -> tuple[int, str]:
    if (text := found.get("grpc-status")) is not None:
        status = _int_of(text)
        return UNKNOWN if status is None else status, _details(found.get("grpc-message", ""))
    return problem or (UNKNOWN, "the server ended the call without a gRPC status")


def _details(raw: str) -> str:
    """Decode ``grpc-message``, which is UTF-8 with percent signs; what is not stays as it is."""
    return unquote(raw, errors="replace")


def _int_of(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
