"""Answers of broken and hostile servers: InvalidResponse, and no more memory than a small multiple of the message."""

import tracemalloc

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from hostile_answers import HOSTILE, MANY, PLAIN, TAKEN, nested, output
from naiad.client import InvalidResponse, TensorMetadata
from naiad.client._protocol.codec import Codec
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.protobuf import varint
from naiad.client._protocol.request import decode_infer
from naiad.client._protocol.shared import decode_shared

TIMES = 20
"""How many times its own size reading a message may take: an element of two bytes is an object of 40 here."""
FIXED = 8 << 20
"""What it may take beside that: the limits on what has no size in the message."""


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_answer_is_an_invalid_response(message):
    """For whoever reads it, with bounded memory; a codec that saw it reads the next one as ever."""
    tensor = TensorMetadata(name="y", datatype="FP32", shape=(-1,))
    known = Contract(model="m", inputs={}, outputs={"y": tensor}, optional=frozenset(), max_batch_size=0)
    codec = Codec("m", "", known)
    for read in (decode_infer, codec.decode, codec.decode, lambda data: decode_shared(data, {})):
        tracemalloc.start()
        try:
            with pytest.raises(InvalidResponse, match=r"expected|ends within"):
                read(message)
            assert tracemalloc.get_traced_memory()[1] <= TIMES * len(message) + FIXED
        finally:
            tracemalloc.stop()
    assert codec.decode(PLAIN)["y"].tolist() == [0]
    assert codec.decode(PLAIN)["y"].tolist() == [0]


@pytest.mark.parametrize("message", TAKEN.values(), ids=TAKEN)
def test_an_unusual_answer_is_read_as_protobuf_reads_it(message):
    """What newer or other servers may send is no reason to fail, and takes bounded memory as well."""
    assert pb.ModelInferResponse.FromString(message).outputs[0].name == "y"
    tracemalloc.start()
    try:
        result = decode_infer(message)
        assert tracemalloc.get_traced_memory()[1] <= TIMES * len(message) + FIXED
    finally:
        tracemalloc.stop()
    assert not result["y"].any()


@pytest.mark.parametrize(
    ("datatype", "item"), [("BYTES", b"\0\0\0\0"), ("BYTES", b"\1\0\0\0a"), ("BYTES", b"\2\0\0\0ab"), ("INT8", b"a")]
)
def test_an_answer_of_a_million_elements_takes_what_they_take(datatype, item):
    """Strings of two bytes are the worst: each is an object."""
    message = output(datatype=datatype.encode(), dims=varint(MANY)) + nested(6, item * MANY)
    tracemalloc.start()
    try:
        assert decode_infer(message)["y"].shape == (MANY,)
        assert tracemalloc.get_traced_memory()[1] <= TIMES * len(message) + FIXED
    finally:
        tracemalloc.stop()


def test_a_million_different_strings_take_what_they_take():
    """No element is shared, and lengths differ so that none is cut out with the others."""
    items = [b"%x" % number for number in range(MANY // 4)]
    contents = b"".join(np.uint32(len(item)).tobytes() + item for item in items)
    message = output(datatype=b"BYTES", dims=varint(len(items))) + nested(6, contents)
    tracemalloc.start()
    try:
        assert decode_infer(message)["y"].tolist() == items
        assert tracemalloc.get_traced_memory()[1] <= TIMES * len(message) + FIXED
    finally:
        tracemalloc.stop()


def test_what_a_server_says_beside_its_tensors_is_not_kept():
    """A thousand answers of different sizes, each with 100 kB that nobody knows, leave next to nothing behind."""
    tensor = TensorMetadata(name="y", datatype="FP32", shape=(-1,))
    known = Contract(model="m", inputs={}, outputs={"y": tensor}, optional=frozenset(), max_batch_size=0)
    codec = Codec("m", "", known)
    tracemalloc.start()
    try:
        for number in range(1000):
            assert codec.decode(nested(99, bytes(100_000 + number)) + PLAIN)["y"].tolist() == [0]
        assert tracemalloc.get_traced_memory()[0] <= FIXED
    finally:
        tracemalloc.stop()
