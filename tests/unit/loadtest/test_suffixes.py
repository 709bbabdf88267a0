"""What is appended to a serialised request, read by protobuf itself."""

from __future__ import annotations

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from naiad.loadtest._data import codec
from naiad.loadtest._data.codec import Place
from naiad.loadtest._data.payloads import request_id_suffix, sequence_suffix

INPUTS = {
    "x": np.arange(6, dtype=np.float32).reshape(2, 3),
    "words": np.array([[b"a", b"bc"], [b"", b"def"]], object),
}
REQUEST = codec.encode_inputs("m", "3", INPUTS)


def whole():
    """The same request, built by the protocol's own messages."""
    message = service_pb2.ModelInferRequest(model_name="m", model_version="3")
    for name, datatype, shape in (("x", "FP32", (2, 3)), ("words", "BYTES", (2, 2))):
        message.inputs.add(name=name, datatype=datatype, shape=shape)
    message.raw_input_contents.append(INPUTS["x"].tobytes())
    message.raw_input_contents.append(b"\1\0\0\0a\2\0\0\0bc\0\0\0\0\3\0\0\0def")
    return message


def parsed(*parts):
    return service_pb2.ModelInferRequest.FromString(b"".join(parts))


def test_a_request_without_a_suffix_is_the_protocols():
    """What is appended to is what protobuf would have written."""
    assert parsed(REQUEST) == whole()


@pytest.mark.parametrize("sequence_id", [1, 2**62, 2**64 - 1, "a sequence"])
@pytest.mark.parametrize(("start", "end"), [(True, False), (False, False), (False, True), (True, True)])
def test_a_sequences_suffix_adds_its_parameters(sequence_id, start, end):
    """The parameters are those of a request that was built with them; flags that do not hold are left out."""
    expected = whole()
    parameter = expected.parameters["sequence_id"]
    if isinstance(sequence_id, str):
        parameter.string_param = sequence_id
    elif sequence_id < 2**63:
        parameter.int64_param = sequence_id
    else:
        parameter.uint64_param = sequence_id
    if start:
        expected.parameters["sequence_start"].bool_param = True
    if end:
        expected.parameters["sequence_end"].bool_param = True
    assert parsed(REQUEST, sequence_suffix(sequence_id, start, end)) == expected


def test_a_request_id_is_added_and_the_last_one_counts():
    """A later scalar field goes before an earlier one."""
    expected = whole()
    expected.id = "second"
    assert parsed(REQUEST, request_id_suffix("second")) == expected
    assert parsed(REQUEST, request_id_suffix("first"), request_id_suffix("second")) == expected


def test_the_wish_for_a_final_response_is_a_parameter():
    """A stream's request asks to be told of its end."""
    expected = whole()
    expected.parameters["triton_enable_empty_final_response"].bool_param = True
    assert parsed(REQUEST, codec.final_suffix()) == expected


def test_places_of_outputs_are_added_as_requested_outputs():
    """Each output names its region, its offset (unless it is 0) and its size."""
    expected = whole()
    for name, offset, size in (("y", 0, 64), ("z", 128, 7)):
        output = expected.outputs.add(name=name)
        output.parameters["shared_memory_region"].string_param = "region"
        output.parameters["shared_memory_byte_size"].int64_param = size
        if offset:
            output.parameters["shared_memory_offset"].int64_param = offset
    places = {"y": Place("region", 0, 64), "z": Place("region", 128, 7)}
    assert parsed(REQUEST, codec.output_suffix(places)) == expected


def test_suffixes_add_up_in_any_order():
    """A stream's request of a sequence with an id has all of them."""
    suffixes = [sequence_suffix(7, True, False), request_id_suffix("r"), codec.final_suffix()]
    expected = whole()
    expected.id = "r"
    expected.parameters["sequence_id"].int64_param = 7
    expected.parameters["sequence_start"].bool_param = True
    expected.parameters["triton_enable_empty_final_response"].bool_param = True
    assert parsed(REQUEST, *suffixes) == parsed(REQUEST, *reversed(suffixes)) == expected


def test_inputs_in_shared_memory_are_written_there_and_referred_to():
    """Contents are in the memory, an empty tensor stays in the request, and the order of the others does not matter."""
    memory = memoryview(bytearray(256))
    inputs = {**INPUTS, "none": np.empty((0, 2), np.int32)}
    used = []

    def room(size):
        used.append(Place("region", 64 * len(used), size, memory[64 * len(used) : 64 * len(used) + size]))
        return used[-1]

    message = service_pb2.ModelInferRequest.FromString(codec.encode_placed("m", None, inputs, room))
    assert [tensor.name for tensor in message.inputs] == ["x", "words", "none"]
    assert [tensor.parameters["shared_memory_byte_size"].int64_param for tensor in message.inputs] == [24, 22, 0]
    assert list(message.raw_input_contents) == [b""]
    assert memory[:24] == INPUTS["x"].tobytes()
    assert memory[64:86] == whole().raw_input_contents[1]
