"""The hand-framed messages against protobuf's own encoder and decoder."""

import random
import struct

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from naiad.client import InvalidInput, InvalidResponse, Output
from naiad.client._protocol.protobuf import varint
from naiad.client._protocol.request import InferOptions, decode_infer, encode_infer
from naiad.client._protocol.wire import decode_response


def request_message(inputs, **options) -> pb.ModelInferRequest:
    return pb.ModelInferRequest.FromString(encode_infer("m", "3", inputs, InferOptions(**options), None))


def test_a_request_reads_back_through_protobuf_field_by_field():
    """Name, version, id, parameters, outputs, shapes and bytes arrive as they were given."""
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    message = request_message(
        {"x": x, "mask": np.array([True, False])},
        request_id="r1",
        outputs=["y", Output(name="z", class_count=3)],
        priority=2,
        sequence_id=2**63 + 5,
        sequence_start=True,
        parameters={"temperature": 0.5, "tag": "blue", "n": -7, "flag": False},
    )
    assert (message.model_name, message.model_version, message.id) == ("m", "3", "r1")
    assert [(t.name, t.datatype, list(t.shape)) for t in message.inputs] == [
        ("x", "FP32", [2, 3]),
        ("mask", "BOOL", [2]),
    ]
    assert list(message.raw_input_contents) == [x.tobytes(), b"\x01\x00"]
    assert [output.name for output in message.outputs] == ["y", "z"]
    assert message.outputs[1].parameters["classification"].int64_param == 3
    params = message.parameters
    assert params["priority"].uint64_param == 2
    assert params["sequence_id"].uint64_param == 2**63 + 5
    assert params["sequence_start"].bool_param is True
    assert params["temperature"].double_param == 0.5
    assert params["tag"].string_param == "blue"
    assert params["n"].int64_param == -7
    assert params["flag"].WhichOneof("parameter_choice") == "bool_param"


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**63 - 1, -1, -(2**63)])
def test_numbers_are_encoded_as_protobuf_encodes_int64(value):
    """A parameter of any 64-bit size survives."""
    assert request_message({"x": np.zeros(1)}, parameters={"k": value}).parameters["k"].int64_param == value
    assert len(varint(value)) <= 10


@pytest.mark.parametrize("value", [2**64, None, b"bytes", [1]])
def test_a_parameter_of_another_type_is_refused(value):
    """The message names the parameter."""
    with pytest.raises(InvalidInput, match="parameter 'k'"):
        request_message({"x": np.zeros(1)}, parameters={"k": value})


def a_response(**extra) -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(model_name="m", model_version="1", id="q", **extra)
    message.parameters["triton_final_response"].bool_param = True
    message.parameters["score"].double_param = -0.25
    message.parameters["count"].int64_param = -3
    return message


def add_output(message, name, array, datatype):
    output = message.outputs.add(name=name, datatype=datatype, shape=array.shape)
    output.parameters["k"].string_param = "v"
    message.raw_output_contents.append(array.tobytes())


def test_a_response_from_protobuf_is_read_field_by_field():
    """Outputs come back writable, with the values, names and parameters that were sent."""
    message = a_response()
    y, z = np.arange(4, dtype=np.int64).reshape(2, 2), np.zeros((0, 5), np.float16)
    add_output(message, "y", y, "INT64")
    add_output(message, "z", z, "FP16")
    result = decode_infer(message.SerializeToString())
    assert (result.model_name, result.model_version, result.request_id) == ("m", "1", "q")
    assert result.parameters == {"triton_final_response": True, "score": -0.25, "count": -3}
    np.testing.assert_array_equal(result["y"], y)
    assert result["z"].shape == (0, 5)
    assert result["z"].dtype == np.float16
    result["y"][0, 0] = 9
    with pytest.raises(KeyError, match=r"it has y, z"):
        result["nope"]


@pytest.mark.parametrize(
    ("datatype", "field", "values", "expected"),
    [
        ("INT32", "int_contents", [1, -2, 3], np.array([1, -2, 3], np.int32)),
        ("UINT8", "uint_contents", [1, 2, 255], np.array([1, 2, 255], np.uint8)),
        ("FP32", "fp32_contents", [0.5, 1.5, -2.0], np.array([0.5, 1.5, -2.0], np.float32)),
        ("BOOL", "bool_contents", [True, False, True], np.array([True, False, True])),
        ("BYTES", "bytes_contents", [b"a", b"", b"\xff"], np.array([b"a", b"", b"\xff"], object)),
    ],
)
def test_typed_contents_of_other_servers_are_read(datatype, field, values, expected):
    """A server that answers in the typed fields is understood as well."""
    message = a_response()
    output = message.outputs.add(name="y", datatype=datatype, shape=[3])
    getattr(output.contents, field).extend(values)
    got = decode_infer(message.SerializeToString())["y"]
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def test_every_truncation_of_a_response_is_refused_or_complete():
    """Cutting a message anywhere never crashes with anything but InvalidResponse."""
    message = a_response()
    add_output(message, "y", np.arange(3, dtype=np.float32), "FP32")
    data = message.SerializeToString()
    for cut in range(len(data)):
        try:
            decode_infer(data[:cut])
        except InvalidResponse:
            continue


def test_random_bytes_are_refused_or_read_but_never_crash():
    """10,000 mutations of a valid response give a result or InvalidResponse, nothing else."""
    message = a_response()
    add_output(message, "y", np.arange(3, dtype=np.float32), "FP32")
    add_output(message, "s", np.frombuffer(b"\x01\x00\x00\x00a", np.uint8)[:5], "UINT8")
    original, dice = message.SerializeToString(), random.Random(7)
    for _ in range(10_000):
        data = bytearray(original)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            decode_infer(bytes(data))
        except InvalidResponse:
            continue


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("FP32", [3], b"\0" * 8),
        ("FP32", [-1], b"\0" * 8),
        ("FP32", [2**40], b"\0" * 8),
        ("FP99", [2], b"\0" * 8),
        ("BYTES", [2], b"\x01\0\0\0a"),
        ("BYTES", [1], b"\xff\xff\xff\xffa"),
        ("BYTES", [1], b"\x01\0\0\0ab"),
        ("BYTES", [2**40], b""),
    ],
)
def test_a_tensor_that_does_not_fit_its_description_is_refused(datatype, shape, data):
    """The error names the output; no absurd amount of memory is asked for."""
    message = pb.ModelInferResponse(model_name="m")
    message.outputs.add(name="y", datatype=datatype, shape=shape)
    message.raw_output_contents.append(data)
    with pytest.raises(InvalidResponse, match="output 'y'"):
        decode_infer(message.SerializeToString())


def test_missing_contents_are_refused():
    """Two outputs with one content are no answer."""
    message = a_response()
    add_output(message, "y", np.zeros(1), "FP64")
    message.outputs.add(name="z", datatype="FP64", shape=[1])
    with pytest.raises(InvalidResponse, match="contents of 2 outputs, found 1"):
        decode_infer(message.SerializeToString())


def test_unknown_fields_are_skipped():
    """A newer server's additional fields do no harm."""
    message = a_response()
    add_output(message, "y", np.zeros(2, np.float32), "FP32")
    extra = varint(99 << 3 | 0) + varint(5) + varint(98 << 3 | 1) + struct.pack("<d", 1) + varint(97 << 3 | 5) + b"1234"
    assert decode_response(message.SerializeToString() + extra).outputs[0].name == "y"
