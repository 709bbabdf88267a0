"""BYTES tensors, from every kind of string that NumPy has, against tritonclient and by what their elements are."""

import struct

import numpy as np
import pytest
import tritonclient.utils as reference
from hypothesis import given
from hypothesis import strategies as st

from naiad.client import InvalidInput, InvalidResponse
from naiad.client._protocol.strings import decode_strings, encode_strings

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
STRING = np.dtypes.StringDType()


def framed(items: list[bytes | str]) -> bytes:
    parts = [item if isinstance(item, bytes) else item.encode() for item in items]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def encoded(array: np.ndarray) -> bytes:
    return b"".join([encode_strings(array)])


ARRAYS = {
    "object": np.array([b"a", "häß", b"", b"\xff\x00"], object),
    "object of bytes": np.array([b"a", b"bc\0"], object),
    "object of str": np.array(["a", "häß"], object),
    "object of long": np.array([b"a", b"b" * 1023, b"c" * 1024, b"d" * 70_000], object),
    "object of subclasses": np.array([np.bytes_(b"ab"), np.str_("cd")], object),
    "S": np.array([b"ab", b"c"]),
    "S of one width": np.array([b"ab", b"cd"]),
    "S with NUL inside": np.array([b"a\0b", b"c\0"]),
    "S of nothing": np.array([b"", b""]),
    "U": np.array(["ab", "ß", ""]),
    "U of one width": np.array(["ab", "cd"]),
    "U ASCII": np.array(["ab", "c", ""]),
    "U big-endian": np.array(["ab", "c"]).astype(">U2"),
    "StringDType": np.array([["a", "b"], ["c", ""]], STRING),
    "StringDType of one width": np.array(["abc", "def"], STRING),
    "StringDType beyond ASCII": np.array(["a", "ß"], STRING),
    "StringDType with NUL": np.array(["a\0", "b", "\0c"], STRING),
    "StringDType of nothing": np.array(["", ""], STRING),
    "StringDType, one long": np.array(["a"] * 100 + ["b" * 1000], STRING),
    "no dimension": np.array("ab"),
    "no element": np.empty((0, 3), "S4"),
    "no element of U": np.empty(0, "U4"),
    "no element of StringDType": np.empty((2, 0), STRING),
    "transposed": np.array([[b"a", b"bc"], [b"d", b"e"]]).T,
    "strided": np.array(["aß", "b", "c", "d"])[::2],
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_strings_of_every_kind_come_back_as_bytes(array):
    """Text is UTF-8 on the wire; elements are as NumPy gives them, in row-major order."""
    items = array.reshape(-1).tolist()
    assert encoded(array) == framed(items)
    back = decode_strings(encoded(array), array.size)
    assert back.dtype == object
    assert back.tolist() == [item if isinstance(item, bytes) else item.encode() for item in items]


@pytest.mark.parametrize("width", [1, 5])
def test_more_than_one_block_of_fixed_width_strings_is_framed_as_a_whole(monkeypatch, width):
    """Arrays are worked on in blocks, which does not show."""
    monkeypatch.setattr("naiad.client._protocol.strings._BLOCK_BYTES", 64)
    array = np.array([b"x" * (number % (width + 1)) for number in range(1000)], f"S{width}")
    assert encoded(array) == framed(array.tolist())


@given(st.lists(st.one_of(TEXT, st.binary(max_size=20))))
def test_objects_are_framed_as_tritonclient_does(items):
    """Any mixture of str and bytes."""
    array = np.empty(len(items), object)
    array[:] = items
    expected = reference.serialize_byte_tensor(array)
    assert encoded(array) == (expected.item() if items else b"")
    assert decode_strings(encoded(array), len(items)).tolist() == (
        reference.deserialize_bytes_tensor(expected.item()).tolist() if items else []
    )


@given(st.lists(TEXT), st.sampled_from(["S", "U", "T"]))
def test_text_is_framed_as_its_array_holds_it(items, kind):
    """Fixed-width arrays drop the NULs at an element's end, StringDType keeps them."""
    array = np.array([item.encode() for item in items] if kind == "S" else items, kind)
    assert encoded(array) == framed(array.tolist())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([b"a", 3], object), "^expected str or bytes in a BYTES tensor, found int"),
        (np.array([b"a", None], object), "found NoneType"),
        (np.array(["a", None], np.dtypes.StringDType(na_object=None)), "found NoneType"),
        (np.frompyfunc(bytearray, 1, 1)(np.array([b"a"], object)), "found bytearray"),
        (np.array([["a", "b"], ["c"]], object), "found list"),
        (np.array(["\ud800"], object), "found what is none: .* surrogates not allowed"),
        (np.array(["\ud800"]), "found what is none: .* surrogates not allowed"),
    ],
)
def test_an_element_that_is_no_string_is_refused(array, message):
    """The message says what was found."""
    with pytest.raises(InvalidInput, match=message):
        encode_strings(array)


@pytest.mark.parametrize(
    ("data", "num_elements"),
    [
        (b"", 1),
        (b"\1\0\0", 1),
        (b"\1\0\0\0", 1),
        (b"\xff\xff\xff\xffa", 1),
        (b"\1\0\0\0ab", 1),
        (b"\1\0\0\0a", 2),
        (b"\1\0\0\0a\2\0\0\0b", 2),
        (b"\1\0\0\0a\1\0", 2),
        (framed([b"a"] * 3), 2),
        (framed([b"a"] * 3), 4),
        (framed([b"ab"] * 2)[:-1] + b"\0", 3),
        (bytes(8), 2**40),
        (b"\0", 0),
    ],
)
def test_strings_that_are_not_what_was_announced_are_refused(data, num_elements):
    """Too few, too many, or cut off."""
    with pytest.raises(InvalidResponse, match=f"expected {num_elements} strings"):
        decode_strings(data, num_elements)


def test_equal_lengths_are_not_taken_for_granted():
    """A tensor of just the size that equal strings would have is read by what its lengths say."""
    data = framed([b"ab", b"a", b"abc"])
    assert len(data) == len(framed([b"ab"] * 3))
    assert decode_strings(data, 3).tolist() == [b"ab", b"a", b"abc"]
