"""A model's codec: it remembers what the model's messages look like, and then copies tensors instead of parsing.

Calls of one model differ in their tensors' bytes and in little else. What surrounds them is kept by the tensors' names,
types and shapes (requests) or by the message's size (answers), after it was checked, built or parsed once; an answer is
compared with what is expected byte by byte before it is read that way. Whatever does not fit goes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from naiad.client._protocol import shared, wire
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.datatypes import numpy_dtype
from naiad.client._protocol.protobuf import varint
from naiad.client._protocol.request import (
    NO_OPTIONS,
    InferOptions,
    Inputs,
    check_cast,
    encode_options,
    read_response,
    wire_inputs,
)
from naiad.client._protocol.tensors import ALIGNED_FROM_BYTES, as_array, copy_of
from naiad.client.result import Result

_MAX_KEPT = 256  # of each kind; dynamic shapes could make more without end
_MAX_HEAD_BYTES = 1 << 13  # of what is kept of an answer: a server could send as much as it likes before its tensors
_MAX_OTHERS = 3  # of one size, that differ in more than their tensors: in versions or names

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
    copy: Callable[[NDArray[Any]], NDArray[Any]]
    """How it is copied out of the message."""


class _KnownResponse(NamedTuple):
    head: bytes
    """What the message begins with, up to the request's id where there is one."""
    id_size: int
    rest: bytes
    """What follows the id."""
    outputs: tuple[_KnownOutput, ...]
    model: str
    version: str
    parameters: Mapping[str, wire.Parameter]
    other: _KnownResponse | None = None
    """One of the same size that was known before."""
    num_others: int = 0
    prefix: bytes = b""
    """What precedes the contents of the only output, where there is one and no id."""


class Codec:
    """Encodes requests to, and decodes answers of, one model; may be shared by threads.

    With ``cast``, inputs are converted as :class:`InferKeywords` says, in every request.
    """

    __slots__ = ("_cast", "_contract", "_model", "_requests", "_responses", "_version")

    def __init__(self, model: str, version: str, contract: Contract, cast: Literal["safe"] | None = None) -> None:
        check_cast(cast)
        self._model, self._version, self._contract = model, version, contract
        self._cast = cast is not None
        self._requests: dict[_Signature, tuple[bytes, ...]] = {}
        self._responses: dict[int, _KnownResponse] = {}

    @property
    def contract(self) -> Contract:
        """What requests are checked against."""
        return self._contract

    @property
    def casts(self) -> bool:
        """Whether inputs are converted in every request."""
        return self._cast

    @property
    def queue_timeout(self) -> bool:
        """Whether the model lets a request say how long it may wait in the queue."""
        return self._contract.queue_timeout

    def encode(self, inputs: Inputs, options: InferOptions, queue_timeout_us: int = 0) -> bytes:
        """Check the inputs and build the request.

        ``queue_timeout_us`` goes to models that let a request say how long it may wait in the queue.

        Raises:
            InvalidInput: a tensor has an unknown name, or another type or shape than the model expects.
        """
        if len(inputs) == 1 and options is NO_OPTIONS and not queue_timeout_us and not self._cast:  # see decode
            ((name, value),) = inputs.items()
            known = self._requests.get(((name, value.dtype, value.shape),)) if type(value) is np.ndarray else None
            if known is not None:
                try:
                    return b"".join((known[0], value))  # type: ignore[arg-type]
                except TypeError:
                    pass  # a layout that is not row-major
        contract = self._contract
        said = b""
        if options is not NO_OPTIONS or queue_timeout_us:
            said = encode_options(options, contract, queue_timeout_us)
        arrays = {
            name: value if type(value) is np.ndarray else as_array(value, contract.datatype_of_input(name))
            for name, value in inputs.items()
        }
        if self._cast or options.cast is not None:
            arrays = contract.safely_cast(arrays)
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
        # One tensor each way is what most calls have. Between two waits caches are cold, and every step that is saved
        # here and in encode counts several times what a loop in a benchmark would show.
        known = self._responses.get(len(message))
        if known is not None and known.prefix and message.startswith(known.prefix):
            name, dtype, shape, _, offset, copy = known.outputs[0]
            array = copy(np.ndarray(shape, dtype, message, offset))
            return Result(
                {name: array}, model_name=known.model, model_version=known.version, parameters=known.parameters
            )
        if known is not None and not known.id_size and message.startswith(known.head):  # what follows, faster
            arrays = _read(message, known.outputs)
            if arrays is not None:
                return Result(arrays, model_name=known.model, model_version=known.version, parameters=known.parameters)
        while known is not None:
            request_id = _request_id(message, known)
            arrays = None if request_id is None else _read(message, known.outputs)
            if arrays is not None and request_id is not None:
                return Result(
                    arrays,
                    model_name=known.model,
                    model_version=known.version,
                    request_id=request_id,
                    parameters=known.parameters,
                )
            known = known.other
        response = wire.decode_response(message)
        result = read_response(response, message)
        self._remember_response(message, response)
        return result

    def placeable(self, inputs: Inputs, options: InferOptions = NO_OPTIONS) -> list[wire.WireInput]:
        """Check the inputs of a request for shared memory; see :func:`shared.placeable`."""
        return shared.placeable(inputs, self._contract, cast=self._cast or options.cast is not None)

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
        framings = [_RAW_CONTENTS + varint(size) for size in sizes]
        head = message[start : len(message) - sum(sizes) - sum(map(len, framings))]
        _keep(self._requests, signature, (head + framings[0], *framings[1:]))

    def _remember_response(self, message: bytes, response: wire.WireResponse) -> None:
        pattern = _pattern(message, response)
        if pattern is not None:
            other = self._responses.get(len(message))
            if other is None or other.num_others < _MAX_OTHERS:
                pattern = pattern._replace(other=other, num_others=0 if other is None else other.num_others + 1)
            _keep(self._responses, len(message), pattern)


