"""A model's codec: it remembers what the model's messages look like, and then copies tensors instead of parsing.

Calls of one model differ in their tensors' bytes and in little else. What surrounds them is kept by the tensors' names,
types and shapes (requests) or by the message's size (answers), after it was checked, built or parsed once; an answer is
compared with what is expected byte by byte before it is read that way. Whatever does not fit goes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from naiad.client._protocol import shared, wire
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.datatypes import numpy_dtype
from naiad.client._protocol.request import NO_OPTIONS, InferOptions, Inputs, decode_infer, encode_options, wire_inputs
from naiad.client._protocol.tensors import as_array
from naiad.client.result import Result

_MAX_KEPT = 256  # of each kind; dynamic shapes could make more without end

_Signature = tuple[tuple[str, "np.dtype[Any]", tuple[int, ...]], ...]
_RAW_CONTENTS = b"\x3a"  # field 7 of a request
_RAW_OUTPUTS = b"\x32"  # field 6 of a response


class _KnownOutput(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    framing: bytes
    """What precedes its bytes in the message."""
    offset: int


class _KnownResponse(NamedTuple):
    head: bytes
    outputs: tuple[_KnownOutput, ...]
    model: str
    version: str
    parameters: Mapping[str, wire.Parameter]


class Codec:
    """Encodes requests to, and decodes answers of, one model; may be shared by threads."""

    __slots__ = ("_contract", "_model", "_requests", "_responses", "_version")

    def __init__(self, model: str, version: str, contract: Contract) -> None:
        self._model, self._version, self._contract = model, version, contract
        self._requests: dict[_Signature, tuple[bytes, ...]] = {}
        self._responses: dict[int, _KnownResponse] = {}

    def encode(self, inputs: Inputs, options: InferOptions, queue_timeout_us: int = 0) -> bytes:
        """Check the inputs and build the request.

        ``queue_timeout_us`` goes to models that let a request say how long it may wait in the queue.

        Raises:
            InvalidInput: a tensor has an unknown name, or another type or shape than the model expects.
        """
        contract = self._contract
        said = b""
        if options is not NO_OPTIONS or queue_timeout_us:
            said = encode_options(options, contract, queue_timeout_us)
        arrays = {
            name: value if type(value) is np.ndarray else as_array(value, contract.datatype_of_input(name))
            for name, value in inputs.items()
        }
        signature = tuple([(name, array.dtype, array.shape) for name, array in arrays.items()])
        frames = self._requests.get(signature)
        if frames is not None:
            parts: list[Any] = [said]
            for frame, array in zip(frames, arrays.values(), strict=True):
                parts += (frame, array)
            try:
                return b"".join(cast("list[bytes]", parts))
            except TypeError:
                pass  # a layout that is not row-major: asking for it each time would cost more than this
        message = wire.encode_request(self._model, self._version, wire_inputs(arrays, contract), said)
        if frames is None:
            self._remember_request(signature, arrays, message, len(said))
        return message

    def decode(self, message: bytes) -> Result:
        """Read an answer.

        Raises:
            InvalidResponse: the message is cut off, or its tensors do not fit their description.
        """
        known = self._responses.get(len(message))
        if known is not None and message.startswith(known.head):
            outputs = _read(message, known.outputs)
            if outputs is not None:
                return Result(outputs, model_name=known.model, model_version=known.version, parameters=known.parameters)
        result = decode_infer(message)
        self._remember_response(message)
        return result

    def placeable(self, inputs: Inputs) -> list[wire.WireInput]:
        """Check the inputs of a request for shared memory; see :func:`shared.placeable`."""
        return shared.placeable(inputs, self._contract)

    def encode_shared(
        self,
        tensors: Sequence[wire.WireInput],
        options: InferOptions,
        inputs: Mapping[str, shared.Place],
        outputs: Mapping[str, shared.Place],
        queue_timeout_us: int = 0,
    ) -> bytes:
        """Fill the places of the inputs and build the request; see :func:`shared.encode_shared`."""
        return shared.encode_shared(
            self._model, self._version, tensors, options, self._contract, inputs, outputs, queue_timeout_us
        )

    def output_size_bytes(self, name: str, num_rows: int) -> int | None:
        """Return how large an output is, ``None`` where only the answer tells."""
        return self._contract.output_size_bytes(name, num_rows)

    def _remember_request(
        self, signature: _Signature, arrays: Mapping[str, NDArray[Any]], message: bytes, start: int
    ) -> None:
        if any(dtype.hasobject or dtype.kind in "SUT" or dtype.byteorder == ">" for _, dtype, _ in signature):
            return
        sizes = [array.nbytes for array in arrays.values()]
        framings = [_RAW_CONTENTS + wire.varint(size) for size in sizes]
        head = message[start : len(message) - sum(sizes) - sum(map(len, framings))]
        _keep(self._requests, signature, (head + framings[0], *framings[1:]))

    def _remember_response(self, message: bytes) -> None:
        response = wire.decode_response(message)
        if response.request_id or response.typed_contents or not response.outputs:
            return
        end, known = len(message), list[_KnownOutput]()
        for output, raw in zip(reversed(response.outputs), reversed(response.raw), strict=True):
            dtype = numpy_dtype(output.datatype)
            if dtype is None or dtype.hasobject:
                return
            framing = _RAW_OUTPUTS + wire.varint(len(raw))
            known.append(_KnownOutput(output.name, dtype, output.shape, framing, end - len(raw)))
            end -= len(raw) + len(framing)
        known.reverse()
        if _read(message, known) is not None:  # the contents come last and in order, as every encoder writes them
            pattern = _KnownResponse(message[:end], tuple(known), response.model, response.version, response.parameters)
            _keep(self._responses, len(message), pattern)


def _read(message: bytes, outputs: tuple[_KnownOutput, ...] | list[_KnownOutput]) -> dict[str, NDArray[Any]] | None:
    """Copy the outputs out of a message, ``None`` if it is framed in another way."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, dtype, shape, framing, offset in outputs:
        if not message.endswith(framing, 0, offset):
            return None
        arrays[name] = (
            np.ndarray(shape, dtype, message, offset).copy() if offset < len(message) else np.empty(shape, dtype)
        )
    return arrays


def _keep(known: dict[Any, Any], key: object, value: object) -> None:
    if len(known) >= _MAX_KEPT:
        known.clear()
    known[key] = value
