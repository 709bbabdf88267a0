"""Requests and answers whose tensors lie in shared memory: the messages say where, and carry no contents.

The order of things, for whoever owns the memory::

    tensors = placeable(inputs, contract)                  # checked; tensor.size_bytes says how much room each needs
    places = {tensor.name: lease(tensor.size_bytes) ...}   # and one for each output
    message = encode_shared(model, version, tensors, options, contract, places, output_places)
    result = decode_shared(answer, output_places)          # arrays of their own: the places are free again

Source: the "System-Shared-Memory Extension" and "CUDA-Shared-Memory Extension" of Triton's protocol documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from naiad.client._protocol import wire
from naiad.client._protocol.buffers import Buffers
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.request import (
    NO_OPTIONS,
    InferOptions,
    Inputs,
    array_of,
    encode_options,
    result_of,
    wire_inputs,
    wire_output,
)
from naiad.client._protocol.tensors import Payload, decode_start, encode
from naiad.client.errors import InvalidInput, InvalidResponse
from naiad.client.result import Result


class Place(NamedTuple):
    """A part of a region that the server knows under a name, with room for one tensor."""

    region: str
    offset: int
    size_bytes: int
    memory: memoryview | None = None
    """The same ``size_bytes`` bytes as this process sees them, writable; ``None`` for an input that something else
    has put there already (a GPU)."""


def placeable(inputs: Inputs, contract: Contract | None, *, cast: bool = False) -> list[wire.WireInput]:
    """Check the inputs as for any request; arrays are left in the memory layout they have.

    Raises:
        InvalidInput: a tensor has an unknown name, or another type or shape than the model expects.
    """
    return wire_inputs(inputs, contract, _as_it_is, cast=cast)


def encode_shared(
    model: str,
    version: str,
    tensors: Sequence[wire.WireInput],
    options: InferOptions,
    contract: Contract | None,
    inputs: Mapping[str, Place],
    outputs: Mapping[str, Place],
    queue_timeout_us: int = 0,
) -> bytes:
    """Write the tensors that have a place in ``inputs`` into it, and build the request that refers to the places.

    Tensors without a place, and those without a byte, travel in the message. ``tensors`` are those of
    :func:`placeable`. A request that places an output names all outputs it wants, so that without ``options.outputs``
    the contract's are asked for.

    Raises:
        InvalidInput: a tensor does not fit its place, or an output that is asked for as classes has one.
    """
    wanted = options.outputs
    if wanted is None and outputs:
        wanted = tuple(outputs if contract is None else contract.outputs)
    sent = [
        _placed(tensor, inputs[tensor.name]) if tensor.name in inputs and tensor.size_bytes else _carried(tensor)
        for tensor in tensors
    ]
    asked = [_place_output(*wire_output(output, contract), outputs) for output in wanted or ()]
    timeout = encode_options(NO_OPTIONS, contract, queue_timeout_us)
    said = wire.encode_options(options.request_id, options.wire_parameters(), asked)
    return wire.encode_request(model, version, sent, timeout + said)


def decode_shared(message: bytes, outputs: Mapping[str, Place], out: Buffers | None = None) -> Result:
    """Read an answer whose outputs lie in these places; the arrays are copies, so that the places are free afterwards.

    Outputs that the server sent in the message are read from there; those that ``out`` has go into its buffers.

    Raises:
        InvalidResponse: the message is cut off, or says that an output lies where it was not asked to be.
        InvalidInput: a buffer has another type or shape than its output.
    """
    response = wire.decode_response(message)
    if response.typed_contents:
        raise InvalidResponse("expected outputs in shared memory or raw contents, found typed contents")
    return result_of(
        response,
        (
            _array(output, raw, outputs.get(output.name), out)
            for output, raw in zip(response.outputs, response.raw, strict=True)
        ),
    )


def _as_it_is(array: NDArray[Any], datatype: str) -> Payload:
    return encode(array, datatype) if datatype == "BYTES" else array


def _carried(tensor: wire.WireInput) -> wire.WireInput:
    data = tensor.data
    if tensor.datatype == "BYTES" or not isinstance(data, np.ndarray):
        return tensor
    return tensor._replace(data=encode(data, tensor.datatype))


def _placed(tensor: wire.WireInput, place: Place) -> wire.WireInput:
    if tensor.size_bytes > place.size_bytes:
        raise InvalidInput(
            f"input '{tensor.name}' has {tensor.size_bytes} bytes, its place in shared memory {place.size_bytes}"
        )
    if place.memory is not None:
        _write(tensor, place.memory)
    return tensor._replace(place=_parameters(place, tensor.size_bytes))


def _write(tensor: wire.WireInput, memory: memoryview) -> None:
    """Copy once, whatever the array's layout: no contiguous copy in between."""
    data = tensor.data
    if isinstance(data, np.ndarray) and tensor.datatype != "BYTES":
        np.ndarray(tensor.shape, data.dtype.newbyteorder("<"), memory)[...] = data
    else:
        memory[: tensor.size_bytes] = memoryview(cast("bytes", data))  # arrays have the buffer protocol as well


def _parameters(place: Place, size_bytes: int) -> dict[str, wire.Parameter]:
    where: dict[str, wire.Parameter] = {wire.SHARED_REGION: place.region, wire.SHARED_SIZE: size_bytes}
    if place.offset:
        where[wire.SHARED_OFFSET] = place.offset
    return where


def _place_output(
    name: str, parameters: dict[str, wire.Parameter], places: Mapping[str, Place]
) -> tuple[str, dict[str, wire.Parameter]]:
    place = places.get(name)
    if place is None:
        return name, parameters
    if parameters:
        raise InvalidInput(f"output '{name}' is asked for as classes, which the server cannot write to shared memory")
    return name, _parameters(place, place.size_bytes)


def _array(output: wire.WireOutput, raw: memoryview, place: Place | None, out: Buffers | None) -> Any:
    if not len(raw) and place is not None:
        raw = _memory(output, place)
        if out is not None and output.name in out:
            return out.receive(output, raw, to_the_end=False)
        return array_of(output, raw, decode_start)
    return array_of(output, raw) if out is None or output.name not in out else out.receive(output, raw)


def _memory(output: wire.WireOutput, place: Place) -> memoryview:
    """Return the memory of an output, checked against what the answer says about it.

    Triton's own server (2.51) says nothing about the places of outputs, and leaves an empty entry among the contents.
    """
    if place.memory is None:
        raise InvalidInput(f"output '{output.name}' needs a place whose memory can be read here")
    return place.memory[: written_bytes(output, place)]


def written_bytes(output: wire.WireOutput, place: Place) -> int:
    """Return how much of its place an output may have, as the answer says; the whole of it where it says nothing.

    Raises:
        InvalidResponse: the answer names another place.
    """
    said = output.parameters
    if wire.SHARED_REGION not in said:
        return place.size_bytes
    region, offset = said[wire.SHARED_REGION], said.get(wire.SHARED_OFFSET, 0)
    if (region, offset) != (place.region, place.offset):
        raise InvalidResponse(f"output '{output.name}' was not asked to be at {offset} of the region '{region}'")
    size = said.get(wire.SHARED_SIZE, place.size_bytes)
    if not isinstance(size, int) or not 0 <= size <= place.size_bytes:
        raise InvalidResponse(
            f"output '{output.name}': expected at most {place.size_bytes} bytes in shared memory, found {size!r}"
        )
    return size
