"""Turns Triton's tensors into numpy arrays and back, and numpy arrays into what ONNX Runtime takes and gives."""

import ctypes
import math
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from _ort_datatypes import BF16, ONNX_BFLOAT16, DataType
from _ort_session import runtime
from numpy.typing import NDArray


def array_of(tensor: Any, data_type: DataType) -> NDArray[Any]:
    """The data of a tensor of a request; bfloat16 as its bits in uint16, strings as objects of ``bytes``."""
    if data_type.triton != BF16:
        array: NDArray[Any] = tensor.as_numpy()
        return array
    value = runtime().OrtValue(_bindings().OrtValue.from_dlpack(tensor.to_dlpack(), False))
    # Copied, as Triton's stub copies every other input: the memory goes back to the server with the request.
    return _bits(value).copy()


def tensor_of(name: str, array: NDArray[Any], data_type: DataType) -> Any:
    """A tensor for a response; it refers to ``array``, which the caller keeps until the response is sent."""
    if data_type.triton != BF16:
        return pb_utils.Tensor(name, array)
    return pb_utils.Tensor.from_dlpack(name, bf16_value(array)._ortvalue.to_dlpack())


def bf16_value(bits: NDArray[Any]) -> Any:
    """An ``OrtValue`` of bfloat16 over the caller's memory."""
    return runtime().OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(bits), ONNX_BFLOAT16)


def value_of(feed: Any) -> Any:
    """An ``OrtValue`` over the memory of an array, or what is an ``OrtValue`` already."""
    return runtime().OrtValue.ortvalue_from_numpy(feed) if isinstance(feed, np.ndarray) else feed


def array_of_value(value: Any, data_type: DataType) -> NDArray[Any]:
    """The data of an ``OrtValue``; bfloat16 as its bits in uint16."""
    if data_type.triton == BF16:
        return _bits(value)
    array: NDArray[Any] = value.numpy()
    return array


def _bits(value: Any) -> NDArray[Any]:
    shape = tuple(value.shape())
    size = math.prod(shape)
    if size == 0:
        return np.empty(shape, dtype=np.uint16)
    memory: Any = (ctypes.c_uint16 * size).from_address(value.data_ptr())
    memory.owner = value  # the array must keep alive what it looks at
    return np.frombuffer(memory, dtype=np.uint16).reshape(shape)


def _bindings() -> Any:
    return runtime().capi.onnxruntime_pybind11_state
