"""A missing configuration is completed from the graph, as the C++ backend completes it."""

from typing import Any

import numpy as np
from google.protobuf import json_format

from backend_helpers import Caller

FP32 = {"data_type": "TYPE_FP32"}


def described(tensors: Any) -> dict[str, Any]:
    """Name to what the configuration says of each tensor."""
    messages = [json_format.MessageToDict(each, preserving_proto_field_name=True) for each in tensors]
    return {each.pop("name"): each for each in messages}


def dims(*sizes: int) -> dict[str, Any]:
    return {**FP32, "dims": [str(size) for size in sizes]}


def test_batching_model_gets_a_batch_size_and_dynamic_batching(completing: Caller) -> None:
    """A model whose every tensor begins with a dynamic dimension batches four rows dynamically."""
    config = completing.config("batching")
    assert config.max_batch_size == 4
    assert config.HasField("dynamic_batching")
    assert described(config.input) == {"x": dims(3)}
    assert described(config.output) == {"y": dims(3)}


def test_given_batch_size_is_kept(completing: Caller) -> None:
    """A configured batch size stays, and only the tensors and the scheduler are added."""
    config = completing.config("sized")
    assert config.max_batch_size == 16
    assert config.HasField("dynamic_batching")
    assert described(config.input) == {"x": dims(3)}


def test_fixed_model_does_not_batch(completing: Caller) -> None:
    """A model with a fixed first dimension is served without batching, dims complete."""
    config = completing.config("fixed")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert described(config.input) == {"x": dims(2, -1)}


def test_scalar_is_given_one_dimension(completing: Caller) -> None:
    """Scalars become [1], which the backend reshapes, and are answered."""
    config = completing.config("scalar")
    assert described(config.input) == {"x": dims(1)}
    assert described(config.output) == {"x_out": dims(1)}
    assert completing("scalar", {"x": np.array([5], np.float32)})["x_out"].tolist() == [5]


def test_lone_batch_dimension_is_reshaped_away(completing: Caller) -> None:
    """A tensor with nothing but a batch dimension becomes [1] with an empty reshape, and is answered."""
    config = completing.config("column")
    assert described(config.input) == {"x": {**dims(1), "reshape": {}}}
    assert described(config.output) == {"x_out": {**dims(1), "reshape": {}}}
    np.testing.assert_array_equal(completing("column", {"x": np.ones((2, 1), np.float32)})["x_out"], np.ones((2, 1)))


def test_given_inputs_are_kept(completing: Caller) -> None:
    """Where only the inputs are configured, only the outputs are added."""
    config = completing.config("half")
    assert described(config.input) == {"x": dims(3)}
    assert described(config.output) == {"y": dims(3)}


def test_complete_configuration_is_left_alone(completing: Caller) -> None:
    """Where inputs and outputs are given, neither a batch size nor a scheduler is added."""
    config = completing.config("whole")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")


def test_batch_size_for_a_fixed_model_is_refused(completing: Caller) -> None:
    """A batch size for a model that cannot batch is an error that says which tensor stands in the way."""
    reason = completing.failure("refused")
    assert "max_batch_size: expected 0" in reason
    assert "'x' has shape [2, -1]" in reason
    assert "found 8" in reason
