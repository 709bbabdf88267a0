"""Batches of several requests: joined where they fit, failing alone, cancelled alone."""

import numpy as np
import onnxruntime
import pytest
from tritonclient.utils import InferenceServerException

from backend_helpers import Caller, slow_model


def index(*numbers: int) -> dict[str, np.ndarray]:
    return {"index": np.array([numbers])}


def test_one_run_serves_a_whole_batch(serving: Caller) -> None:
    """Requests of one row each make the batch of eight that the model waits for, and each gets its own answer."""
    under_way = [serving.start("lookup", index(number, number + 1))[0] for number in range(8)]
    for number, future in enumerate(under_way):
        np.testing.assert_array_equal(future.result(60)["y"], [[number, number + 1]])


@pytest.mark.parametrize("bad", [0, 3, 7])
def test_a_bad_request_fails_alone(serving: Caller, bad: int) -> None:
    """A request that the model cannot compute gets an error with ONNX Runtime's reason; its neighbours get answers."""
    under_way = [serving.start("lookup", index(5000 if number == bad else number))[0] for number in range(8)]
    for number, future in enumerate(under_way):
        if number == bad:
            with pytest.raises(InferenceServerException, match=r"INTERNAL.*idx=5000"):
                future.result(60)
        else:
            np.testing.assert_array_equal(future.result(60)["y"], [[number]])


def test_rows_that_the_model_loses_are_noticed(serving: Caller) -> None:
    """A model that gives one row for a batch of two is run for each request by itself."""
    sent = [np.full((1, 3), number, np.float32) for number in (1, 2)]
    under_way = [serving.start("mixing", {"x": x})[0] for x in sent]
    for future, x in zip(under_way, sent, strict=True):
        np.testing.assert_array_equal(future.result(60)["y"], x)
    with pytest.raises(InferenceServerException, match=r"expected shape \[2, 3\].*found \[1, 3\]"):
        serving("mixing", {"x": np.zeros((2, 3), np.float32)})


def test_too_many_rows_are_refused(serving: Caller) -> None:
    """A request above max_batch_size is the client's mistake."""
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        serving("reshaped", {"x": np.zeros((5, 6), np.float32)})


def test_ragged_requests_share_a_run(serving: Caller) -> None:
    """Requests of different lengths go as one flat tensor with their ends beside it, and come back scattered."""
    lengths = (2, 5, 1)
    sent = [np.arange(length, dtype=np.float32).reshape(1, length) for length in lengths]
    answers = [future.result(60) for future in [serving.start("ragged", {"x": x})[0] for x in sent]]
    for x, answer in zip(sent, answers, strict=True):
        np.testing.assert_array_equal(answer["doubled"], 2 * x)
    assert sorted(answer["end"].item() for answer in answers)[-1] == sum(lengths)


def test_cancelled_requests_are_not_computed(serving: Caller) -> None:
    """Requests that their client gave up while they waited behind a long one are not run."""
    bare = onnxruntime.InferenceSession(slow_model().SerializeToString())
    runs = [bare.run(["run"], {"turns": np.array([1])})[0].item() for _ in range(12)]
    long, short = {"turns": np.array([8_000])}, {"turns": np.array([1_000])}
    assert runs.index(serving("slow", short)["run"].item()) == 0
    running = [serving.start("slow", long)[0] for _ in range(2)]
    serving.await_pending("slow", 1)  # so that the other one runs
    waiting = [serving.start("slow", short)[1] for _ in range(8)]
    serving.await_pending("slow", 8)
    for context in waiting:
        context.cancel()
    assert sorted(runs.index(future.result(60)["run"].item()) for future in running) == [1, 2]
    assert runs.index(serving("slow", short)["run"].item()) == 3
