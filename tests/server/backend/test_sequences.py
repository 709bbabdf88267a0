"""Sequence batching hands the model its control tensors, and the state that the request before it left."""

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


@pytest.mark.parametrize("model", ["stateful_direct", "stateful_oldest"])
def test_states_are_kept_by_sequence(serving: Caller, model: str) -> None:
    """Interleaved sequences, numbers and names, go on from their own state; clients see inputs and outputs only."""

    def add(sequence: int | str, number: float, **place: bool) -> float:
        given = {"x": np.array([[number]], np.float32)}
        answer = serving(model, given, sequence_id=sequence, **{f"sequence_{key}": on for key, on in place.items()})
        assert list(answer) == ["y"]
        return float(answer["y"].item())

    assert [add(1, 1, start=True), add("two", 10, start=True), add(1, 2), add("two", 20)] == [101, 110, 103, 130]
    assert [add(1, 3, end=True), add("two", 30, end=True), add(1, 5, start=True, end=True)] == [106, 160, 105]


@pytest.mark.parametrize("model", ["stateful_direct", "stateful_oldest"])
def test_states_keep_apart_in_one_batch(serving: Caller, model: str) -> None:
    """Sequences whose requests are under way at once add up to what each of them sent."""
    sequences = range(100, 104)
    for step in range(1, 6):
        inputs = {number: {"x": np.array([[number * step]], np.float32)} for number in sequences}
        place = {"sequence_start": step == 1, "sequence_end": step == 5}  # one that has not ended keeps its slot
        pending = {number: serving.start(model, inputs[number], sequence_id=number, **place)[0] for number in sequences}
        totals = {number: float(future.result(timeout=60)["y"].item()) for number, future in pending.items()}
        assert totals == {number: 100 + number * sum(range(1, step + 1)) for number in sequences}
