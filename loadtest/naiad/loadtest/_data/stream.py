"""The messages of a stream, read without their tensors: a generator reads many of them.

A message is an envelope (ModelStreamInferResponse) of two fields: ``error_message`` (1) and ``infer_response`` (2).
Triton marks every response to a request with the parameter ``triton_final_response``, errors of the model too.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["StreamAnswer", "outputs_in", "read_stream_message"]

_FINAL: Final = b"triton_final_response"
_YES: Final = b"\x12\x02\x08\x01"  # the value of a map's entry: an InferParameter (2) whose bool (1) is true
_SIZES: Final = {1: 8, 5: 4}  # of fields without a length, by wire type


class StreamAnswer(NamedTuple):
    """One message of a stream."""

    error: str
    """What the server says went wrong; empty where nothing did."""
    final: bool
    """Whether it is the last response to its request, as every one is that the server does not mark otherwise."""
    empty: bool
    """Whether it has no outputs: an error, or the end alone."""
    request_id: str
    """The id that its request had."""
    response: bytes
    """The ModelInferResponse in it."""


def read_stream_message(message: bytes) -> StreamAnswer:
    """Read a ModelStreamInferResponse; what is no such message is an answer with an error."""
    try:
        error, response = _open(message)
        request_id, final, empty = _look_into(response)
        return StreamAnswer(str(error, "utf-8"), final, empty, str(request_id, "utf-8"), response)
    except (IndexError, KeyError, ValueError) as exc:
        return StreamAnswer(f"the stream's message cannot be read: {exc!r}", True, True, "", b"")


def outputs_in(response: bytes) -> bytes:
    """Return what of a ModelInferResponse is its outputs: without its id, which differs from answer to answer."""
    at, size = 0, len(response)
    try:
        while at < size:
            number, _, after = _field(response, at)
            if number == 5:
                return response[at:]
            at = after
    except (IndexError, KeyError):
        return response  # it is none
    return b""


def _open(message: bytes) -> tuple[bytes, bytes]:
    error = response = b""
    at, size = 0, len(message)
    while at < size:
        number, start, at = _field(message, at)
        if number == 1:
            error = message[start:at]
        elif number == 2:
            response += message[start:at]  # of several, protobuf says that they are one in pieces
    if at > size:
        raise ValueError("it is cut off")
    return error, response


def _look_into(response: bytes) -> tuple[bytes, bool, bool]:
    request_id, final = b"", True
    at, size = 0, len(response)
    while at < size:
        number, start, at = _field(response, at)
        if number == 3:
            request_id = response[start:at]
        elif number == 4:
            if response.find(_FINAL, start, at) >= 0:
                final = response.endswith(_YES, start, at)
        elif number == 5:
            return request_id, final, False  # serialisers write fields in order: only outputs follow
    if at > size:
        raise ValueError("it is cut off")
    return request_id, final, True


def _field(message: bytes, at: int) -> tuple[int, int, int]:
    """Return number, start and end of the field at ``at``."""
    key = message[at]
    at += 1
    if key > 0x7F:
        key, at = _varint(message, at - 1)
    kind = key & 7
    if kind == 2:
        size = message[at]
        at += 1
        if size > 0x7F:
            size, at = _varint(message, at - 1)
        return key >> 3, at, at + size
    if kind == 0:
        return key >> 3, at, _varint(message, at)[1]
    return key >> 3, at, at + _SIZES[kind]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
