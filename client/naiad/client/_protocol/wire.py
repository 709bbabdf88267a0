"""ModelInferRequest and ModelInferResponse, framed by hand.

A generated message would copy every tensor into the message and once more into its encoding; here the payload is
copied once, into the buffer that goes to the transport. Field numbers and types are those of ``grpc_service.proto``
(KServe v2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice, starmap
from typing import Any, Final, NamedTuple, cast

import numpy as np

from naiad.client._protocol.protobuf import (
    DOUBLE,
    FIXED64,
    VARINT,
    double_of,
    fields,
    nested,
    number_of,
    packed,
    signed,
    string_of,
    tag,
    text,
    varint,
    view_of,
)
from naiad.client._protocol.tensors import MAX_DIMS, Payload
from naiad.client.errors import InvalidInput, InvalidResponse

Parameter = bool | int | float | str
_MAX_KEPT_BYTES = 256
MAX_ENTRIES: Final = 1 << 14  # of outputs or parameters: each takes a hundred times its two bytes of message here
SHARED_REGION: Final = "shared_memory_region"  # these three parameters: "System-Shared-Memory Extension" of Triton
SHARED_OFFSET: Final = "shared_memory_offset"
SHARED_SIZE: Final = "shared_memory_byte_size"
QUEUE_TIMEOUT: Final = "timeout"  # in microseconds: "Schedule Policy Extension"
_UNSIGNED = frozenset({"priority"})  # the one parameter that Triton reads as uint64


class WireInput(NamedTuple):
    """One input as it is sent: Triton's data type, the full shape and the bytes.

    With ``place``, the bytes are not part of the message: these parameters say where the server finds them.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Payload
    place: Mapping[str, Parameter] | None = None

    @property
    def size_bytes(self) -> int:
        """How much there is to send or to place."""
        return self.data.nbytes if isinstance(self.data, np.ndarray) else len(self.data)


def encode_request(model: str, version: str, inputs: Sequence[WireInput], options: bytes = b"") -> bytes:
    """Encode a ModelInferRequest; the tensors are copied once, into the result.

    ``options`` are those of :func:`encode_options`. They come first: the order of fields means nothing to protobuf,
    and what follows them is the same for all requests with tensors of these names, types and shapes.
    """
    parts: list[Payload] = [options, _head(model, version)]
    for tensor in inputs:
        place = tensor.place
        header = _input_header if place is None else _input_header.__wrapped__  # places are many and seldom come back
        parts.append(header(tensor.name, tensor.datatype, tensor.shape, b"" if place is None else _map(4, place)))
    for tensor in inputs:
        if tensor.place is None:
            parts += (b"\x3a" + varint(tensor.size_bytes), tensor.data)  # field 7, raw_input_contents
    return b"".join(cast("list[bytes]", parts))  # join takes the memory of arrays as well


def encode_options(
    request_id: str, parameters: Mapping[str, Parameter], outputs: Sequence[tuple[str, Mapping[str, Parameter]]]
) -> bytes:
    """Encode what of a ModelInferRequest is neither the model nor its inputs."""
    return text(3, request_id) + _map(4, parameters) + b"".join(starmap(_output_header, outputs))


@lru_cache(maxsize=1024)
def encode_queue_timeout(milliseconds: int) -> bytes:
    """Encode the parameter that says how long a request may wait in the model's queue."""
    return _map_entry(4, QUEUE_TIMEOUT, milliseconds * 1000)


@lru_cache(maxsize=1024)
def _head(model: str, version: str) -> bytes:
    return text(1, model) + text(2, version)


@lru_cache(maxsize=4096)
def _input_header(name: str, datatype: str, shape: tuple[int, ...], parameters: bytes) -> bytes:
    dims = b"".join(map(varint, shape))
    return nested(5, text(1, name) + text(2, datatype) + (nested(3, dims) if dims else b"") + parameters)


def _output_header(name: str, parameters: Mapping[str, Parameter]) -> bytes:
    return nested(6, text(1, name) + _map(2, parameters))


def _map(number: int, entries: Mapping[str, Parameter]) -> bytes:
    return b"".join(_map_entry(number, key, value) for key, value in entries.items())


def _map_entry(number: int, key: str, value: Parameter) -> bytes:
    return nested(number, text(1, key) + nested(2, _parameter(key, value)))


def _parameter(key: str, value: Parameter) -> bytes:
    """Encode an InferParameter: bool 1, int64 2, string 3, double 4, uint64 5."""
    if isinstance(value, bool):
        return tag(1, VARINT) + varint(value)
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return tag(5 if key in _UNSIGNED or value >= 2**63 else 2, VARINT) + varint(value)
    if isinstance(value, str):
        return nested(3, value.encode())
    if isinstance(value, float):
        return tag(4, FIXED64) + DOUBLE.pack(value)
    raise InvalidInput(f"parameter '{key}' is a bool, an int of 64 bits, a float or a str, found {value!r}")


