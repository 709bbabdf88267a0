"""The client's codec, as the load test uses it: requests encoded once, answers left as bytes until one is checked.

This is the only module of the load test that knows the inside of :mod:`naiad.client`: both belong to one distribution,
and what is measured has to be what a service would send.

What differs from one sending of a request to the next (its id, its sequence, where its outputs go) is a *suffix*:
fields of the same protobuf message, appended to its bytes. Of a scalar field the last one counts, entries of a map and
repeated fields add up, whatever their order; see https://protobuf.dev/programming-guides/encoding/#order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from naiad.client import Client
from naiad.client._protocol import regions, wire
from naiad.client._protocol.datatypes import numpy_dtype
from naiad.client._protocol.request import (
    NO_OPTIONS,
    InferKeywords,
    InferOptions,
    decode_infer,
    encode_infer,
    encode_options,
)
from naiad.client._protocol.shared import Place, decode_shared, encode_shared, placeable
from naiad.client._protocol.strings import decode_strings
from naiad.client._protocol.tensors import _from_python
from naiad.client._routing.endpoint import Endpoint, parse_endpoint
from naiad.client._transport.seam import ADMIN_HEADER
from naiad.client._transport.segments import Owner, Segment, is_orphan, sweep
from naiad.client.errors import CallContext, ClientError, InvalidInput, from_status
from naiad.loadtest.plan import Connection

__all__ = [
    "InferKeywords",
    "Owner",
    "Place",
    "Segment",
    "decode_answer",
    "decode_placed",
    "decode_strings",
    "encode_inputs",
    "encode_placed",
    "endpoint_of",
    "error_of",
    "final_suffix",
    "headers_of",
    "is_orphan",
    "numpy_dtype",
    "output_suffix",
    "register",
    "registered",
    "request_id_suffix",
    "sequence_suffix",
    "sweep",
    "typed",
    "unregister",
    "without_secret",
]

Room = Callable[[int], Place]
_START: Final = wire.encode_options("", {"sequence_start": True}, ())
_END: Final = wire.encode_options("", {"sequence_end": True}, ())
_FINAL: Final = {"triton_enable_empty_final_response": True}


def encode_inputs(model: str, version: str | None, inputs: Mapping[str, NDArray[Any]]) -> bytes:
    """Encode a request."""
    return encode_infer(model, version or "", inputs, NO_OPTIONS, None)


def decode_answer(answer: bytes) -> Mapping[str, NDArray[Any]]:
    """Decode the outputs of an answer.

    Raises:
        naiad.client.InvalidResponse: it is none.
    """
    return decode_infer(answer)


def encode_placed(model: str, version: str | None, inputs: Mapping[str, NDArray[Any]], room: Room) -> bytes:
    """Write the inputs to shared memory, and encode the request that refers to them.

    ``room`` returns a place for a tensor of so many bytes; tensors without a byte stay in the request.
    """
    tensors = placeable(inputs, None)
    places = {tensor.name: room(tensor.size_bytes) for tensor in tensors if tensor.size_bytes}
    return encode_shared(model, version or "", tensors, NO_OPTIONS, None, places, {})


def decode_placed(answer: bytes, places: Mapping[str, Place]) -> Mapping[str, NDArray[Any]]:
    """Decode the outputs of an answer, those with a place from there.

    Raises:
        naiad.client.InvalidResponse: it is none.
    """
    return decode_shared(answer, places)


def register(client: Client, segment: Segment) -> None:
    """Tell the server about a segment of shared memory; it needs the admin secret where one is set."""
    client._run(regions.register(segment.name, segment.size_bytes))


def unregister(client: Client, name: str) -> None:
    """Let the server forget a segment.

    Raises:
        naiad.client.InvalidInput: a request still uses it.
    """
    client._run(regions.unregister(name))


def registered(client: Client) -> tuple[str, ...]:
    """Return the names of all segments that the server knows."""
    return client._run(regions.registered())


def typed(values: Any, datatype: str) -> NDArray[Any]:
    """Return numbers or strings, in an array or in nested lists, as an array of Triton's ``datatype``.

    Strings become ``bytes``; two-byte elements that are no numbers, or ``uint16``, are taken for the bits of BF16.

    Raises:
        naiad.client.InvalidInput: a list is ragged, or the type does not hold the values.
    """
    dtype = numpy_dtype(datatype)
    if dtype is None:
        raise InvalidInput(f"expected one of Triton's data types, found {datatype!r}")
    if dtype.hasobject:
        return _as_bytes(values)
    if isinstance(values, np.ndarray):
        if values.dtype == dtype:
            return values.astype(dtype, copy=False)
        if values.dtype.kind in "cmM":
            raise InvalidInput(f"expected values of {datatype}: the values are {values.dtype}")
        if datatype == "BF16" and values.dtype.kind in "Vu" and values.dtype.itemsize == dtype.itemsize:
            return np.ascontiguousarray(values).view(dtype)  # NumPy's files have no bfloat16
    try:
        return _from_python(values, dtype)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidInput(f"expected values of {datatype}: {exc}") from exc


def _as_bytes(values: Any) -> NDArray[Any]:
    array: Any = values if isinstance(values, np.ndarray) else np.asarray(values, np.object_)
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    if array.dtype.kind == "S":
        strings: NDArray[Any] = array.astype(np.object_)
        return strings
    if array.dtype.kind != "O":
        raise InvalidInput(f"expected strings, found {array.dtype}")
    found = np.empty(array.shape, np.object_)
    found.reshape(-1)[:] = [text.encode() if isinstance(text, str) else text for text in array.flat]
    for text in found.flat:
        if not isinstance(text, bytes):
            raise InvalidInput(f"expected strings, found {type(text).__name__} {text!r:.60}")
    return found


def request_id_suffix(request_id: str) -> bytes:
    """Encode the id that the answer repeats."""
    return wire.encode_options(request_id, {}, ())


def sequence_suffix(sequence_id: int | str, start: bool, end: bool) -> bytes:
    """Encode which sequence a request belongs to, and whether it is its first or last one."""
    return _sequence(sequence_id) + (_START if start else b"") + (_END if end else b"")


@lru_cache(maxsize=1 << 14)  # a sequence's requests say the same, and as many are open as there are users
def _sequence(sequence_id: int | str) -> bytes:
    return wire.encode_options("", {"sequence_id": sequence_id}, ())


def final_suffix() -> bytes:
    """Encode the wish that a stream says which response is the last, even where that one is empty."""
    return encode_options(InferOptions(parameters=_FINAL), None)


def output_suffix(places: Mapping[str, Place]) -> bytes:
    """Encode where outputs go in shared memory, by name.

    A request that names outputs gets those only: all that are wanted have to be here.
    """
    outputs: list[tuple[str, dict[str, wire.Parameter]]] = []
    for name, place in places.items():
        where: dict[str, wire.Parameter] = {wire.SHARED_REGION: place.region, wire.SHARED_SIZE: place.size_bytes}
        if place.offset:
            where[wire.SHARED_OFFSET] = place.offset
        outputs.append((name, where))
    return wire.encode_options("", {}, outputs)


def endpoint_of(url: str) -> Endpoint:
    """Read a server's URL: ``target`` (``host:port``), ``secure``, ``admin_secret``.

    Raises:
        naiad.client.InvalidInput: it is none.
    """
    return parse_endpoint(url)


def headers_of(connection: Connection) -> tuple[tuple[str, str], ...]:
    """Return the headers of every request, the admin secret of the URL among them.

    Raises:
        naiad.client.InvalidInput: the URL is none, or a name has capital letters.
    """
    headers = dict(connection.headers)
    secret = parse_endpoint(connection.url).admin_secret
    if secret:
        headers.setdefault(ADMIN_HEADER, secret)
    for name, value in headers.items():
        if name != name.lower() or not name.isascii() or not value.isprintable():
            raise InvalidInput(f"headers are lower-case ASCII names to printable text, found {name!r}")
    return tuple(headers.items())


def error_of(status: str, details: str, *, url: str, model: str, timeout_s: float) -> ClientError:
    """Translate a gRPC status as the client does."""
    context = CallContext(endpoint=parse_endpoint(url).target, method="ModelInfer", model=model, timeout_s=timeout_s)
    return from_status(status, details, context)


def without_secret(url: str) -> str:
    """Return ``url`` as it may be shown: scheme, host and port only."""
    return parse_endpoint(url).shown
