"""The caller's own memory for outputs: checked before anything is sent, and filled where it lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naiad.client._protocol.contract import Contract
from naiad.client._protocol.datatypes import triton_datatype
from naiad.client._protocol.dlpack import array_from
from naiad.client._protocol.tensors import decode, decode_start, described
from naiad.client._protocol.wire import WireOutput
from naiad.client.errors import InvalidInput, InvalidResponse
from naiad.client.result import Result


class Buffers:
    """Arrays, or tensors with DLPack, by the output that each one receives."""

    __slots__ = ("_arrays", "_given")

    def __init__(self, given: Mapping[str, Any], contract: Contract | None) -> None:
        """Check what can be checked before the answer is there.

        Raises:
            InvalidInput: a buffer cannot be written, is not contiguous, or does not fit the model's output.
        """
        self._given = given
        self._arrays = {name: _writable(name, buffer) for name, buffer in given.items()}
        if contract is not None:
            for name, array in self._arrays.items():
                check_promise(name, array.dtype, array.shape, contract)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def size_bytes(self, name: str) -> int:
        """How many bytes an output may have; 0 for one that is not received here, and for strings."""
        array = self._arrays.get(name)
        return 0 if array is None or array.dtype.hasobject else array.nbytes

    def receive(self, output: WireOutput, raw: memoryview, *, to_the_end: bool = True) -> Any:
        """Copy an output into its buffer and return that, as it was given.

        Raises:
            InvalidInput: the buffer has another type or shape than the output.
            InvalidResponse: the bytes do not make a tensor of that type and shape.
        """
        name, datatype, shape = output.name, output.datatype, output.shape
        try:
            described(datatype, shape)
        except InvalidResponse as exc:
            raise InvalidResponse(f"output '{name}': {exc}") from exc
        array = self._fitting(name, datatype, shape)
        if array.dtype == object:
            array[...] = (decode if to_the_end else decode_start)(raw, datatype, shape)
            return self._given[name]
        contents = raw if to_the_end else raw[: array.nbytes]
        if len(contents) != array.nbytes:
            raise InvalidResponse(
                f"output '{name}': expected {array.nbytes} bytes for {datatype} {list(shape)}, found {len(contents)}"
            )
        array.reshape(-1).view(np.uint8).data[:] = contents
        return self._given[name]

    def fill(self, read: Callable[[bytes], Result], answer: bytes) -> Result:
        """Fill the buffers from what ``read`` makes of an answer that cannot be received in place."""
        return self.filled_from(read(answer))

    def filled_from(self, result: Result) -> Result:
        """Return a result with the buffers in the place of those of its arrays that they were filled from.

        Raises:
            InvalidInput: a buffer has another type or shape than the output.
        """
        outputs: dict[str, Any] = dict(result)
        for name in self._arrays.keys() & outputs.keys():
            found = outputs[name]
            array = self._fitting(name, triton_datatype(found.dtype), found.shape)
            (array if found.dtype.hasobject else array.view(found.dtype))[...] = found
            outputs[name] = self._given[name]
        return Result(
            outputs,
            model_name=result.model_name,
            model_version=result.model_version,
            request_id=result.request_id,
            parameters=result.parameters,
        )

    def _fitting(self, name: str, datatype: str | None, shape: tuple[int, ...]) -> NDArray[Any]:
        array = self._arrays[name]
        if triton_datatype(array.dtype) != datatype or array.shape != shape:
            raise InvalidInput(
                f"out['{name}'] is {array.dtype} {list(array.shape)}, the answer has {datatype} {list(shape)}: "
                "give a buffer of that type and shape"
            )
        return array


def _writable(name: str, buffer: Any) -> NDArray[Any]:
    array: NDArray[Any] = buffer
    if not isinstance(buffer, np.ndarray):
        try:
            array = array_from(buffer)
        except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as exc:
            raise InvalidInput(
                f"out['{name}'] is a NumPy array or a tensor with DLPack on the CPU, found {type(buffer).__name__}: "
                f"{exc}"
            ) from exc
    if array.dtype.kind in "SUT":
        raise InvalidInput(
            f"out['{name}'] is {array.dtype}, which would cut strings off; an object array receives strings"
        )
    if not array.flags.writeable:
        raise InvalidInput(f"out['{name}'] is memory that may be written, found a read-only array")
    if not array.flags.c_contiguous or not array.dtype.isnative:
        raise InvalidInput(
            f"out['{name}'] is row-major and without gaps, in this machine's byte order; "
            f"found {array.dtype.str} with strides {array.strides} for {list(array.shape)}"
        )
    return array


def check_promise(name: str, dtype: np.dtype[Any], shape: tuple[int, ...], contract: Contract) -> None:
    """Check a buffer against what the model's metadata says about the output.

    Raises:
        InvalidInput: it does not fit.
    """
    contract.check_output(name)
    expected = contract.outputs[name]
    fits = len(shape) == len(expected.shape) and all(
        dim in (-1, given) for dim, given in zip(expected.shape, shape, strict=True)
    )
    if not fits or triton_datatype(dtype) != expected.datatype:
        raise InvalidInput(
            f"out['{name}'] is {dtype} {list(shape)}, the output of model '{contract.model}' is {expected}",
            model=contract.model,
        )
