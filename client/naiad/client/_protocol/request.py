"""From what the caller gives to the bytes of a request, and from the bytes of an answer to arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from numpy.typing import ArrayLike, NDArray

from naiad.client._protocol import wire
from naiad.client._protocol.buffers import Buffers
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.datatypes import triton_datatype
from naiad.client._protocol.tensors import Payload, as_array, decode, encode
from naiad.client._protocol.typed import typed_outputs
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
    out: Mapping[str, Any] | None
    """Memory of the caller's for outputs, by name: arrays or tensors (DLPack), which the result then has themselves."""
    outputs_on: Any
    """``"cuda"`` (``"cuda:1"``, a torch device, a number) leaves outputs on a GPU, for :attr:`Result.cuda`; needs the
    client's ``cuda_memory``. ``None`` and ``"cpu"`` are the host."""
    cast: Literal["safe"] | None
    """``"safe"`` converts inputs to the model's types where NumPy's rule of that name says that no value is lost."""


def check_cast(cast: str | None) -> None:
    """Raise :class:`InvalidInput` for a rule that there is not."""
    if cast not in (None, "safe"):
        raise InvalidInput(f"cast is None or 'safe', found {cast!r}: convert the array yourself with array.astype(...)")


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
    out: Mapping[str, Any] | None = None
    outputs_on: Any = None
    cast: Literal["safe"] | None = None
    queue_timeout_us: int = 0
    """How long the request may wait in the model's queue; 0 says nothing. Set from the call's deadline."""

    def __post_init__(self) -> None:
        check_cast(self.cast)

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
    if not keywords:
        return NO_OPTIONS
    try:
        return InferOptions(**keywords)
    except TypeError:
        unknown = ", ".join(name for name in keywords if name not in InferKeywords.__annotations__)
        known = ", ".join(InferKeywords.__annotations__)
        raise TypeError(f"unexpected keyword {unknown}: expected some of {known}") from None


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
    tensors = wire_inputs(inputs, contract, cast=options.cast is not None)
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


def buffers_of(options: InferOptions, contract: Contract | None) -> Buffers | None:
    """Return the buffers of a request, ``None`` where it has none.

    Raises:
        InvalidInput: a buffer cannot be written, does not fit the model's output, or is for none that is asked for.
    """
    if not options.out:
        return None
    check_received(options)
    return Buffers(options.out, contract)


def check_received(options: InferOptions) -> None:
    """Raise :class:`InvalidInput` for a buffer whose output is not asked for, or as classes."""
    if options.out and options.outputs is not None:
        plain = {output if isinstance(output, str) else output.name for output in options.outputs}
        classes = {output.name for output in options.outputs if isinstance(output, Output) and output.class_count}
        for name in options.out:
            if name not in plain - classes:
                how = "as classes, which come as strings" if name in classes else "not at all"
                raise InvalidInput(f"out['{name}'] is for an output that is asked for {how}: leave it out")


def check_on_host(options: InferOptions) -> None:
    """Raise :class:`InvalidInput` where outputs are to stay on a GPU, which this client or call cannot do."""
    if options.outputs_on is not None and str(options.outputs_on) != "cpu":
        raise InvalidInput(
            f"outputs_on={options.outputs_on!r} needs a client with cuda_memory=True or 'auto', and a call of `infer` "
            "or `submit`: leave it out, or make the client so"
        )


def wire_inputs(
    inputs: Inputs, contract: Contract | None, payload: PayloadOf = encode, *, cast: bool = False
) -> list[wire.WireInput]:
    """Return the inputs as the wire describes them, each with what ``payload`` makes of its array.

    Raises:
        InvalidInput: a tensor has an unknown name, or another type or shape than the model expects.
    """
    if contract is None:
        if cast:
            raise InvalidInput("cast='safe' needs to know the model's types: call client.model(name).infer(...)")
        return [wire_input(name, as_array(value), None, payload) for name, value in inputs.items()]
    arrays = {name: as_array(value, contract.datatype_of_input(name)) for name, value in inputs.items()}
    if cast:
        arrays = contract.safely_cast(arrays)
    contract.check_inputs(arrays)
    expected = contract.inputs
    return [
        wire.WireInput(name, expected[name].datatype, array.shape, payload(array, expected[name].datatype))
        for name, array in arrays.items()
    ]


def wire_input(name: str, array: Any, contract: Contract | None, payload: Callable[[Any, str], Any]) -> wire.WireInput:
    """Return an input that was checked, in the host's memory or a GPU's, as the wire describes it.

    Raises:
        InvalidInput: its type has no name in the protocol.
    """
    datatype = triton_datatype(array.dtype) if contract is None else contract.inputs[name].datatype
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


def decode_infer(message: bytes, out: Buffers | None = None) -> Result:
    """Read a ModelInferResponse, the outputs that ``out`` has into those buffers.

    Raises:
        InvalidResponse: the message is cut off, or its tensors do not fit their description.
        InvalidInput: a buffer has another type or shape than its output.
    """
    return read_response(wire.decode_response(message), message, out)


def read_response(response: wire.WireResponse, message: bytes, out: Buffers | None = None) -> Result:
    """Make a result of a message that was decoded; see :func:`decode_infer`."""
    if response.typed_contents:
        result = result_of(response, typed_outputs(message))
        return result if out is None else out.filled_from(result)
    if out is None:
        return result_of(response, map(array_of, response.outputs, response.raw))
    return result_of(
        response,
        (
            out.receive(output, raw) if output.name in out else array_of(output, raw)
            for output, raw in zip(response.outputs, response.raw, strict=True)
        ),
    )


def result_of(response: wire.WireResponse, arrays: Iterable[Any]) -> Result:
    """Return the outputs, which come in the order of their descriptions, with what the answer says about itself.

    Raises:
        InvalidResponse: two outputs have one name.
    """
    outputs = dict(zip([output.name for output in response.outputs], arrays, strict=True))
    if len(outputs) != len(response.outputs):
        raise InvalidResponse(f"expected each output once, found {len(response.outputs)} with {len(outputs)} names")
    return Result(
        outputs,
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
