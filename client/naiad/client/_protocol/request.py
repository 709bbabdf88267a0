"""From what the caller gives to the bytes of a request, and from the bytes of an answer to arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from naiad.client._protocol import wire
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.datatypes import numpy_dtype, triton_datatype
from naiad.client._protocol.tensors import Payload, as_array, decode, encode
from naiad.client.errors import InvalidInput, InvalidResponse
from naiad.client.result import Result

Inputs = Mapping[str, "ArrayLike | Any"]
PayloadOf = Callable[["NDArray[Any]", str], Payload]


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """An output to ask for; with ``class_count`` as its best classes, each ``b"score:index[:label]"``."""

    name: str
    class_count: int = 0

    def __post_init__(self) -> None:
        if self.class_count < 0:
            raise InvalidInput(f"class_count of output '{self.name}' is 0 or more, found {self.class_count}")


class InferKeywords(TypedDict, total=False):
    """What may be given with the tensors of one request, by keyword."""

    outputs: Sequence[str | Output] | None
    """The outputs to return; all of them by default."""
    request_id: str
    """Echoed in the answer and in the server's logs and traces."""
    priority: int
    """1 is the highest; 0 is the model's default."""
    sequence_id: int | str
    """Names the sequence that a stateful model should count this request to."""
    sequence_start: bool
    sequence_end: bool
    parameters: Mapping[str, wire.Parameter] | None
    """Passed to the model as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InferOptions:
    """The keywords of one request, with their defaults; see :class:`InferKeywords`."""

    outputs: Sequence[str | Output] | None = None
    request_id: str = ""
    priority: int = 0
    sequence_id: int | str = 0
    sequence_start: bool = False
    sequence_end: bool = False
    parameters: Mapping[str, wire.Parameter] | None = None
    queue_timeout_us: int = 0
    """How long the request may wait in the model's queue; 0 says nothing. Set from the call's deadline."""

    def wire_parameters(self) -> dict[str, wire.Parameter]:
        """Return all of it as the protocol's request parameters."""
        merged = dict(self.parameters or {})
        if self.priority:
            merged["priority"] = self.priority
        if self.sequence_id:
            merged["sequence_id"] = self.sequence_id
            merged["sequence_start"] = self.sequence_start
            merged["sequence_end"] = self.sequence_end
        if self.queue_timeout_us:
            merged.setdefault(wire.QUEUE_TIMEOUT, self.queue_timeout_us)  # what the caller asked for counts
        return merged


NO_OPTIONS = InferOptions()


def options_of(keywords: InferKeywords) -> InferOptions:
    """Return the options of a request; :data:`NO_OPTIONS` itself where there are none, which is the fast way."""
    return InferOptions(**keywords) if keywords else NO_OPTIONS


def encode_infer(
    model: str,
    version: str,
    inputs: Inputs,
    options: InferOptions,
    contract: Contract | None,
    queue_timeout_us: int = 0,
) -> bytes:
    """Build a ModelInferRequest; with ``contract``, everything is checked against it before.

    Raises:
        InvalidInput: a tensor has an unknown name, or another type or shape than the model expects.
    """
    tensors = wire_inputs(inputs, contract)
    return wire.encode_request(model, version, tensors, encode_options(options, contract, queue_timeout_us))


