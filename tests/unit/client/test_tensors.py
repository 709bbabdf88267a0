"""Arrays to bytes and back."""

import ml_dtypes
import numpy as np
import pytest

from naiad.client import InvalidInput
from naiad.client._protocol.datatypes import numpy_dtype, triton_datatype
from naiad.client._protocol.tensors import as_array, decode, encode

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
    "array",
    [
        np.array([b"a", "häß", b"", b"\xff\x00"], object),
        np.array([b"ab", b"c"]),
        np.array(["ab", "ß"]),
        np.array([["a", "b"], ["c", ""]], np.dtypes.StringDType()),
    ],
    ids=["object", "S", "U", "StringDType"],
)
def test_strings_of_every_kind_come_back_as_bytes(array):
    """Text is UTF-8 on the wire."""
    back = decode(sent(array), "BYTES", array.shape)
    wanted = [item if isinstance(item, bytes) else item.encode() for item in array.reshape(-1).tolist()]
    assert back.reshape(-1).tolist() == wanted
    assert back.shape == array.shape


def test_an_object_that_is_no_string_is_refused():
    """The message says what was found."""
    with pytest.raises(InvalidInput, match="str or bytes in a BYTES tensor, found int"):
        encode(np.array([b"a", 3], object), "BYTES")


def test_lists_take_the_models_type_and_arrays_keep_theirs():
    """A Python list has no type of its own; an array is never converted silently."""
    assert as_array([1, 2], "FP32").dtype == np.float32
    assert as_array(np.array([1, 2]), "FP32").dtype == np.int64
    assert as_array(np.float64(1), "FP32").dtype == np.float64
    assert as_array(["a"], "BYTES").dtype == object
    assert as_array([1.5], "BF16").dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("value", [[[1, 2], [3]], ["x"], [None], [300]])
def test_a_list_that_is_no_tensor_is_refused(value):
    """Ragged lists, text for numbers and values out of range are named as wrong input."""
    with pytest.raises(InvalidInput, match="expected an array of UINT8"):
        as_array(value, "UINT8")


def test_torch_tensors_come_in_without_a_copy():
    """A CPU tensor is read where it lies; one that needs a gradient is refused with the reason."""
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    tensor = torch.arange(4, dtype=torch.float32)
    assert as_array(tensor).ctypes.data == tensor.data_ptr()
    with pytest.raises(InvalidInput, match="detached"):
        as_array(torch.zeros(2, requires_grad=True))


@pytest.mark.parametrize("dtype", [np.complex64, "datetime64[s]", np.longdouble])
def test_types_that_triton_does_not_have_are_known_as_such(dtype):
    """Complex numbers and dates have no data type on the wire."""
    assert triton_datatype(np.dtype(dtype)) is None
