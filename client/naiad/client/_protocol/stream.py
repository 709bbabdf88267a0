"""The answers of a ModelStreamInfer: what each message means, and when the last one has come.

A message is a ModelInferResponse in an envelope of two fields: ``error_message`` (1) and ``infer_response`` (2). Triton
marks each with the parameter ``triton_final_response``. A model may finish without a last part; the mark then comes
with an empty response, which has to be asked for and is not shown to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from naiad.client._protocol.protobuf import fields, string_of, view_of
from naiad.client._protocol.request import NO_OPTIONS, InferOptions
from naiad.client.errors import InvalidResponse
from naiad.client.result import Result

METHOD: Final = "ModelStreamInfer"
_RESPONSE_TAG: Final = 2 << 3 | 2
_FINAL: Final = "triton_final_response"
_ASK_FOR_FINAL: Final = {"triton_enable_empty_final_response": True}
_ASKING: Final = InferOptions(parameters=_ASK_FOR_FINAL)

# An error within a stream has no status, only its text (with the header `triton_grpc_error` it would have one, but
# Triton up to 2.67 reads freed memory then and dies). These are the texts of Triton's own refusals; whatever else comes
# is the model's. Source: triton-inference-server/core, infer_request.cc and model_lifecycle.cc of r24.10.
_REFUSALS: Final = (
    ("Request for unknown model", "NOT_FOUND"),
    ("Exceeds maximum queue size", "UNAVAILABLE"),
    ("Request timeout expired", "UNAVAILABLE"),
    ("Server is stopping", "UNAVAILABLE"),
    ("must specify the START flag", "INVALID_ARGUMENT"),
    ("must specify a non-zero or non-empty correlation ID", "INVALID_ARGUMENT"),
    ("unexpected inference input", "INVALID_ARGUMENT"),
    ("unexpected inference output", "INVALID_ARGUMENT"),
    ("unexpected shape for input", "INVALID_ARGUMENT"),
    ("data-type is '", "INVALID_ARGUMENT"),
    ("input(s) but got", "INVALID_ARGUMENT"),
    ("inputs but got", "INVALID_ARGUMENT"),
    ("batch-size must be <=", "INVALID_ARGUMENT"),
)


class Refused(Exception):
    """The server answered with an error: the gRPC status that it would be alone (``"NOT_FOUND"``), and its text."""

    def __init__(self, details: str) -> None:
        super().__init__(details)
        self.status = status_of(details)
        self.details = details


def status_of(details: str) -> str:
    """Return the gRPC status that an error within a stream stands for."""
    return next((status for text, status in _REFUSALS if text in details), "INTERNAL")


def asking_for_final(options: InferOptions) -> InferOptions:
    """Return ``options`` with the wish to be told of the end, even where it comes without a part."""
    if options is NO_OPTIONS:
        return _ASKING
    return replace(options, parameters={**_ASK_FOR_FINAL, **(options.parameters or {})})


class Parts:
    """The parts of one stream, read from its messages; knows whether there are more."""

    __slots__ = ("_decode", "_marked", "final", "num_bytes", "num_parts")

    def __init__(self, decode: Callable[[bytes], Result]) -> None:
        self._decode = decode
        self._marked = False
        self.final = False
        """Whether the last message has come."""
        self.num_parts = 0
        self.num_bytes = 0

    def read(self, message: bytes) -> Result | None:
        """Return the part that ``message`` carries; ``None`` for an end without one.

        Raises:
            Refused: it carries an error.
            InvalidResponse: it is no message of a stream.
        """
        self.num_bytes += len(message)
        details, response = open_envelope(message)
        if details:
            raise Refused(details)
        result = self._decode(response)
        mark = result.parameters.pop(_FINAL, None)
        if mark is not None:
            self._marked = True
            self.final = mark is True
        if self.final and not result:
            return None
        self.num_parts += 1
        return result

    def ended(self) -> None:
        """Note that the server closed the stream.

        Raises:
            InvalidResponse: it did so before the end that it promised to mark.
        """
        if self._marked and not self.final:
            raise InvalidResponse(f"the stream was closed after {self.num_parts} parts, before the final response")
        self.final = True


def open_envelope(message: bytes) -> tuple[str, bytes]:
    """Return the ``error_message`` and the ``infer_response`` of a ModelStreamInferResponse; either may be empty.

    Raises:
        InvalidResponse: the message is cut off, or is none.
    """
    if len(message) > 1 and message[0] == _RESPONSE_TAG and message[1] < 0x80 and len(message) == message[1] + 2:
        return "", message[2:]  # a small part, as nearly all of a stream of tokens are
    details, responses = "", list[memoryview]()
    for number, value in fields(memoryview(message)):
        if number == 1:
            details = string_of(value)
        elif number == 2:
            responses.append(view_of(value))
    return details, b"".join(responses)  # of several, protobuf says that they are one in pieces
