"""Requests and answers along their first dimension: taken apart into rows, and put together again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from naiad.client._protocol.codec import Codec
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.datatypes import numpy_dtype
from naiad.client._protocol.request import InferKeywords, Output
from naiad.client._protocol.tensors import as_array, copy_of, room_for
from naiad.client.errors import InvalidInput, InvalidResponse
from naiad.client.metadata import TensorMetadata
from naiad.client.result import Result, Timing

Arrays = Mapping[str, NDArray[Any]]
_WORTH_IT_BYTES: Final = 1 << 16  # below, copying costs less than giving buffers out


def arrays_of(inputs: Mapping[str, Any], codec: Codec, keywords: InferKeywords) -> Arrays:
    """Return the inputs of a request as arrays, converted if that is wanted, not checked otherwise.

    Raises:
        InvalidInput: there is no such input, or a value is no array.
    """
    contract = codec.contract
    arrays = {
        name: value if type(value) is np.ndarray else as_array(value, contract.datatype_of_input(name))
        for name, value in inputs.items()
    }
    return contract.safely_cast(arrays) if codec.casts or keywords.get("cast") is not None else arrays


def check_arrays(arrays: Arrays, contract: Contract) -> None:
    """Raise :class:`InvalidInput` unless this is a request that the model takes, whatever the number of its rows."""
    for name in arrays:
        contract.datatype_of_input(name)
    num_rows = max((array.shape[0] for array in arrays.values() if array.ndim), default=0)
    replace(contract, max_batch_size=num_rows).check_inputs(arrays)


def spans(num_rows: int, rows: int) -> Iterator[range]:
    """Return the rows of each part, ``rows`` at a time."""
    for start in range(0, num_rows, rows):
        yield range(start, min(start + rows, num_rows))


def part_of(arrays: Arrays, span: range) -> Arrays:
    """Return these rows of every array, without copying."""
    return {name: array[span.start : span.stop] for name, array in arrays.items()}


def join(parts: Sequence[Arrays]) -> Arrays:
    """Return one request with the rows of all, which have the same names, types and trailing shapes."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def split(result: Result, sizes: Sequence[int]) -> list[Result]:
    """Return an answer as several, with so many rows each; their arrays are their own, whoever keeps another.

    Raises:
        InvalidResponse: an output has not one row for each row of the request.
    """
    num_rows = sum(sizes)
    for name, array in result.items():
        check_rows(result, name, array, num_rows)
    if len(sizes) == 1:
        return [result]
    answers, start = list[Result](), 0
    outputs = list(result.items())
    for size in sizes:
        stop = start + size
        answers.append(_like(result, {name: copy_of(array[start:stop]) for name, array in outputs}))
        start = stop
    return answers


def _like(result: Result, outputs: Mapping[str, Any]) -> Result:
    same = Result(
        outputs,
        model_name=result.model_name,
        model_version=result.model_version,
        request_id=result.request_id,
        parameters=result.parameters,
    )
    same.timing = result.timing
    return same


def check_rows(result: Result, name: str, array: NDArray[Any], num_rows: int) -> None:
    """Raise :class:`InvalidResponse` unless an output has one row for each row of the request."""
    if array.shape[:1] != (num_rows,):
        raise InvalidResponse(
            f"output '{name}' of model '{result.model_name}' has the shape {list(array.shape)} for {num_rows} rows, "
            "so that rows cannot be told apart: send each request by itself, with `model.infer`",
            model=result.model_name,
            endpoint=result.timing.endpoint,
        )


