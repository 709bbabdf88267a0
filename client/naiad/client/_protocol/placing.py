"""Requests that can leave either way: as a message with their tensors, or as one that says where they lie in memory.

Which way it is, is decided at the server that gets an attempt; nothing is encoded before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from naiad.client._protocol import shared
from naiad.client._protocol.buffers import Buffers
from naiad.client._protocol.codec import Codec
from naiad.client._protocol.request import InferOptions, Inputs, decode_infer, encode_infer
from naiad.client._protocol.wire import WireInput
from naiad.client.errors import ClientError
from naiad.client.metadata import ModelMetadata, TensorMetadata
from naiad.client.options import SharedMemory
from naiad.client.result import Result

_ALIGNMENT: Final = 64
_WORTH_A_PLACE: Final = 1 << 16  # smaller outputs come with the message as fast
_MAX_KEPT: Final = 256

_Sizes = Mapping[str, int]
_Places = Mapping[str, shared.Place]
_UNKNOWN: Final[_Sizes] = {}


class Landed:
    """What came of an answer: it was read while the memory was still ours."""

    __slots__ = ("_outcome", "_size_bytes")

    def __init__(self, outcome: Result | ClientError, size_bytes: int) -> None:
        self._outcome = outcome
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        """How many bytes the message and the outputs in memory have."""
        return self._size_bytes

    def result(self) -> Result:
        """Return the outputs, or raise what was wrong with them."""
        if isinstance(self._outcome, ClientError):
            raise self._outcome
        return self._outcome


class Placed(NamedTuple):
    """A request whose tensors are in memory: the message to send, and how to read the answer to it."""

    message: bytes
    land: Callable[[bytes], Landed]


class Placeable:
    """A request to one model; may be sent several times, also at once.

    ``room_bytes`` is how much memory it needs, ``repeatable`` whether a server may run it twice. ``wire()`` builds the
    message with the tensors in it, ``read`` reads the answer, however it comes; ``distrust()`` is to be called when an
    output was larger than its place.
    """

    __slots__ = ("_encode", "_out", "_outputs", "_sizes", "distrust", "read", "repeatable", "room_bytes", "wire")

    def __init__(
        self,
        tensors: Sequence[WireInput],
        outputs: _Sizes,
        out: Buffers | None,
        *,
        encode: Callable[[_Places, _Places], bytes],
        wire: Callable[[], bytes],
        read: Callable[[bytes], Result],
        distrust: Callable[[], None],
        repeatable: bool,
    ) -> None:
        self._sizes = {tensor.name: tensor.size_bytes for tensor in tensors}
        self._outputs = outputs
        self._out = out
        self._encode = encode
        self.wire: Callable[[], bytes] = wire
        self.read: Callable[[bytes], Result] = read
        self.distrust: Callable[[], None] = distrust
        self.repeatable: bool = repeatable
        self.room_bytes: int = sum(map(_aligned, (*self._sizes.values(), *outputs.values())))

    @property
    def has_buffers(self) -> bool:
        """Whether the caller gave memory for outputs."""
        return self._out is not None

    def __len__(self) -> int:
        """How many bytes its tensors have."""
        return sum(self._sizes.values())

    def place(self, region: str, memory: memoryview) -> Placed:
        """Copy the inputs into ``memory``, which the server knows as ``region`` and which has ``room_bytes``."""
        inputs, end = _places(region, memory, 0, self._sizes)
        outputs, _ = _places(region, memory, end, self._outputs)
        return Placed(self._encode(inputs, outputs), partial(_land, outputs, self._out))


class Placing:
    """Decides which requests to one model are placed, and which outputs have a place.

    Those have whose size is known before: from the model's shapes, from the buffer that is to receive it or, for
    requests that may run twice, from an earlier answer to inputs of the same shapes. (An output that turns out larger
    fails after it was computed.)
    """

    def __init__(self, codec: Codec, outputs: Sequence[TensorMetadata], max_batch_size: int, min_bytes: int) -> None:
        self._codec = codec
        self._names = tuple(tensor.name for tensor in outputs)
        self._min_bytes = min_bytes
        self._seen: dict[Any, _Sizes] = {}
        self._trusted = True
        largest = [codec.output_size_bytes(name, max(max_batch_size, 1)) for name in self._names]
        self._large_outputs = sum(size or 0 for size in largest) >= min_bytes  # or seen, at least once
        self._learns = None in largest

    def concerns(self, inputs: Inputs) -> bool:
        """Whether :meth:`request` is worth a call: all that small requests pay."""
        return self._large_outputs or _size_of(inputs) >= self._min_bytes

    def request(
        self, inputs: Inputs, options: InferOptions, out: Buffers | None = None, *, repeatable: bool
    ) -> Placeable | None:
        """Return the request if it is one for shared memory.

        Raises:
            InvalidInput: a tensor has an unknown name, or another type or shape than the model expects.
        """
        codec = self._codec
        tensors = codec.placeable(inputs, options)
        outputs = self._output_sizes(tensors, options, out, repeatable) if self._trusted else _UNKNOWN
        if max(sum(tensor.size_bytes for tensor in tensors), sum(outputs.values())) < self._min_bytes:
            return None
        return Placeable(
            tensors,
            outputs,
            out,
            encode=partial(codec.encode_shared, tensors, options),
            wire=partial(codec.encode, inputs, options),
            read=self.reader(inputs, out, repeatable=repeatable),
            distrust=self._distrust,
            repeatable=repeatable,
        )

    def reader(self, inputs: Inputs, out: Buffers | None = None, *, repeatable: bool) -> Callable[[bytes], Result]:
        """Return what reads the answer to a request, however it comes."""
        if out is not None:
            return partial(_read, out)
        return partial(self._read_and_learn, inputs) if self._learns and repeatable else self._read

    def _read(self, answer: bytes) -> Result:
        return answer.result() if isinstance(answer, Landed) else self._codec.decode(answer)

    def _read_and_learn(self, inputs: Inputs, answer: bytes) -> Result:
        result = self._read(answer)
        if len(answer) >= self._min_bytes:
            if len(self._seen) >= _MAX_KEPT:
                self._seen.clear()
            sizes = {name: array.nbytes for name, array in result.items() if not array.dtype.hasobject}
            self._seen[_signature(self._codec.placeable(inputs))] = sizes
            self._large_outputs = True
        return result

    def _output_sizes(
        self, tensors: Sequence[WireInput], options: InferOptions, out: Buffers | None, repeatable: bool
    ) -> _Sizes:
        seen = self._seen.get(_signature(tensors), _UNKNOWN) if repeatable and self._seen else _UNKNOWN
        shape = tensors[0].shape if tensors else ()
        sizes = dict[str, int]()
        for output in self._names if options.outputs is None else options.outputs:
            name = output if isinstance(output, str) else output.name
            size = self._codec.output_size_bytes(name, shape[0] if shape else 1) or seen.get(name, 0)
            if out is not None and name in out:
                size = out.size_bytes(name)
            if size >= _WORTH_A_PLACE and (isinstance(output, str) or not output.class_count):
                sizes[name] = size
        return sizes

    def _distrust(self) -> None:
        self._trusted = False


class UncheckedPlacing:
    """Decides whether a request to a model of which nothing is known is placed; its outputs come with the answer."""

    __slots__ = ("_min_bytes", "_model", "_version")

    def __init__(self, model: str, version: str, min_bytes: int) -> None:
        self._model, self._version, self._min_bytes = model, version, min_bytes

    def concerns(self, inputs: Inputs) -> bool:
        """Whether :meth:`request` is worth a call."""
        return _size_of(inputs) >= self._min_bytes

    def request(
        self, inputs: Inputs, options: InferOptions, out: Buffers | None = None, *, repeatable: bool
    ) -> Placeable | None:
        """Return the request if it is one for shared memory.

        Raises:
            InvalidInput: a value has no Triton data type.
        """
        if not self.concerns(inputs):
            return None
        model, version, tensors = self._model, self._version, shared.placeable(inputs, None)
        return Placeable(
            tensors,
            _UNKNOWN,
            out,
            encode=partial(shared.encode_shared, model, version, tensors, options, None),
            wire=partial(encode_infer, model, version, inputs, options, None),
            read=partial(_read, out),
            distrust=_nothing,
            repeatable=repeatable,
        )


def placing_of(
    codec: Codec, metadata: ModelMetadata, max_batch_size: int, shared_memory: SharedMemory | None
) -> Placing | None:
    """Return what decides about the requests to a model, if anything does."""
    if shared_memory is None:
        return None
    return Placing(codec, metadata.outputs, max_batch_size, shared_memory.min_tensor_bytes)


def unchecked_placing(model: str, version: str | None, shared_memory: SharedMemory | None) -> UncheckedPlacing | None:
    """Return what decides about a request to a model of which nothing is known, if anything does."""
    return None if shared_memory is None else UncheckedPlacing(model, version or "", shared_memory.min_tensor_bytes)


def _size_of(inputs: Inputs) -> int:
    """Return how many bytes the arrays and tensors among the inputs have; lists count nothing."""
    size = 0
    for value in inputs.values():
        size += getattr(value, "nbytes", 0)
    return size


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _places(region: str, memory: memoryview, at: int, sizes: _Sizes) -> tuple[dict[str, shared.Place], int]:
    places = dict[str, shared.Place]()
    for name, size in sizes.items():
        places[name] = shared.Place(region, at, size, memory[at : at + size])
        at += _aligned(size)
    return places, at


def _land(outputs: _Places, out: Buffers | None, answer: bytes) -> Landed:
    try:
        result = shared.decode_shared(answer, outputs, out)
    except ClientError as error:
        return Landed(error, len(answer))
    return Landed(result, len(answer) + sum(place.size_bytes for place in outputs.values()))


def _signature(tensors: Sequence[WireInput]) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple((tensor.name, tensor.datatype, tensor.shape) for tensor in tensors)


def _read(out: Buffers | None, answer: bytes) -> Result:
    return answer.result() if isinstance(answer, Landed) else decode_infer(answer, out=out)


def _nothing() -> None:
    """Distrust no size: none was known."""