def encode_options(options: InferOptions, contract: Contract | None, queue_timeout_us: int = 0) -> bytes:
    """Build what of a request is not its tensors.

    ``queue_timeout_us`` is sent to models whose configuration lets requests bring their own (``contract`` says so), in
    whole milliseconds: their number is small enough to remember their encodings.

    Raises:
        InvalidInput: the model has no such output, or a parameter has a type that the protocol has not.
    """
    if not queue_timeout_us or contract is None or not contract.queue_timeout:
        timeout = b""
    else:
        timeout = wire.encode_queue_timeout(-(-queue_timeout_us // 1000))
    if options is NO_OPTIONS:
        return timeout
    outputs = [wire_output(output, contract) for output in options.outputs or ()]
    # Of two entries with one key the later counts: what the caller asked for.
    return timeout + wire.encode_options(options.request_id, options.wire_parameters(), outputs)


def wire_inputs(inputs: Inputs, contract: Contract | None, payload: PayloadOf = encode) -> list[wire.WireInput]:
    """Return the inputs as the wire describes them, each with what ``payload`` makes of its array.

    Raises:
        InvalidInput: a tensor has an unknown name, or another type or shape than the model expects.
    """
    if contract is None:
        return [_wire_input(name, as_array(value), payload) for name, value in inputs.items()]
    arrays = {name: as_array(value, contract.datatype_of_input(name)) for name, value in inputs.items()}
    contract.check_inputs(arrays)
    expected = contract.inputs
    return [
        wire.WireInput(name, expected[name].datatype, array.shape, payload(array, expected[name].datatype))
        for name, array in arrays.items()
    ]


def _wire_input(name: str, array: NDArray[Any], payload: PayloadOf) -> wire.WireInput:
    datatype = triton_datatype(array.dtype)
    if datatype is None:
        raise InvalidInput(
            f"input '{name}': Triton has no data type for NumPy's {array.dtype}; convert the array first"
        )
    return wire.WireInput(name, datatype, array.shape, payload(array, datatype))


def wire_output(output: str | Output, contract: Contract | None) -> tuple[str, dict[str, wire.Parameter]]:
    """Return an output to ask for as the wire describes it.

    Raises:
        InvalidInput: the model has no such output.
    """
    wanted = Output(name=output) if isinstance(output, str) else output
    if contract is not None:
        contract.check_output(wanted.name)
    return wanted.name, {"classification": wanted.class_count} if wanted.class_count else {}


def decode_infer(message: bytes) -> Result:
    """Read a ModelInferResponse.

    Raises:
        InvalidResponse: the message is cut off, or its tensors do not fit their description.
    """
    response = wire.decode_response(message)
    if response.typed_contents:
        arrays = _typed_outputs(message)
    else:
        arrays = {
            output.name: array_of(output, raw) for output, raw in zip(response.outputs, response.raw, strict=True)
        }
    return result_of(response, arrays)


def result_of(response: wire.WireResponse, arrays: Mapping[str, NDArray[Any]]) -> Result:
    """Return the outputs with what the answer says about itself."""
    return Result(
        arrays,
        model_name=response.model,
        model_version=response.version,
        request_id=response.request_id,
        parameters=response.parameters,
    )


def array_of(
    output: wire.WireOutput,
    raw: memoryview,
    read: Callable[[memoryview, str, tuple[int, ...]], NDArray[Any]] = decode,
) -> NDArray[Any]:
    """Return an output as an array of its own.

    Raises:
        InvalidResponse: the bytes do not make a tensor of that type and shape.
    """
    try:
        return read(raw, output.datatype, output.shape)
    except InvalidResponse as exc:
        raise InvalidResponse(f"output '{output.name}': {exc}") from exc


_TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def _typed_outputs(message: bytes) -> dict[str, NDArray[Any]]:
    """Read the typed fields that other KServe servers use instead of raw bytes."""
    from google.protobuf.message import DecodeError
    from tritonclient.grpc import service_pb2

    try:
        parsed = service_pb2.ModelInferResponse.FromString(message)
    except DecodeError as exc:
        raise InvalidResponse(f"expected a ModelInferResponse, found {exc}") from exc
    return {output.name: _typed_array(output) for output in parsed.outputs}


def _typed_array(output: Any) -> NDArray[Any]:
    field = _TYPED_FIELDS.get(output.datatype)
    if field is None:
        raise InvalidResponse(f"output '{output.name}': {output.datatype} has no typed contents in the protocol")
    values = list(getattr(output.contents, field))
    try:
        array = np.empty(len(values), numpy_dtype(output.datatype))
        array[:] = values
        return array.reshape(tuple(output.shape))
    except (ValueError, OverflowError) as exc:
        raise InvalidResponse(
            f"output '{output.name}': {len(values)} values do not make {list(output.shape)}: {exc}"
        ) from exc
