"""Completion of a configuration from a graph, without a server."""

import pytest
from _ort_completion import complete, is_complete
from _ort_errors import ConfigurationError
from _ort_graph import Graph, TensorInfo

from backend_configs import config


def info(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name=name, data_type="TYPE_FP32", shape=shape)


def graph(*shapes: tuple[int, ...]) -> Graph:
    return Graph(inputs=(info("x", *shapes[0]),), outputs=(info("y", *shapes[-1]),))


BATCHING = graph((-1, 3), (-1, 5))


@pytest.mark.parametrize(
    ("given", "expected", "dynamic"), [(0, 4, True), (1, 1, False), (32, 32, True)], ids=["none", "one", "many"]
)
def test_batching_graph(given: int, expected: int, dynamic: bool) -> None:
    """A graph that can batch gets 4 rows where none are given, and dynamic batching above one row."""
    completion = complete(config(max_batch_size=given), BATCHING)
    assert (completion.max_batch_size, completion.dynamic_batching) == (expected, dynamic)
    assert completion.inputs == ({"name": "x", "data_type": "TYPE_FP32", "dims": [3]},)
    assert completion.outputs == ({"name": "y", "data_type": "TYPE_FP32", "dims": [5]},)


@pytest.mark.parametrize("scheduler", ["dynamic_batching", "sequence_batching"])
def test_named_scheduler_stays(scheduler: str) -> None:
    """A scheduler that is configured is not replaced."""
    completion = complete(config(max_batch_size=8, **{scheduler: {}}), BATCHING)
    assert not completion.dynamic_batching


@pytest.mark.parametrize("shapes", [((2, 3), (-1, 3)), ((-1, 3), (2, 3)), ((), (-1, 3)), ((-1, 3), ())], ids=str)
def test_graph_that_cannot_batch(shapes: tuple[tuple[int, ...], ...]) -> None:
    """One fixed or missing first dimension, in or out, and nothing is batched."""
    completion = complete(config(), graph(*shapes))
    assert (completion.max_batch_size, completion.dynamic_batching) == (0, False)
    assert [entry["dims"] for entry in (*completion.inputs, *completion.outputs)] == [
        list(shape) or [1] for shape in shapes
    ]
    assert all("reshape" not in entry for entry in (*completion.inputs, *completion.outputs))
    with pytest.raises(ConfigurationError, match="max_batch_size: expected 0"):
        complete(config(max_batch_size=2), graph(*shapes))


def test_tensor_of_rows_only() -> None:
    """Without dimensions beside the batch, dims are [1] and reshaped to nothing."""
    completion = complete(config(), graph((-1,), (-1, 2)))
    assert completion.inputs == ({"name": "x", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}},)


BATCH_INPUT = {"kind": "BATCH_ELEMENT_COUNT", "target_name": ["n"], "data_type": "TYPE_INT32", "source_input": ["x"]}


def test_given_sides_are_left_alone() -> None:
    """Inputs, batch inputs or outputs that are given are not touched; both given, nothing is."""
    assert complete(config(inputs={"x": "FP32[3]"}), BATCHING).inputs == ()
    assert complete(config(batch_input=[BATCH_INPUT]), BATCHING).inputs == ()
    assert complete(config(outputs={"y": "FP32[5]"}), BATCHING).outputs == ()
    assert is_complete(config(inputs={"x": "FP32[3]"}, outputs={"y": "FP32[5]"}))
    assert not is_complete(config(inputs={"x": "FP32[3]"}))
    assert not is_complete(config())
