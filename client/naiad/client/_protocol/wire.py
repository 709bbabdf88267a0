"""ModelInferRequest and ModelInferResponse, framed by hand.

A generated message would copy every tensor into the message and once more into its encoding; here the payload is
copied once,
into the buffer that goes to the transport. Field numbers and wire types are those of ``grpc_service.proto``
(KServe v2), the
encoding is https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice, starmap
from typing import Any, Final, NamedTuple, cast

import numpy as np

from naiad.client._protocol.tensors import MAX_DIMS, Payload
from naiad.client.errors import InvalidInput, InvalidResponse

Parameter = bool | int | float | str
_VARINT, _FIXED64, _BYTES, _GROUP, _END_OF_GROUP, _FIXED32 = 0, 1, 2, 3, 4, 5
_MAX_VARINT_BYTES = 10
_MAX_KEY_BYTES = 5  # of keys and lengths, which have 32 bits
_MAX_KEY = 2**32 - 1  # field numbers have 29 bits, and the lowest is 1
_MAX_DEPTH = 100  # of groups within groups, as in protobuf's own parsers
_MAX_KEPT_BYTES = 256
MAX_ENTRIES: Final = 1 << 14  # of outputs or parameters: each takes a hundred times its two bytes of message here
_DOUBLE = struct.Struct("<d")
SHARED_REGION: Final = "shared_memory_region"  # these three parameters: "System-Shared-Memory Extension" of Triton
SHARED_OFFSET: Final = "shared_memory_offset"
SHARED_SIZE: Final = "shared_memory_byte_size"
QUEUE_TIMEOUT: Final = "timeout"  # in microseconds: "Schedule Policy Extension"
_UNSIGNED = frozenset({"priority"})  # the one parameter that Triton reads as uint64


def varint(value: int) -> bytes:
    """Encode a number; negative ones take ten bytes, as protobuf's int64 does."""
    if 0 <= value < 0x80:
        return value.to_bytes(1, "little")
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def _nested(number: int, payload: bytes) -> bytes:
    return _tag(number, _BYTES) + varint(len(payload)) + payload


def _text(number: int, text: str) -> bytes:
    return _nested(number, text.encode()) if text else b""


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
    return _text(3, request_id) + _map(4, parameters) + b"".join(starmap(_output_header, outputs))


@lru_cache(maxsize=1024)
def encode_queue_timeout(milliseconds: int) -> bytes:
    """Encode the parameter that says how long a request may wait in the model's queue."""
    return _map_entry(4, QUEUE_TIMEOUT, milliseconds * 1000)


@lru_cache(maxsize=1024)
def _head(model: str, version: str) -> bytes:
    return _text(1, model) + _text(2, version)


@lru_cache(maxsize=4096)
def _input_header(name: str, datatype: str, shape: tuple[int, ...], parameters: bytes) -> bytes:
    dims = b"".join(map(varint, shape))
    return _nested(5, _text(1, name) + _text(2, datatype) + (_nested(3, dims) if dims else b"") + parameters)


def _output_header(name: str, parameters: Mapping[str, Parameter]) -> bytes:
    return _nested(6, _text(1, name) + _map(2, parameters))


def _map(number: int, entries: Mapping[str, Parameter]) -> bytes:
    return b"".join(_map_entry(number, key, value) for key, value in entries.items())


def _map_entry(number: int, key: str, value: Parameter) -> bytes:
    return _nested(number, _text(1, key) + _nested(2, _parameter(key, value)))


def _parameter(key: str, value: Parameter) -> bytes:
    """Encode an InferParameter: bool 1, int64 2, string 3, double 4, uint64 5."""
    if isinstance(value, bool):
        return _tag(1, _VARINT) + varint(value)
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return _tag(5 if key in _UNSIGNED or value >= 2**63 else 2, _VARINT) + varint(value)
    if isinstance(value, str):
        return _nested(3, value.encode())
    if isinstance(value, float):
        return _tag(4, _FIXED64) + _DOUBLE.pack(value)
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
    for number, value in _fields(memoryview(message)):
        if number == 6:
            raw.append(_view(value))
            if len(raw) > MAX_ENTRIES:
                raise InvalidResponse(f"expected at most {MAX_ENTRIES} contents, found more")
        elif number == 5:
            outputs.append(_output(bytes(_view(value))))
            if len(outputs) > MAX_ENTRIES:
                raise InvalidResponse(f"expected at most {MAX_ENTRIES} outputs, found more")
        elif number == 1:
            response.model = _string(value)
        elif number == 2:
            response.version = _string(value)
        elif number == 3:
            response.request_id = _string(value)
        elif number == 4:
            _add_map_entry(response.parameters, _view(value))
    if len(raw) != len(outputs):
        response.raw = _matched(response)
    elif any(output.typed_contents for output in outputs):
        raise InvalidResponse("expected raw contents or typed ones, found both")
    return response


