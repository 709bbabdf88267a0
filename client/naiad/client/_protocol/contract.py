"""What a model expects, and whether a request keeps to it: checked before a byte is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naiad.client._protocol.datatypes import numpy_dtype, triton_datatype
from naiad.client.errors import InvalidInput
from naiad.client.metadata import ModelMetadata, TensorMetadata

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """A model's tensors by name, and what its configuration says about requests."""

    model: str
    inputs: Mapping[str, TensorMetadata]
    outputs: Mapping[str, TensorMetadata]
    optional: frozenset[str]
    """The inputs that may be left out."""
    max_batch_size: int
    """How many rows a request may have; 0 for a model without a batch dimension."""
    queue_timeout: bool = False
    """Whether a request may say how long it waits in the queue."""

    @classmethod
    def of(cls, metadata: ModelMetadata, config: ModelConfig) -> Contract:
        """Join what the server's two descriptions of a model say."""
        return cls(
            model=metadata.name,
            inputs={tensor.name: tensor for tensor in metadata.inputs},
            outputs={tensor.name: tensor for tensor in metadata.outputs},
            optional=frozenset(tensor.name for tensor in config.input if tensor.optional),
            max_batch_size=config.max_batch_size,
            queue_timeout=_lets_requests_expire(config),
        )

    def datatype_of_input(self, name: str) -> str:
        """Return the data type of an input.

        Raises:
            InvalidInput: there is no such input.
        """
        return self._find(self.inputs, name, "input").datatype

    def check_output(self, name: str) -> None:
        """Raise :class:`InvalidInput` if there is no such output."""
        self._find(self.outputs, name, "output")

    def output_size_bytes(self, name: str, num_rows: int) -> int | None:
        """Return how large an output of ``num_rows`` rows is, ``None`` where only the answer tells.

        ``num_rows`` counts for a model with a batch dimension only.

        Raises:
            InvalidInput: there is no such output.
        """
        tensor = self._find(self.outputs, name, "output")
        shape = (num_rows, *tensor.shape[1:]) if self.max_batch_size else tensor.shape
        dtype = numpy_dtype(tensor.datatype)
        if dtype is None or dtype.hasobject or min(shape, default=0) < 0:
            return None
        return math.prod(shape) * dtype.itemsize

    def safely_cast(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the arrays in the model's types where NumPy's rule "safe" allows it, else as they are.

        Raises:
            InvalidInput: there is no such input.
        """
        return {name: _safely_cast(array, self.datatype_of_input(name)) for name, array in arrays.items()}

    def check_inputs(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raise :class:`InvalidInput` unless ``arrays`` is a request that this model takes."""
        if len(arrays) < len(self.inputs):
            self._check_missing(arrays)
        for name, array in arrays.items():
            self._check(self.inputs[name], array)
        if self.max_batch_size:
            self._check_rows(arrays)

    def _find(self, tensors: Mapping[str, TensorMetadata], name: str, kind: str) -> TensorMetadata:
        found = tensors.get(name)
        if found is None:
            known = "; ".join(map(str, tensors.values()))
            raise InvalidInput(
                f"model '{self.model}' has no {kind} '{name}'; its {kind}s are: {known}", model=self.model
            )
        return found

    def _check_missing(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        missing = [str(self.inputs[name]) for name in self.inputs if name not in arrays and name not in self.optional]
        if missing or not arrays:
            given = ", ".join(arrays) or "none"
            raise InvalidInput(
                f"model '{self.model}' expects the input{'s' * (len(missing) > 1)} {'; '.join(missing)}; found {given}",
                model=self.model,
            )

    def _check(self, expected: TensorMetadata, array: NDArray[Any]) -> None:
        if array.dtype is not numpy_dtype(expected.datatype):  # the usual case is one comparison
            datatype = triton_datatype(array.dtype)
            if datatype != expected.datatype:
                raise self._wrong_datatype(expected, array, datatype)
        shape, dims = array.shape, expected.shape
        if shape == dims:
            return
        if len(shape) != len(dims) or any(dim not in (-1, given) for dim, given in zip(dims, shape, strict=True)):
            raise self._wrong_shape(expected, shape)

    def _wrong_datatype(self, expected: TensorMetadata, array: NDArray[Any], datatype: str | None) -> InvalidInput:
        found = f"{datatype} ({array.dtype})" if datatype else str(array.dtype)
        wanted = numpy_dtype(expected.datatype)
        advice = "" if wanted is None or datatype == "BYTES" else f"; convert it: array.astype('{wanted.name}')"
        return InvalidInput(
            f"input '{expected.name}' of model '{self.model}' is {expected.datatype}, found {found}{advice}",
            model=self.model,
        )

    def _wrong_shape(self, expected: TensorMetadata, shape: tuple[int, ...]) -> InvalidInput:
        one_sample = self.max_batch_size and len(shape) == len(expected.shape) - 1
        advice = "; a single sample needs the batch dimension too: array[None]" if one_sample else ""
        return InvalidInput(
            f"input '{expected.name}' of model '{self.model}' has the shape {_dims(expected.shape)}, "
            f"found {_dims(shape)}{advice}",
            model=self.model,
        )

    def _check_rows(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        rows = {array.shape[0] for array in arrays.values()}
        if len(rows) > 1:
            found = ", ".join(f"{name} {array.shape[0]}" for name, array in arrays.items())
            raise InvalidInput(
                f"the inputs of '{self.model}' need the same number of rows, found {found}", model=self.model
            )
        if rows == {0}:  # Triton never answers these
            raise InvalidInput(f"model '{self.model}' takes at least one row a request, found none", model=self.model)
        if max(rows) > self.max_batch_size:
            raise InvalidInput(
                f"model '{self.model}' takes at most {self.max_batch_size} rows a request, found {max(rows)}: "
                "infer_many sends them in several",
                model=self.model,
            )


def _dims(shape: tuple[int, ...]) -> str:
    return f"[{', '.join('?' if dim < 0 else str(dim) for dim in shape)}]"


def _safely_cast(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    wanted = numpy_dtype(datatype)
    if wanted is None or wanted.hasobject or triton_datatype(array.dtype) == datatype:
        return array
    return array.astype(wanted) if np.can_cast(array.dtype, wanted, "safe") else array


def _lets_requests_expire(config: ModelConfig) -> bool:
    """Whether some queue of the model takes a request's own limit: it only shortens one that is configured."""
    batching = config.dynamic_batching
    policies = (batching.default_queue_policy, *batching.priority_queue_policy.values())
    return any(policy.allow_timeout_override and policy.default_timeout_microseconds for policy in policies)
