"""Sequence batching hands the model its control tensors."""

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from backend_helpers import Caller


@pytest.mark.parametrize("model", ["sequence_direct", "sequence_oldest"])
def test_controls_reach_the_model(serving: Caller, model: str) -> None:
    """START, END, READY and the correlation id arrive with the right request of each interleaved sequence."""
    steps = [(7, "first"), (9, "first"), (7, "middle"), (9, "last"), (7, "last")]
    for number, (sequence, place) in enumerate(steps):
        answer = serving(
            model,
            {"x": np.array([[number]], np.float32)},
            sequence_id=sequence,
            sequence_start=place == "first",
            sequence_end=place == "last",
        )
        got = {name: value.item() for name, value in answer.items()}
        expected = {"saw_start": float(place == "first"), "saw_end": float(place == "last"), "saw_ready": 1.0}
        assert got == {"y": number, "saw_id": sequence, **expected}


def test_a_sequence_must_begin(serving: Caller) -> None:
    """A first request without the START flag is refused."""
    with pytest.raises(InferenceServerException, match="START"):
        serving("sequence_direct", {"x": np.ones((1, 1), np.float32)}, sequence_id=77)