class WireOutput(NamedTuple):
    """How an output is described; ``typed_contents`` says that its values are not among the raw contents."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    typed_contents: bool
    parameters: Mapping[str, Parameter]

    @property
    def placed(self) -> bool:
        """Whether its values were written to shared memory; ``parameters`` say where."""
        return SHARED_REGION in self.parameters


@dataclass(slots=True)
class WireResponse:
    """A ModelInferResponse; ``raw`` are the bytes of its outputs, still parts of the message."""

    model: str = ""
    version: str = ""
    request_id: str = ""
    parameters: dict[str, Parameter] = field(default_factory=dict)
    outputs: list[WireOutput] = field(default_factory=list)
    raw: list[memoryview] = field(default_factory=list)

    @property
    def typed_contents(self) -> bool:
        """Whether the values are in the typed fields instead of ``raw``."""
        return not self.raw and any(
            output.typed_contents or (0 in output.shape and not output.placed) for output in self.outputs
        )


def decode_response(message: bytes) -> WireResponse:
    """Decode a ModelInferResponse without copying its tensors.

    The memory that this takes is bounded: the contents stay parts of the message, and everything else has limits.

    Raises:
        InvalidResponse: the message is cut off, or is none.
    """
    response = WireResponse()
    outputs, raw = response.outputs, response.raw
    for number, value in fields(memoryview(message)):
        if number == 6:
            raw.append(view_of(value))
            if len(raw) > MAX_ENTRIES:
                raise InvalidResponse(f"expected at most {MAX_ENTRIES} contents, found more")
        elif number == 5:
            outputs.append(_output(bytes(view_of(value))))
            if len(outputs) > MAX_ENTRIES:
                raise InvalidResponse(f"expected at most {MAX_ENTRIES} outputs, found more")
        elif number == 1:
            response.model = string_of(value)
        elif number == 2:
            response.version = string_of(value)
        elif number == 3:
            response.request_id = string_of(value)
        elif number == 4:
            _add_map_entry(response.parameters, view_of(value))
    if len(raw) != len(outputs):
        response.raw = _matched(response)
    elif any(output.typed_contents for output in outputs):
        raise InvalidResponse("expected raw contents or typed ones, found both")
    return response


def start_of_request_id(head: bytes, response: WireResponse) -> int | None:
    """Return where the id's text is in what precedes the contents, ``None`` if it is not where encoders write it."""
    field = text(3, response.request_id)
    before = text(1, response.model) + text(2, response.version)
    if not head.startswith(before + field):
        return None
    without = memoryview(before + head[len(before) + len(field) :])
    if any(number == 3 for number, _ in fields(without)):
        return None  # of two ids the later counts
    return len(before) + len(field) - len(response.request_id.encode())


def _matched(response: WireResponse) -> list[memoryview]:
    """Return one content for each output: nothing for those in shared memory, where a server leaves their entry out."""
    if response.typed_contents:
        return response.raw
    contents = iter(response.raw)
    num_placed = sum(output.placed for output in response.outputs)
    if len(response.raw) != len(response.outputs) - num_placed:
        raise InvalidResponse(f"expected the contents of {len(response.outputs)} outputs, found {len(response.raw)}")
    if any(output.typed_contents for output in response.outputs):
        raise InvalidResponse("expected outputs in shared memory or typed contents, found both")
    return [memoryview(b"") if output.placed else next(contents) for output in response.outputs]


def _output(description: bytes) -> WireOutput:
    # A model's answers describe their outputs with the same bytes again and again; typed contents are not kept.
    return _describe(description) if len(description) < _MAX_KEPT_BYTES else _describe.__wrapped__(description)


@lru_cache(maxsize=4096)
def _describe(description: bytes) -> WireOutput:
    name = datatype = ""
    shape, typed_contents, parameters = list[int](), False, dict[str, Parameter]()
    for number, value in fields(memoryview(description)):
        if number == 1:
            name = string_of(value)
        elif number == 2:
            datatype = string_of(value)
        elif number == 3:
            shape.extend([signed(value)] if isinstance(value, int) else islice(packed(view_of(value)), MAX_DIMS + 1))
            if len(shape) > MAX_DIMS:
                raise InvalidResponse(f"expected at most {MAX_DIMS} dimensions, found more")
        elif number == 4:
            _add_map_entry(parameters, view_of(value))
        elif number == 5:
            typed_contents = typed_contents or len(view_of(value)) > 0
    return WireOutput(name, datatype, tuple(shape), typed_contents, parameters)


def _add_map_entry(into: dict[str, Parameter], view: memoryview) -> None:
    key, parameter, whole = "", None, True
    for number, value in fields(view):
        if number == 1:
            key = string_of(value)
        elif number == 2:
            found = _decode_parameter(view_of(value))
            parameter = parameter if found is None else found
        else:
            whole = False
    if not whole:
        return  # protobuf, too, takes those entries only that are a key and a value and nothing else
    if parameter is None:
        into.pop(key, None)  # of two entries with one key the later counts, even if it says nothing
        return
    into[key] = parameter
    if len(into) > MAX_ENTRIES:
        raise InvalidResponse(f"expected at most {MAX_ENTRIES} parameters, found more")


_PARAMETER_READERS: dict[int, Callable[[Any], Parameter]] = {
    1: lambda value: bool(number_of(value)),
    2: lambda value: signed(number_of(value)),
    3: lambda value: string_of(value),
    4: lambda value: double_of(value),
    5: lambda value: number_of(value),
}


def _decode_parameter(view: memoryview) -> Parameter | None:
    found: Parameter | None = None
    for number, value in fields(view):
        reader = _PARAMETER_READERS.get(number)
        if reader is not None:
            found = reader(value)
    return found