def start_of_request_id(head: bytes, response: WireResponse) -> int | None:
    """Return where the id's text is in what precedes the contents, ``None`` if it is not where encoders write it."""
    field = _text(3, response.request_id)
    before = _text(1, response.model) + _text(2, response.version)
    if not head.startswith(before + field):
        return None
    without = memoryview(before + head[len(before) + len(field) :])
    if any(number == 3 for number, _ in _fields(without)):
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
    for number, value in _fields(memoryview(description)):
        if number == 1:
            name = _string(value)
        elif number == 2:
            datatype = _string(value)
        elif number == 3:
            shape.extend([_signed(value)] if isinstance(value, int) else islice(_packed(_view(value)), MAX_DIMS + 1))
            if len(shape) > MAX_DIMS:
                raise InvalidResponse(f"expected at most {MAX_DIMS} dimensions, found more")
        elif number == 4:
            _add_map_entry(parameters, _view(value))
        elif number == 5:
            typed_contents = typed_contents or len(_view(value)) > 0
    return WireOutput(name, datatype, tuple(shape), typed_contents, parameters)


def _add_map_entry(into: dict[str, Parameter], view: memoryview) -> None:
    key, parameter, whole = "", None, True
    for number, value in _fields(view):
        if number == 1:
            key = _string(value)
        elif number == 2:
            found = _decode_parameter(_view(value))
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
    1: lambda value: bool(_number(value)),
    2: lambda value: _signed(_number(value)),
    3: lambda value: _string(value),
    4: lambda value: _double(value),
    5: lambda value: _number(value),
}


def _decode_parameter(view: memoryview) -> Parameter | None:
    found: Parameter | None = None
    for number, value in _fields(view):
        reader = _PARAMETER_READERS.get(number)
        if reader is not None:
            found = reader(value)
    return found


_Value = int | memoryview | bytes  # a varint, something with a length, or four or eight bytes without one


def _fields(view: memoryview) -> Iterator[tuple[int, _Value]]:
    """Walk a message: (field number, value); a group, which nothing in this protocol is, comes as field 0."""
    at, end = 0, len(view)
    while at < end:
        key = view[at]
        at += 1
        if key > 0x7F:
            key, at = _read_varint(view, at - 1, _MAX_KEY_BYTES)
        if not 7 < key <= _MAX_KEY:
            raise InvalidResponse(f"expected a protobuf field, found number {key >> 3}")
        wire_type = key & 7
        if wire_type == _BYTES:
            if at < end and view[at] < 0x80:
                size = view[at]
                at += 1
            else:
                size, at = _read_varint(view, at, _MAX_KEY_BYTES)
            after = at + size
            if after > end:
                raise _cut_off(key >> 3, size, end - at)
            yield key >> 3, view[at:after]
            at = after
        elif wire_type == _VARINT:
            value, at = _read_varint(view, at)
            yield key >> 3, value
        elif wire_type == _GROUP:
            at = _end_of_group(view, at, key >> 3)
            yield 0, b""
        else:
            size = _fixed_size(wire_type)
            if at + size > end:
                raise _cut_off(key >> 3, size, end - at)
            yield key >> 3, view[at : at + size].tobytes()
            at += size


def _cut_off(number: int, size: int, left: int) -> InvalidResponse:
    return InvalidResponse(f"the message ends within field {number} ({size} bytes announced, {left} left)")


def _end_of_group(view: memoryview, at: int, number: int) -> int:
    """Return where the group ends whose first field is at ``at``."""
    opened = [number]
    while opened:
        key, at = _read_varint(view, at, _MAX_KEY_BYTES)
        number, wire_type = key >> 3, key & 7
        if not 7 < key <= _MAX_KEY:
            raise InvalidResponse(f"expected a protobuf field, found number {number}")
        if wire_type == _GROUP:
            opened.append(number)
            if len(opened) > _MAX_DEPTH:
                raise InvalidResponse(f"expected groups within at most {_MAX_DEPTH} others, found more")
        elif wire_type == _END_OF_GROUP:
            if opened.pop() != number:
                raise InvalidResponse(f"expected the end of another group, found that of {number}")
        elif wire_type == _VARINT:
            _, at = _read_varint(view, at)
        elif wire_type == _BYTES:
            size, at = _read_varint(view, at, _MAX_KEY_BYTES)
            at += size
        else:
            at += _fixed_size(wire_type)
    return at


def _fixed_size(wire_type: int) -> int:
    if wire_type == _FIXED64:
        return 8
    if wire_type == _FIXED32:
        return 4
    raise InvalidResponse(f"expected a protobuf field, found wire type {wire_type}")


def _read_varint(view: memoryview, at: int, max_bytes: int = _MAX_VARINT_BYTES) -> tuple[int, int]:
    value = 0
    for shift, position in enumerate(range(at, min(at + max_bytes, len(view)))):
        byte = view[position]
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position + 1
    raise InvalidResponse(f"the message ends within a number, or the number goes on after {max_bytes} bytes")


def _packed(view: memoryview) -> Iterator[int]:
    at = 0
    while at < len(view):
        value, at = _read_varint(view, at)
        yield _signed(value)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _number(value: _Value) -> int:
    if not isinstance(value, int):
        raise InvalidResponse("expected a number, found bytes")
    return value


def _double(value: _Value) -> float:
    if not isinstance(value, bytes) or len(value) != _DOUBLE.size:
        raise InvalidResponse(f"expected a double of {_DOUBLE.size} bytes, found another kind of field")
    return float(_DOUBLE.unpack(value)[0])


def _view(value: _Value) -> memoryview:
    if not isinstance(value, memoryview):
        raise InvalidResponse("expected bytes with their length, found a number")
    return value


def _string(value: _Value) -> str:
    try:
        return str(_view(value), "utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidResponse(f"expected UTF-8 text, found {bytes(_view(value))[:40]!r}") from exc
