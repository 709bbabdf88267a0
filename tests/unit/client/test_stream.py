"""What the messages of a stream mean, against protobuf and against what no server should send."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from naiad.client import InvalidResponse
from naiad.client._protocol.request import NO_OPTIONS, InferOptions, decode_infer
from naiad.client._protocol.stream import Parts, Refused, asking_for_final, open_envelope, status_of

FINAL = "triton_final_response"


def answer(value: int | None = 0, *, final: bool | None = False, padding: int = 0, error: str = "") -> bytes:
    message = pb.ModelStreamInferResponse(error_message=error)
    response = message.infer_response
    response.model_name = "m"
    if final is not None:
        response.parameters[FINAL].bool_param = final
    if value is not None:
        response.outputs.add(name="y", datatype="INT32", shape=[1 + padding])
        response.raw_output_contents.append(np.full(1 + padding, value, np.int32).tobytes())
    return bytes(message.SerializeToString())


def read_all(*messages: bytes) -> list[int]:
    parts = Parts(decode_infer)
    found = [int(part["y"][0]) for part in map(parts.read, messages) if part is not None]
    parts.ended()
    return found


@given(st.text(), st.binary(max_size=300))
def test_an_envelope_is_opened_as_protobuf_opens_it(error, model):
    """The error's text and the bytes of the response, whatever their sizes."""
    response = pb.ModelInferResponse(model_name=model.hex())
    message = pb.ModelStreamInferResponse(error_message=error, infer_response=response)
    assert open_envelope(message.SerializeToString()) == (error, response.SerializeToString())


@given(st.lists(st.text(max_size=20), min_size=1, max_size=3), st.randoms())
def test_a_response_in_pieces_is_one(names, random):
    """Protobuf joins repeated pieces of one message, and lets fields come in any order."""
    pieces = [pb.ModelStreamInferResponse(infer_response={"id": name}).SerializeToString() for name in names]
    pieces.append(pb.ModelStreamInferResponse(error_message="late").SerializeToString())
    random.shuffle(pieces)
    joined = b"".join(pieces)
    expected = pb.ModelStreamInferResponse.FromString(joined)
    details, response = open_envelope(joined)
    assert details == expected.error_message
    assert pb.ModelInferResponse.FromString(response) == expected.infer_response


@given(st.binary(max_size=200))
def test_noise_is_a_typed_error_or_a_part(noise):
    """Nothing but the two errors of a stream comes out of arbitrary bytes."""
    with contextlib.suppress(InvalidResponse, Refused):
        Parts(decode_infer).read(noise)


@given(st.data())
def test_a_message_that_is_cut_off_is_refused(data):
    """At every length, of small messages and of large ones."""
    message = answer(7, padding=data.draw(st.sampled_from([0, 40])))
    cut = data.draw(st.integers(1, len(message) - 1))
    with pytest.raises(InvalidResponse):
        Parts(decode_infer).read(message[:cut])


def test_the_mark_of_the_end_is_read_and_not_shown():
    """With a part or without one; no other parameter is lost."""
    assert read_all(answer(1), answer(2), answer(None, final=True)) == [1, 2]
    assert read_all(answer(1), answer(2, final=True)) == [1, 2]
    assert read_all(answer(None, final=True)) == []
    parts = Parts(decode_infer)
    part = parts.read(answer(1, final=True))
    assert part is not None
    assert part.parameters == {}
    assert parts.final


def test_a_stream_that_is_closed_before_its_marked_end_is_an_error():
    """Half an answer is not taken for a whole one."""
    with pytest.raises(InvalidResponse, match="closed after 1 parts, before the final response"):
        read_all(answer(1))


def test_a_server_that_marks_nothing_ends_by_closing():
    """Others than Triton do not know the mark."""
    assert read_all(answer(1, final=None), answer(2, final=None)) == [1, 2]
    assert read_all() == []


def test_an_error_comes_with_its_text():
    """Also with the rest of a response, which Triton sends along."""
    with pytest.raises(Refused) as caught:
        Parts(decode_infer).read(answer(None, error="the model broke"))
    assert (caught.value.status, caught.value.details) == ("INTERNAL", "the model broke")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Request for unknown model: 'm' is not found", "NOT_FOUND"),
        ("[request id: 7] Exceeds maximum queue size", "UNAVAILABLE"),
        ("[request id: <id_unknown>] Request timeout expired", "UNAVAILABLE"),
        ("file weights.bin is not found", "INTERNAL"),
        ("", "INTERNAL"),
    ],
)
def test_tritons_own_refusals_are_told_from_a_models_errors(text, status):
    """By their text, as they have no status; a model's words are never taken for an unknown model."""
    assert status_of(text) == status


def test_the_end_is_asked_for_and_the_callers_parameters_stay():
    """What the caller says about the same parameter counts."""
    name = "triton_enable_empty_final_response"
    assert asking_for_final(NO_OPTIONS).wire_parameters() == {name: True}
    assert asking_for_final(InferOptions(priority=3)).wire_parameters() == {name: True, "priority": 3}
    assert asking_for_final(InferOptions(parameters={"a": 1, name: False})).parameters == {name: False, "a": 1}
