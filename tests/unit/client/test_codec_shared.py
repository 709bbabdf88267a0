"""Requests and answers whose tensors lie in shared memory, against protobuf's own reading of them."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from naiad.client import InvalidInput, InvalidResponse, Output, TensorMetadata
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.request import NO_OPTIONS, InferOptions, decode_infer
from naiad.client._protocol.shared import Place, decode_shared, encode_shared, placeable


def contract() -> Contract:
    def tensors(*given: tuple[str, str]) -> dict[str, TensorMetadata]:
        return {name: TensorMetadata(name=name, datatype=datatype, shape=(-1, 3)) for name, datatype in given}

    return Contract(
        model="m",
        inputs=tensors(("x", "FP32"), ("words", "BYTES")),
        outputs=tensors(("y", "FP32"), ("z", "INT64")),
        optional=frozenset({"words"}),
        max_batch_size=8,
    )


class Region:
    """Memory that hands out places of itself."""

    def __init__(self, size_bytes: int = 4096) -> None:
        self.memory = memoryview(bytearray(size_bytes))

    def place(self, offset: int, size_bytes: int) -> Place:
        return Place("r", offset, size_bytes, self.memory[offset : offset + size_bytes])


def request(inputs, places, outputs=None, options=NO_OPTIONS) -> pb.ModelInferRequest:
    tensors = placeable(inputs, contract())
    message = encode_shared("m", "1", tensors, options, contract(), places, outputs or {})
    return pb.ModelInferRequest.FromString(message)


def where(parameters) -> tuple[str, int, int]:
    assert set(parameters) <= {"shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"}
    return (
        parameters["shared_memory_region"].string_param,
        parameters["shared_memory_offset"].int64_param,
        parameters["shared_memory_byte_size"].int64_param,
    )


@pytest.mark.parametrize(
    "x",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(6, dtype=">f4").reshape(2, 3),
        [[0, 1, 2], [3, 4, 5]],
    ],
    ids=["plain", "fortran", "big-endian", "list"],
)
def test_a_placed_input_is_written_and_only_referred_to(x):
    """The memory has the row-major little-endian bytes, the message where they are."""
    region = Region()
    message = request({"x": x}, {"x": region.place(256, 24)})
    (sent,) = message.inputs
    assert (sent.name, sent.datatype, list(sent.shape)) == ("x", "FP32", [2, 3])
    assert where(sent.parameters) == ("r", 256, 24)
    assert not message.raw_input_contents
    assert bytes(region.memory[256:280]) == np.arange(6, dtype="<f4").tobytes()


def test_strings_are_placed_as_they_go_over_the_wire():
    """Lengths and bytes, as many as there are; the rest of the place is left alone."""
    region = Region()
    inputs = {"x": np.ones((1, 3), np.float32), "words": [["a", "", "häß"]]}
    assert [tensor.size_bytes for tensor in placeable(inputs, contract())] == [12, 18]
    message = request(inputs, {"words": region.place(0, 64)})
    assert where(message.inputs[1].parameters) == ("r", 0, 18)
    assert bytes(region.memory[:20]) == b"\1\0\0\0a\0\0\0\0\5\0\0\0h\xc3\xa4\xc3\x9f\0\0"
    assert list(message.raw_input_contents) == [np.ones(3, np.float32).tobytes()]


@pytest.mark.parametrize(
    "words",
    [np.array([[b"ab", b"cd"]]), np.array([["ab", "cd"]], object), [["ab", "cd"]]],
    ids=["S", "object", "list"],
)
def test_strings_of_every_kind_are_placed_or_carried_alike(words):
    """However they are held here."""
    region, framed = Region(), b"\2\0\0\0ab\2\0\0\0cd"
    inputs = {"x": np.ones((1, 3), np.float32), "words": words}
    wide = {name: replace(tensor, shape=(-1, -1)) for name, tensor in contract().inputs.items()}
    tensors = placeable(inputs, replace(contract(), inputs=wide))
    for places in ({"words": region.place(0, 64)}, {}):
        message = encode_shared("m", "1", tensors, NO_OPTIONS, contract(), places, {})
        carried = pb.ModelInferRequest.FromString(message).raw_input_contents
        assert carried[1:] == ([] if places else [framed])
    assert bytes(region.memory[:12]) == framed


def test_8_bit_floats_are_placed_as_they_are():
    """Their bits, as UINT8: the values would be others."""
    region, x = Region(), np.array([1.5, -2], ml_dtypes.float8_e4m3fn)
    message = pb.ModelInferRequest.FromString(
        encode_shared("m", "1", placeable({"x": x}, None), NO_OPTIONS, None, {"x": region.place(0, 2)}, {})
    )
    assert message.inputs[0].datatype == "UINT8"
    assert bytes(region.memory[:2]) == x.tobytes()


def test_a_request_that_places_an_output_asks_for_all_of_them():
    """Naming one output leaves out the others, so that all are named."""
    region = Region()
    message = request(
        {"x": np.ones((1, 3), np.float32)}, {}, {"z": region.place(512, 24)}, InferOptions(request_id="q")
    )
    assert message.id == "q"
    assert [output.name for output in message.outputs] == ["y", "z"]
    assert not message.outputs[0].parameters
    assert where(message.outputs[1].parameters) == ("r", 512, 24)
    chosen = request({"x": np.ones((1, 3), np.float32)}, {}, {"z": region.place(0, 24)}, InferOptions(outputs=["y"]))
    assert [output.name for output in chosen.outputs] == ["y"]


def test_what_does_not_fit_is_refused_before_it_is_written():
    """A place that is too small, classes in shared memory, and whatever the model's contract refuses."""
    region, x = Region(), np.ones((1, 3), np.float32)
    with pytest.raises(InvalidInput, match="input 'x' has 12 bytes, its place in shared memory 8"):
        request({"x": x}, {"x": region.place(0, 8)})
    with pytest.raises(InvalidInput, match="output 'y' is asked for as classes"):
        request({"x": x}, {}, {"y": region.place(0, 8)}, InferOptions(outputs=[Output(name="y", class_count=1)]))
    with pytest.raises(InvalidInput, match="is FP32, found FP64"):
        placeable({"x": x.astype(float)}, contract())
    assert not any(region.memory)


