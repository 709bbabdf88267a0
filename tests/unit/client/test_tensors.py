"""Arrays to bytes and back."""

import ml_dtypes
import numpy as np
import pytest

from naiad.client import InvalidInput, InvalidResponse
from naiad.client._protocol.datatypes import numpy_dtype, triton_datatype
from naiad.client._protocol.dlpack import tensor_of
from naiad.client._protocol.tensors import ALIGNED_FROM_BYTES, ALIGNMENT, as_array, decode, encode

DATATYPES = (
    ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16"]
)  # fmt: skip


def sent(array: np.ndarray) -> bytes:
    """The bytes that reach the wire: a request joins them in just this way."""
    return b"".join([encode(array, triton_datatype(array.dtype))])


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4), (2, 0), (2, 3, 4)])
def test_every_datatype_and_shape_goes_round(datatype, shape):
    """What is encoded is decoded to the same values, type and shape, in memory that may be written."""
    dtype = numpy_dtype(datatype)
    array = (np.arange(np.prod(shape, dtype=int)) % 2).astype(dtype).reshape(shape)
    back = decode(sent(array), datatype, shape)
    assert triton_datatype(back.dtype) == datatype
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable
    assert back.flags.aligned
    assert back.flags.owndata


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
        np.arange(12, dtype=np.float32)[::-2],
        np.arange(12, dtype=">f4").reshape(3, 4),
        np.arange(12, dtype=">i8")[::3],
    ],
    ids=["transposed", "strided", "big-endian", "big-endian strided"],
)
def test_any_memory_layout_is_sent_as_row_major_little_endian(array):
    """The bytes are those of a plain copy."""
    expected = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
    assert sent(array) == expected


def test_a_contiguous_array_is_not_copied():
    """The buffer to send is the array's own memory."""
    array = np.arange(10, dtype=np.float32)
    assert np.shares_memory(encode(array, "FP32"), array)


@pytest.mark.parametrize(
    ("datatype", "shape", "size_bytes"),
    [
        ("FP32", (2**62, 0), 0),
        ("FP32", (0, 2**63 - 1, 2**63 - 1), 0),
        ("BYTES", (0, 2**62, 2**62), 0),
        ("FP32", (1,) * 65, 4),
        ("BYTES", (1,) * 65, 4),
        ("INT8", (-1,), 1),
        ("INT8", (-1, -1), 1),
        ("INT8", (2**62, 4), 0),
        ("INT8", (2**32, 2**32), 0),
        ("FP8", (1,), 1),
        ("", (1,), 1),
    ],
)
def test_an_absurd_shape_is_refused(datatype, shape, size_bytes):
    """No memory is asked for, and no other error comes out."""
    with pytest.raises(InvalidResponse, match="expected"):
        decode(bytes(size_bytes), datatype, shape)


def test_lists_take_the_models_type_and_arrays_keep_theirs():
    """A Python list has no type of its own; an array is never converted silently."""
    assert as_array([1, 2], "FP32").dtype == np.float32
    assert as_array(np.array([1, 2]), "FP32").dtype == np.int64
    assert as_array(np.float64(1), "FP32").dtype == np.float64
    assert as_array(["a"], "BYTES").dtype == object
    assert as_array([1.5], "BF16").dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        ([[1, 2], [3]], "UINT8"),
        (["x"], "UINT8"),
        (["1"], "FP32"),
        ([None], "UINT8"),
        ([None], "FP32"),
        ([300], "UINT8"),
        ([-1], "UINT64"),
        ([1.5], "INT32"),
        ([float("nan")], "INT32"),
        ([2], "BOOL"),
        ([0.5], "BOOL"),
        ([1e6], "FP16"),
        ([1e300], "FP32"),
        ([2**64], "INT64"),
        ([1j], "FP32"),
        ([1, "a"], "FP32"),
    ],
)
def test_a_list_that_is_no_tensor_is_refused(value, datatype):
    """Ragged lists, text for numbers, fractions for integers and values out of range are named as wrong input."""
    with pytest.raises(InvalidInput, match=f"expected an array of {datatype}"):
        as_array(value, datatype)


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        ([0, 1, True], "BOOL"),
        ([255, 0], "UINT8"),
        ([2**64 - 1], "UINT64"),
        ([-(2**63)], "INT64"),
        ([2.0], "INT8"),
        ([0.1, float("inf"), float("nan"), -(2**40)], "FP32"),
        ([], "INT32"),
        ([[], []], "FP16"),
        (3, "FP64"),
        ([[True]], "FP32"),
    ],
)
def test_a_list_of_values_that_the_type_has_is_taken(value, datatype):
    """A float is the nearest one; everything else is exact."""
    array = as_array(value, datatype)
    assert array.dtype == numpy_dtype(datatype)
    np.testing.assert_allclose(array.astype(np.float64), np.asarray(value, np.float64), rtol=1e-6)


