"""The messages of a stream, read without their tensors: a generator reads many of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from naiad.client import ClientError, InvalidResponse

__all__ = ["StreamAnswer", "read_stream_message"]

_FINAL: Final = b"triton_final_response"


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """One ModelStreamInferResponse."""

    error: str
    """What the server says went wrong; empty where nothing did."""
    final: bool
    """Whether it is the last response to its request."""
    empty: bool
    """Whether it has no outputs: it says the end only."""
    request_id: str
    """The id that its request had."""
    response: bytes
    """The ModelInferResponse in it."""


def read_stream_message(message: bytes) -> StreamAnswer:
    """Read a ModelStreamInferResponse; what is no such message is an answer with an error."""
    try:
        return _read(message)
    except (ClientError, IndexError, ValueError) as exc:
        return StreamAnswer(f"the stream's message cannot be read: {exc}", True, True, "", b"")


def _read(message: bytes) -> StreamAnswer:
    error = b""
    response = b""
    for number, start, end in _fields(message):
        if number == 1:
            error = message[start:end]
        elif number == 2:
            response += message[start:end]
    request_id, final, empty = b"", False, True
    for number, start, end in _fields(response):
        if number == 3:
            request_id = response[start:end]
        elif number == 4:
            final = final or _says_final(response[start:end])
        elif number == 5:
            empty = False
            break  # what Triton's serialiser writes afterwards are outputs and their contents
    return StreamAnswer(error.decode(), final or bool(error), empty, request_id.decode(), response)


def _says_final(entry: bytes) -> bool:
    # The entry of a map: the key (field 1), then an InferParameter (field 2) whose bool is field 1, absent where false.
    return _FINAL in entry and entry.endswith(b"\x12\x02\x08\x01")


def _fields(message: bytes) -> list[tuple[int, int, int]]:
    found, at, size = list[tuple[int, int, int]](), 0, len(message)
    while at < size:
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 2:
            length, at = _varint(message, at)
            end = at + length
        elif kind == 0:
            _, end = _varint(message, at)
        else:
            end = at + {1: 8, 5: 4}[kind]
        if end > size:
            raise InvalidResponse("it is cut off")
        found.append((key >> 3, at, end))
        at = end
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