class Whole:
    """The answers of a request's parts in one. ``out`` are the caller's buffers for some of the outputs."""

    def __init__(self, num_rows: int, rows: int, out: Mapping[str, Any], wanted: Sequence[TensorMetadata]) -> None:
        self._num_rows = num_rows
        self._outputs: dict[str, Any] = {}
        self._in_place: dict[str, Any] = {name: _all_rows(name, buffer, num_rows) for name, buffer in out.items()}
        self._views: dict[range, Mapping[str, Any]] = {}
        self._results: list[Result] = []
        for tensor in wanted:  # large outputs whose shape is known beforehand need not be copied from part to whole
            dtype, dims = numpy_dtype(tensor.datatype), tensor.shape[1:]
            if tensor.name in out or dtype is None or dtype.hasobject or min(dims, default=0) < 0:
                continue
            if rows * math.prod(dims) * dtype.itemsize >= _WORTH_IT_BYTES:
                self._in_place[tensor.name] = room_for((num_rows, *dims), dtype)

    def out(self, span: range) -> Mapping[str, Any]:
        """Return where the outputs of these rows belong, as far as that is known."""
        views = {name: whole[span.start : span.stop] for name, whole in self._in_place.items()}
        self._views[span] = views
        return views

    def put(self, span: range, result: Result) -> None:
        """Add the answer for these rows.

        Raises:
            InvalidResponse: it does not fit the others.
        """
        views = self._views.pop(span)
        if not self._results:
            self._outputs = {name: self._whole(name, array) for name, array in result.items()}
        if result.keys() != self._outputs.keys():
            raise _misfit(result, f"the outputs {', '.join(result)}", ", ".join(self._outputs))
        for name, array in result.items():
            if array is not views.get(name):
                check_rows(result, name, array, len(span))
                self._copy(span, name, array, result)
        self._results.append(result)

    def result(self, total_s: float) -> Result:
        """Return all of it; ``total_s`` is how long it took."""
        whole = _like(self._results[0], self._outputs)
        whole.model_version = _all(result.model_version for result in self._results)
        whole.timing = _sum(total_s, [result.timing for result in self._results])
        return whole

    def _whole(self, name: str, first: NDArray[Any]) -> Any:
        found = self._in_place.get(name)
        return room_for((self._num_rows, *first.shape[1:]), first.dtype) if found is None else found

    def _copy(self, span: range, name: str, array: NDArray[Any], result: Result) -> None:
        whole = self._outputs[name]
        if array.shape[1:] != whole.shape[1:] or array.dtype != whole.dtype:
            found = f"'{name}' as {array.dtype} {list(array.shape)}"
            raise _misfit(result, found, f"{whole.dtype} {[len(span), *whole.shape[1:]]}")
        whole[span.start : span.stop] = array


def _all_rows(name: str, buffer: Any, num_rows: int) -> Any:
    if tuple(buffer.shape[:1]) != (num_rows,):
        raise InvalidInput(f"out['{name}'] has a row for each of the {num_rows} rows, found {list(buffer.shape)}")
    return buffer


def _misfit(result: Result, found: str, expected: str) -> InvalidResponse:
    return InvalidResponse(
        f"model '{result.model_name}' answered one part with {found}, an earlier one with {expected}, which do not "
        "make one array: give `infer_many` the parts one by one (a list of inputs), and join the answers as you need",
        model=result.model_name,
        endpoint=result.timing.endpoint,
    )


def _all(texts: Iterator[str]) -> str:
    return ",".join(dict.fromkeys(texts))


def _sum(total_s: float, parts: Sequence[Timing]) -> Timing:
    return Timing(
        total_s=total_s,
        encode_s=sum(part.encode_s for part in parts),
        waiting_s=sum(part.waiting_s for part in parts),
        rpc_s=sum(part.rpc_s for part in parts),
        decode_s=sum(part.decode_s for part in parts),
        num_attempts=sum(part.num_attempts for part in parts),
        endpoint=_all(part.endpoint for part in parts),
    )


def no_rows(contract: Contract, wanted: Sequence[str | Output] | None, out: Mapping[str, Any]) -> Result:
    """Return the answer to a request without a row, which no server needs to be asked for.

    Raises:
        InvalidInput: there is no such output, or its shape is known from an answer only.
    """
    outputs = [
        output if isinstance(output, Output) else Output(name=output)
        for output in (contract.outputs if wanted is None else wanted)
    ]
    arrays = {output.name: out.get(output.name, _without_rows(contract, output)) for output in outputs}
    return Result(arrays, model_name=contract.model)


def _without_rows(contract: Contract, output: Output) -> NDArray[Any]:
    contract.check_output(output.name)
    tensor = contract.outputs[output.name]
    if output.class_count:
        return np.empty((0, output.class_count), np.object_)
    dtype, dims = numpy_dtype(tensor.datatype), tensor.shape[1:]
    if dtype is None or min(dims, default=0) < 0:
        raise InvalidInput(
            f"no rows were given, and what no rows give cannot be said for the output {tensor} of model "
            f"'{contract.model}': give at least one row",
            model=contract.model,
        )
    return np.empty((0, *dims), dtype)