FLOAT8 = [name for name in dir(ml_dtypes) if name.startswith("float8_")]


@pytest.mark.parametrize("name", FLOAT8)
def test_8_bit_floats_travel_as_their_bits(name):
    """Triton has no name for them; the bits come back as UINT8 and are viewed as what they are."""
    dtype = np.dtype(getattr(ml_dtypes, name))
    array = np.arange(256, dtype=np.uint8).view(dtype)
    assert triton_datatype(dtype) == "UINT8"
    assert decode(sent(array), "UINT8", (256,)).view(dtype).tobytes() == array.tobytes()


@pytest.mark.parametrize("size", [ALIGNED_FROM_BYTES // 4 + odd for odd in (-1, 0, 1, 1000)])
def test_large_tensors_are_aligned(size):
    """From 256 KiB on, an array begins at a cache line, and may be written."""
    array = np.arange(size, dtype=np.float32)
    back = decode(array.tobytes(), "FP32", (size,))
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable
    assert back.ctypes.data % ALIGNMENT == 0 or back.nbytes < ALIGNED_FROM_BYTES


TORCH_TYPES = ["float32", "float16", "int64", "uint8", "bool", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


@pytest.mark.parametrize("name", TORCH_TYPES)
def test_torch_tensors_come_in_without_a_copy(name):
    """A CPU tensor is read where it lies, whatever its type and layout."""
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    tensor = torch.tensor([[0.0, 1.0, 1.5], [2.0, -4.0, 0.25]]).to(getattr(torch, name)).T
    array = as_array(tensor)
    assert array.ctypes.data == tensor.data_ptr()
    assert array.shape == (3, 2)
    datatype = {"bfloat16": "BF16", "bool": "BOOL"}.get(name, "UINT8" if name.startswith("float8") else None)
    assert triton_datatype(array.dtype) == (datatype or triton_datatype(np.dtype(name)))
    assert array.astype(np.float32).tolist() == tensor.float().tolist()
    assert sent(array) == tensor.contiguous().view(torch.uint8).numpy().tobytes()


def test_a_torch_tensor_that_cannot_be_read_is_refused():
    """One that needs a gradient, or is nowhere: with the reason."""
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(InvalidInput, match="detach"):
            as_array(torch.zeros(2, requires_grad=True, dtype=dtype))
    with pytest.raises(InvalidInput, match="on the CPU"):
        as_array(torch.zeros(2, device="meta"))


@pytest.mark.parametrize("name", TORCH_TYPES)
def test_arrays_go_out_to_torch_without_a_copy(name):
    """bfloat16 and 8-bit floats too; torch writes where the array lies."""
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    array = np.zeros((2, 3), getattr(ml_dtypes, name, None) or name)
    tensor = torch.from_dlpack(tensor_of(array))
    assert tensor.dtype == getattr(torch, name)
    tensor[1, 2] = 1
    assert array[1, 2] == 1


@pytest.mark.parametrize(
    "dtype", [np.complex64, "datetime64[s]", np.longdouble, ml_dtypes.int4, ml_dtypes.float4_e2m1fn]
)
def test_types_that_triton_does_not_have_are_known_as_such(dtype):
    """Complex numbers and dates have no data type on the wire."""
    assert triton_datatype(np.dtype(dtype)) is None
