"""Typed contents: the fields that other KServe servers answer in, where Triton sends raw bytes.

Source: ``InferTensorContents`` of the KServe v2 gRPC specification; it has none for FP16 and BF16.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from naiad.client._protocol.tensors import described, empty
from naiad.client.errors import InvalidResponse

_FIELDS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def typed_outputs(message: bytes) -> Iterator[NDArray[Any]]:
    """Read the outputs of a ModelInferResponse in their order.

    Raises:
        InvalidResponse: an output's values are not what its description says.
    """
    from google.protobuf.message import DecodeError
    from tritonclient.grpc import service_pb2  # 20 ms that inference on Triton never needs

    try:
        parsed = service_pb2.ModelInferResponse.FromString(message)
    except DecodeError as exc:
        raise InvalidResponse(f"expected a ModelInferResponse, found {exc}") from exc
    for output in parsed.outputs:
        try:
            yield _array(output.datatype, tuple(output.shape), output.contents)
        except InvalidResponse as exc:
            raise InvalidResponse(f"output '{output.name}': {exc}") from exc


def _array(datatype: str, shape: tuple[int, ...], contents: Any) -> NDArray[Any]:
    dtype, num_elements = described(datatype, shape)
    if not num_elements:
        return empty(shape, dtype)
    field = _FIELDS.get(datatype)
    if field is None:
        raise InvalidResponse(f"expected raw contents: the protocol has no typed ones for {datatype}")
    values = getattr(contents, field)
    if len(values) != num_elements:
        raise InvalidResponse(f"expected {num_elements} values for {datatype} {list(shape)}, found {len(values)}")
    try:
        return np.fromiter(values, dtype, len(values)).reshape(shape)
    except OverflowError as exc:
        raise InvalidResponse(f"expected values of {datatype}, found others: {exc}") from exc
