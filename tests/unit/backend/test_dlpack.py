"""DLPack capsules are read and made by the letter of dlpack.h."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
import torch
from _ort_datatypes import BY_TRITON
from _ort_dlpack import array_from, capsule_of, num_lent
from _ort_errors import RequestError
from _ort_memory import DeviceArray, host_view
from torch.utils import dlpack

CPU = 1
FP32 = BY_TRITON["TYPE_FP32"]


def array(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> DeviceArray:
    return DeviceArray(pointer=values.ctypes.data, shape=values.shape, data_type=FP32, index=0, owner=values)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("BOOL", torch.bool),
        ("UINT8", torch.uint8),
        ("INT8", torch.int8),
        ("INT16", torch.int16),
        ("INT32", torch.int32),
        ("INT64", torch.int64),
        ("FP16", torch.float16),
        ("BF16", torch.bfloat16),
        ("FP32", torch.float32),
        ("FP64", torch.float64),
    ],
)
def test_pytorch_and_we_read_the_same(name: str, dtype: torch.dtype) -> None:
    """A tensor of PyTorch passes both ways with its type, shape and bits."""
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    read = array_from(dlpack.to_dlpack(tensor), BY_TRITON[f"TYPE_{name}"], CPU)
    assert (read.pointer, read.shape) == (tensor.data_ptr(), (2, 3))
    back = dlpack.from_dlpack(capsule_of(read[1:], CPU))
    assert back.dtype == dtype
    assert torch.equal(back, tensor[1:])


def test_memory_lives_as_long_as_its_consumer() -> None:
    """The array is kept until whoever took the capsule lets go."""
    values = np.ones(4, np.float32)
    before, references = num_lent(), sys.getrefcount(values)
    tensor = dlpack.from_dlpack(capsule_of(array(values), CPU))
    gc.collect()
    assert num_lent() == before + 1
    assert sys.getrefcount(values) > references
    del tensor
    gc.collect()
    assert (num_lent(), sys.getrefcount(values)) == (before, references)


def test_an_unused_capsule_keeps_nothing() -> None:
    """A capsule that nobody took gives its array back when it goes."""
    before = num_lent()
    capsule = capsule_of(array(np.ones(4, np.float32)), CPU)
    assert num_lent() == before + 1
    del capsule
    assert num_lent() == before


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, 3, dtype=torch.float64), torch.zeros(3, 2).T], ids=["type", "columns first"]
)
def test_what_cannot_be_read_is_refused(tensor: torch.Tensor) -> None:
    """Another type or order of the elements is the request's error."""
    with pytest.raises(RequestError, match=r"expected TYPE_FP32, row by row"):
        array_from(dlpack.to_dlpack(tensor), FP32, CPU)


def test_another_kind_of_device_is_refused() -> None:
    """A tensor of the CPU is none of a GPU's."""
    with pytest.raises(RequestError, match="send it in CPU memory"):
        array_from(dlpack.to_dlpack(torch.zeros(2)), FP32, 2)


def test_rows_are_views() -> None:
    """Rows, and other shapes, are the same memory."""
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    rows = array(values)[1:3]
    np.testing.assert_array_equal(host_view(rows.pointer, rows.shape, rows.dtype, rows), values[1:3])
    assert (rows.reshape(-1).shape, rows.reshape((3, 2)).shape, rows.nbytes) == ((6,), (3, 2), 24)
