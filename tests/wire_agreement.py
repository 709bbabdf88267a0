"""What the hand-written reader of answers makes of a message, held against protobuf's own."""

from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from naiad.client import InvalidResponse, Result, TensorMetadata
from naiad.client._protocol.codec import Codec
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.request import decode_infer
from naiad.client._protocol.tensors import MAX_DIMS
from naiad.client._protocol.wire import MAX_ENTRIES, WireResponse, decode_response


def a_codec() -> Codec:
    """A codec of some model: what it expects of requests means nothing to answers."""
    tensor = TensorMetadata(name="y", datatype="FP32", shape=(-1,))
    return Codec("m", "", Contract(model="m", inputs={}, outputs={"y": tensor}, optional=frozenset(), max_batch_size=0))


def check(message: bytes, codec: Codec) -> None:
    """Read a message in every way there is, and raise an AssertionError where two of them differ.

    What is accepted here, protobuf accepts, and reads alike; what protobuf accepts and this refuses has a reason. No
    other error than InvalidResponse comes out.
    """
    ours, theirs = read(message), parsed(message)
    if theirs is None:
        assert ours is None or ours.typed_contents, "protobuf refuses what is accepted here"
    else:
        known = without_unknown_fields(theirs)
        # Not as protobuf writes it: fields that do not exist, that have another wire type, that are there twice …
        skipped = known.SerializeToString() != message
        assert ours is not None or skipped or has_a_fault(theirs), "refused without a reason"
        assert ours is None or contents_of(ours) == contents(theirs)
        plain = read(known.SerializeToString())
        assert plain is not None or has_a_fault(known), "a message as protobuf writes it is refused"
        assert plain is None or contents_of(plain) == contents(theirs)
    check_arrays(message, codec, theirs, refused=ours is None)


def read(message: bytes) -> WireResponse | None:
    try:
        return decode_response(message)
    except InvalidResponse:
        return None


def parsed(message: bytes) -> Any:
    try:
        return pb.ModelInferResponse.FromString(message)
    except DecodeError:
        return None


def contents_of(response: WireResponse) -> tuple[Any, ...]:
    return (
        (response.model, response.version, response.request_id, sorted(map(repr, response.parameters.items()))),
        [(o.name, o.datatype, o.shape, sorted(map(repr, o.parameters.items()))) for o in response.outputs],
        [bytes(raw) for raw in response.raw if len(raw)],
    )


def contents(message: Any) -> tuple[Any, ...]:
    return (
        (message.model_name, message.model_version, message.id, parameters(message)),
        [(o.name, o.datatype, tuple(o.shape), parameters(o)) for o in message.outputs],
        [raw for raw in message.raw_output_contents if raw],
    )


def parameters(message: Any) -> list[str]:
    found = {key: value.WhichOneof("parameter_choice") for key, value in message.parameters.items()}
    return sorted(repr((key, getattr(message.parameters[key], field))) for key, field in found.items() if field)


def without_unknown_fields(message: Any) -> Any:
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return known


def has_a_fault(message: Any) -> bool:
    """Whether a protobuf message is no answer, or beyond the limits."""
    num_raw, outputs = len(message.raw_output_contents), message.outputs
    placed = sum("shared_memory_region" in parameters_of(output) for output in outputs)
    typed = not num_raw and any(
        output.HasField("contents") or (0 in output.shape and "shared_memory_region" not in parameters_of(output))
        for output in outputs
    )
    return (
        (num_raw and any(output.HasField("contents") for output in outputs))
        or not (num_raw in (len(outputs), len(outputs) - placed) or typed)
        or max(num_raw, len(outputs), len(message.parameters)) > MAX_ENTRIES
        or any(len(output.shape) > MAX_DIMS or len(output.parameters) > MAX_ENTRIES for output in outputs)
        or any(output.HasField("contents") and not output.contents.ByteSize() for output in outputs)
    )


def parameters_of(output: Any) -> set[str]:
    return {key for key, value in output.parameters.items() if value.WhichOneof("parameter_choice")}


def check_arrays(message: bytes, codec: Codec, theirs: Any, *, refused: bool) -> None:
    """Compare the arrays with protobuf's bytes, and a codec's with those of the plain way, twice."""
    plain = None if refused else result_of(decode_infer, message)
    for _ in range(1 if refused else 2):
        known = result_of(codec.decode, message)
        assert (known is None) == (plain is None)
        if known is not None and plain is not None:
            assert described(known) == described(plain)
    if plain is None or not len(theirs.raw_output_contents):
        return
    if len(theirs.outputs) != len(theirs.raw_output_contents):
        return  # some lie in shared memory, and have no contents here
    raw = dict(zip((output.name for output in theirs.outputs), theirs.raw_output_contents, strict=True))
    for name, array in plain.items():
        assert array.flags.writeable
        if array.dtype != object and len(raw) == len(theirs.raw_output_contents):
            assert array.tobytes() == raw[name]


def result_of(read: Any, message: bytes) -> Result | None:
    try:
        result: Result = read(message)
    except InvalidResponse:
        return None
    return result


def described(result: Result) -> tuple[Any, ...]:
    return (
        (result.model_name, result.model_version, result.request_id, sorted(map(repr, result.parameters.items()))),
        [(name, array.dtype, array.shape, contents_of_array(array)) for name, array in result.items()],
    )


def contents_of_array(array: np.ndarray) -> Any:
    flat = array.ravel()  # [9, 9, 9, 0] nested would be many lists of nothing
    return flat.tolist() if array.dtype == object else flat.tobytes()
