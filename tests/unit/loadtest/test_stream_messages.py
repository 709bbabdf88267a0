"""Reading the messages of a stream without their tensors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from naiad.loadtest._data.stream import outputs_in, read_stream_message


def message(*, final=None, outputs=(), request_id="r1", error="", **parameters):
    envelope = service_pb2.ModelStreamInferResponse(error_message=error)
    response = envelope.infer_response
    response.model_name, response.model_version, response.id = "m", "1", request_id
    if final is not None:
        response.parameters["triton_final_response"].bool_param = final
    for name, value in parameters.items():
        response.parameters[name].int64_param = value
    for name, content in outputs:
        response.outputs.add(name=name, datatype="UINT8", shape=[len(content)])
        response.raw_output_contents.append(content)
    return envelope.SerializeToString()


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("outputs", [(), (("y", b"abc"),), (("y", b"triton_final_response" * 100), ("z", b""))])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_message_says_whether_it_is_the_last_and_whose_it_is(final, outputs, kind):
    """The mark and the id are read; what tensors hold does not matter."""
    answer = read_stream_message(kind(message(final=final, outputs=outputs, other=1 << 40)))
    assert (answer.error, answer.final, answer.empty, answer.request_id) == ("", final, not outputs, "r1")
    response = service_pb2.ModelInferResponse.FromString(answer.response)
    assert [output.name for output in response.outputs] == [name for name, _ in outputs]


def test_an_error_is_the_last_response_unless_the_server_says_otherwise():
    """A model's error may be one of several responses; a refusal has no mark and is the only one."""
    assert read_stream_message(message(error="part 1 broke", final=False))[:3] == ("part 1 broke", False, True)
    assert read_stream_message(message(error="unknown model"))[:4] == ("unknown model", True, True, "r1")


def test_a_server_without_marks_gives_one_response_to_each_request():
    """Every response is the last one then."""
    assert read_stream_message(message(outputs=[("y", b"a")])).final


@pytest.mark.parametrize("content", [b"\x12", b"\x12\x05ab", b"\x12\x04\x1a\x09ab", b"\x0b\x0c", b"\xff" * 12])
def test_what_is_no_message_is_an_answer_with_an_error(content):
    """A broken server's bytes end the request that they came for."""
    answer = read_stream_message(content)
    assert "cannot be read" in answer.error
    assert answer.final


def test_outputs_are_the_same_for_two_requests_with_other_ids():
    """So that answers found right once are recognised."""
    one, other = (
        read_stream_message(message(request_id=name, outputs=[("y", b"abc")])).response for name in ("a", "bc")
    )
    assert one != other
    assert outputs_in(one) == outputs_in(other) != b""
    assert outputs_in(read_stream_message(message()).response) == b""


@given(
    error=st.text(max_size=20),
    request_id=st.text(max_size=200),
    final=st.none() | st.booleans(),
    outputs=st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=300)), max_size=3),
    other=st.integers(-(2**63), 2**63 - 1),
)
def test_a_message_is_read_as_protobuf_reads_it(error, request_id, final, outputs, other):
    """Whatever texts and sizes there are."""
    answer = read_stream_message(message(error=error, request_id=request_id, final=final, outputs=outputs, other=other))
    assert answer[:4] == (error, final is not False, not outputs, request_id)


@given(st.binary(max_size=60))
def test_no_bytes_end_the_generator(content):
    """They are an answer, with an error or without one."""
    assert isinstance(read_stream_message(content).error, str)
