"""The types of tensors in the three languages that meet here: numpy's, PyTorch's and Triton's."""

from typing import Any

import numpy as np
import torch

TRITON: dict[str, str] = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "bool": "BOOL",
    "object": "STRING",
}
"""Triton's name by numpy's; strings travel as objects, as ONNX Runtime takes and gives them."""

TORCH: frozenset[torch.dtype] = frozenset(getattr(torch, name) for name in TRITON if name != "object")
"""The types of PyTorch that can stand at the boundary of a served model."""


def triton_name(dtype: np.dtype[Any]) -> str:
    """Return Triton's name of a numpy type, without its `TYPE_`."""
    return TRITON["object" if dtype.kind in "OUS" else dtype.name]


def as_array(value: Any) -> np.ndarray[Any, Any]:
    """Return an array as ONNX Runtime takes it; text of any kind becomes objects."""
    array = np.asarray(value)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    return array.astype(object) if array.dtype.kind == "U" else np.ascontiguousarray(array).reshape(array.shape)
