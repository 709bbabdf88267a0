"""The tensor types that Triton and ONNX share, and the numpy arrays that carry them here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

BF16: Final = "TYPE_BF16"
STRING: Final = "TYPE_STRING"

ONNX_BFLOAT16: Final = 16
"""``TensorProto.BFLOAT16``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataType:
    """One tensor type: its name in ONNX, in config.pbtxt, and the numpy type that carries it."""

    onnx: str
    triton: str
    numpy: np.dtype[Any]


# numpy has no bfloat16, so its bits travel as uint16; strings travel as objects.
_ROWS: Final = (
    ("bool", "BOOL", np.bool_),
    ("uint8", "UINT8", np.uint8),
    ("uint16", "UINT16", np.uint16),
    ("uint32", "UINT32", np.uint32),
    ("uint64", "UINT64", np.uint64),
    ("int8", "INT8", np.int8),
    ("int16", "INT16", np.int16),
    ("int32", "INT32", np.int32),
    ("int64", "INT64", np.int64),
    ("float16", "FP16", np.float16),
    ("bfloat16", "BF16", np.uint16),
    ("float", "FP32", np.float32),
    ("double", "FP64", np.float64),
    ("string", "STRING", np.object_),
)

_TYPES: Final = tuple(DataType(onnx=f"tensor({o})", triton=f"TYPE_{t}", numpy=np.dtype(n)) for o, t, n in _ROWS)
ONNX_NUMBERS: Final[Mapping[str, int]] = {
    "TYPE_FP32": 1,
    "TYPE_UINT8": 2,
    "TYPE_INT8": 3,
    "TYPE_UINT16": 4,
    "TYPE_INT16": 5,
    "TYPE_INT32": 6,
    "TYPE_INT64": 7,
    "TYPE_STRING": 8,
    "TYPE_BOOL": 9,
    "TYPE_FP16": 10,
    "TYPE_FP64": 11,
    "TYPE_UINT32": 12,
    "TYPE_UINT64": 13,
    "TYPE_BF16": ONNX_BFLOAT16,
}
"""``TensorProto.DataType`` by Triton's names."""
BY_ONNX: Final[Mapping[str, DataType]] = {each.onnx: each for each in _TYPES}
BY_TRITON: Final[Mapping[str, DataType]] = {each.triton: each for each in _TYPES}
