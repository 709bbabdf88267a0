"""Both transports of the load test, against the real Triton."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest_helpers import expected
from naiad.loadtest._data.codec import decode_answer, encode_inputs
from naiad.server import EmbeddedTriton
from wire_helpers import LONG_S, answer_to, ends_of, wire_to


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_many_requests_in_flight_get_their_answers(triton: EmbeddedTriton, transport: str) -> None:
    """Every request's answer is the model's for its input, and an error of the server comes with its words."""
    inputs = [np.full((1, 8), number, np.float32) for number in range(300)]
    with wire_to(triton.grpc_url, transport, connections=2) as wire:
        for token, x in enumerate(inputs):
            wire.send(wire.prepare(encode_inputs("linear", None, {"x": x})), token, LONG_S)
        ends = ends_of(wire, len(inputs))
        unknown = answer_to(wire, encode_inputs("no such model", None, {"x": inputs[0]}))
    for token, x in enumerate(inputs):
        assert ends[token].status == 0
        np.testing.assert_allclose(decode_answer(bytes(ends[token].message or b""))["y"], expected(x), rtol=1e-5)
    assert unknown.status == 5
    assert "no such model" in unknown.details


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_a_large_batch_passes(triton: EmbeddedTriton, transport: str) -> None:
    """The error for a batch that the model does not take is Triton's own."""
    with wire_to(triton.grpc_url, transport) as wire:
        end = answer_to(wire, encode_inputs("linear", None, {"x": np.zeros((100_000, 8), np.float32)}))
    assert end.status == 3
    assert "batch" in end.details