def answer(*, entries: int, **parameters) -> bytes:
    message = pb.ModelInferResponse(model_name="m")
    message.outputs.add(name="y", datatype="FP32", shape=[1, 3])
    placed = message.outputs.add(name="z", datatype="INT64", shape=[1, 3])
    for key, value in parameters.items():
        field = "string_param" if isinstance(value, str) else "int64_param"
        setattr(placed.parameters[f"shared_memory_{key}"], field, value)
    message.raw_output_contents.append(np.arange(3, dtype=np.float32).tobytes())
    message.raw_output_contents.extend([b""] * (entries - 1))
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("entries", "said"),
    [(2, {}), (2, {"region": "r", "offset": 64, "byte_size": 24}), (1, {"region": "r", "offset": 64, "byte_size": 24})],
    ids=["as Triton says it", "with its place", "with its place and without an entry"],
)
def test_an_answer_is_read_from_its_place(entries, said):
    """The array is a writable copy; outputs in the message are read from there."""
    region = Region()
    place = region.place(64, 100)
    place.memory[:24] = np.array([7, 8, 9], np.int64).tobytes()
    result = decode_shared(answer(entries=entries, **said), {"z": place})
    place.memory[:24] = bytes(24)
    assert result["z"].tolist() == [[7, 8, 9]]
    assert result["y"].tolist() == [[0, 1, 2]]
    assert result["z"].flags.writeable


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"region": "other", "offset": 64, "byte_size": 24}, "not asked to be at 64 of the region 'other'"),
        ({"region": "r", "byte_size": 24}, "not asked to be at 0 of the region 'r'"),
        ({"region": "r", "offset": 64, "byte_size": 101}, "at most 100 bytes in shared memory, found 101"),
        ({"region": "r", "offset": 64, "byte_size": -24}, "at most 100 bytes in shared memory, found -24"),
        ({"region": "r", "offset": 64, "byte_size": "24"}, "at most 100 bytes in shared memory, found '24'"),
        ({"region": "r", "offset": 64, "byte_size": 23}, r"expected 24 bytes for INT64 \[1, 3\], found 23"),
        ({"region": "r", "offset": "64", "byte_size": 24}, "not asked to be at 64"),
    ],
)
def test_an_answer_that_points_elsewhere_is_refused(parameters, message):
    """A server names only the memory that it was given."""
    with pytest.raises(InvalidResponse, match=message):
        decode_shared(answer(entries=2, **parameters), {"z": Region().place(64, 100)})


def test_a_place_that_is_too_small_for_the_shape_is_refused():
    """Neither numbers nor strings are read beyond it."""
    with pytest.raises(InvalidResponse, match=r"output 'z': expected 24 bytes for INT64 \[1, 3\], found 23"):
        decode_shared(answer(entries=2), {"z": Region().place(64, 23)})
    message, place = pb.ModelInferResponse(model_name="m", raw_output_contents=[b""]), Region().place(0, 10)
    message.outputs.add(name="z", datatype="BYTES", shape=[2])
    place.memory[:10] = b"\1\0\0\0a\2\0\0\0b"
    with pytest.raises(InvalidResponse, match=r"output 'z': BYTES .* found the end of the tensor within one of them"):
        decode_shared(message.SerializeToString(), {"z": place})
    place.memory[5] = 1
    assert decode_shared(message.SerializeToString(), {"z": place})["z"].tolist() == [b"a", b"b"]


def test_an_output_in_shared_memory_that_nobody_gave_is_refused():
    """The ordinary way finds no contents for it."""
    with pytest.raises(InvalidResponse, match="output 'z'"):
        decode_infer(answer(entries=1, region="r", offset=64, byte_size=24))


def test_sizes_of_outputs_are_known_where_their_shape_is():
    """Rows count for models with a batch; strings and dimensions that vary have no size before the answer."""
    known = contract()
    assert known.output_size_bytes("y", 2) == 24
    assert known.output_size_bytes("z", 8) == 192
    words = TensorMetadata(name="w", datatype="BYTES", shape=(-1, 3))
    varying = TensorMetadata(name="v", datatype="FP32", shape=(-1, -1))
    of = Contract(model="m", inputs={}, outputs={"w": words, "v": varying}, optional=frozenset(), max_batch_size=8)
    assert of.output_size_bytes("w", 1) is None
    assert of.output_size_bytes("v", 1) is None
    with pytest.raises(InvalidInput, match="no output 'q'"):
        of.output_size_bytes("q", 1)