def _request_id(message: bytes, known: _KnownResponse) -> str | None:
    """Return the id of an answer, ``None`` if it begins in another way than the known one or its id is no text."""
    at = len(known.head) + known.id_size
    if not message.startswith(known.head) or not message.startswith(known.rest, at):
        return None
    request_id = message[len(known.head) : at].decode("utf-8", "replace")
    return None if "\ufffd" in request_id else request_id


def _pattern(message: bytes, response: wire.WireResponse) -> _KnownResponse | None:
    """Return what an answer looks like apart from its id and tensors, ``None`` if that is not worth remembering.

    Another message that begins with ``head``, has the length, and has ``framing`` where this one has it, is made of the
    same fields: everything between is the contents of a field whose length is part of what was compared.
    """
    if not response.raw or any(output.datatype == "BYTES" for output in response.outputs):
        return None
    start, end, known = _address(message), len(message), list[_KnownOutput]()
    for output, raw in zip(reversed(response.outputs), reversed(response.raw), strict=True):
        dtype = numpy_dtype(output.datatype)
        offset = end - len(raw)
        if dtype is None or not raw or _address(raw) != start + offset:
            return None  # the contents come last and in order, as every encoder writes them
        framing = _RAW_OUTPUTS + varint(len(raw))
        copy = np.ndarray.copy if len(raw) < ALIGNED_FROM_BYTES else copy_of
        known.append(_KnownOutput(output.name, dtype, output.shape, framing, offset, copy))
        end = offset - len(framing)
    known.reverse()
    if end > _MAX_HEAD_BYTES or _read(message, known) is None:
        return None
    head, rest = message[:end], b""
    id_size = len(response.request_id.encode())
    if id_size:
        at = wire.start_of_request_id(head, response)
        if at is None:
            return None
        head, rest = head[:at], head[at + id_size :]
    prefix = head + known[0].framing if len(known) == 1 and not id_size else b""
    return _KnownResponse(
        head, id_size, rest, tuple(known), response.model, response.version, response.parameters, prefix=prefix
    )


def _address(buffer: bytes | memoryview) -> int:
    return int(np.frombuffer(buffer, np.uint8).ctypes.data)


def _read(message: bytes, outputs: tuple[_KnownOutput, ...] | list[_KnownOutput]) -> dict[str, NDArray[Any]] | None:
    """Copy the outputs out of a message, ``None`` if it is framed in another way."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, dtype, shape, framing, offset, copy in outputs:
        if not message.endswith(framing, 0, offset):
            return None
        arrays[name] = copy(np.ndarray(shape, dtype, message, offset))
    return arrays


def _keep(known: dict[Any, Any], key: object, value: object) -> None:
    if len(known) >= _MAX_KEPT:
        known.clear()
    known[key] = value
