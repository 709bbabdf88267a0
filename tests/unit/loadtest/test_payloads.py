"""Requests made for a model, before any server is asked."""

from __future__ import annotations

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from loadtest_data_helpers import save, signature
from naiad.loadtest import InvalidData, Traffic
from naiad.loadtest._data.payloads import make_payloads
from naiad.loadtest.plan import Files, Sequence, Synthetic

MODEL = signature("x FP32 [-1, 2]", outputs=("y FP32 [-1, 1]",))


def requests(payloads):
    return [service_pb2.ModelInferRequest.FromString(request) for request in payloads.requests]


def test_requests_name_model_version_and_every_tensor():
    """They are complete: a server takes them as they are."""
    with make_payloads(Traffic(model="m", version="3", batch=4), MODEL, seed=1) as payloads:
        found = requests(payloads)
    assert {(request.model_name, request.model_version) for request in found} == {("m", "3")}
    assert {tuple(request.inputs[0].shape) for request in found} == {(4, 2)}
    assert len(found) == payloads.num_samples == Synthetic().num_samples
    assert payloads.request_bytes == max(map(len, payloads.requests))
    assert (payloads.check, list(payloads.steps), payloads.output_suffix(3)) == (None, [], b"")


def test_all_engines_send_the_same_requests():
    """The seed alone decides."""
    one, other = (make_payloads(Traffic(model="m"), MODEL, seed=5).requests for _ in range(2))
    assert one == other != make_payloads(Traffic(model="m"), MODEL, seed=6).requests


def test_requests_of_a_stream_ask_to_be_told_of_the_end():
    """Whether or not the model is decoupled."""
    with make_payloads(Traffic(model="m", stream=True), MODEL, seed=0) as payloads:
        assert requests(payloads)[0].parameters["triton_enable_empty_final_response"].bool_param


@pytest.mark.parametrize("stream", [False, True])
def test_answers_are_checked_against_the_data(tmp_path, stream):
    """Each with the outputs of its own sample."""
    x = np.arange(4, dtype=np.float32).reshape(2, 2)
    path = save(tmp_path / "a.npz", **{"x": x, "output/y": x[:, :1]})
    traffic = Traffic(model="m", data=Files(path=path), check=True, stream=stream)
    with make_payloads(traffic, MODEL, seed=0) as payloads:
        answer = service_pb2.ModelInferResponse(id="any")
        answer.outputs.add(name="y", datatype="FP32", shape=[1, 1])
        answer.raw_output_contents.append(np.float32(2).tobytes())
        assert [payloads.check(index, answer.SerializeToString()) for index in range(2)] == [False, True]


DECOUPLED = signature("x FP32 [-1, 2]", decoupled=True)
STATEFUL = signature("x FP32 [-1, 2]", stateful=True)


@pytest.mark.parametrize(
    ("fields", "model", "message"),
    [
        ({"batch": 9}, MODEL, "a batch of at most 8"),
        ({"batch": 2}, signature("x FP32 [3]", max_batch_size=0), "does not batch"),
        ({}, DECOUPLED, "decoupled, it answers over a stream only"),
        ({"stream": True, "check": True}, DECOUPLED, "which check cannot compare"),
        ({}, STATEFUL, "keeps state for sequences"),
        ({"sequence": Sequence(), "batch": 2}, STATEFUL, "expected a batch of 1"),
        ({"sequence": Sequence(), "batch": 2}, MODEL, "expected a batch of 1"),
        ({"check": True}, MODEL, "the data has none"),
    ],
)
def test_what_the_model_would_refuse_is_refused_before(tmp_path, fields, model, message):
    """The message says what the model takes."""
    data = Files(path=save(tmp_path / "x.npy", np.zeros((2, 2), np.float32)))
    with pytest.raises(InvalidData, match=message):
        make_payloads(Traffic(model="m", **{"data": data, **fields}), model, seed=0)
