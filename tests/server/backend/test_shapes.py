"""Scalars, reshapes and optional inputs are served as the C++ backend serves them."""

import numpy as np
import pytest

from backend_helpers import Caller


def test_scalar_travels_with_dims_of_one(serving: Caller) -> None:
    """A scalar of the model is sent as [1] and answered with the configured dims."""
    answer = serving("scalar", {"x": np.array([21], np.float32)})
    np.testing.assert_array_equal(answer["y"], [[42]], strict=False)
    assert answer["y"].shape == (1, 1)


def test_batch_of_scalars_is_reshaped(serving: Caller) -> None:
    """A model with nothing but a batch dimension gives one column."""
    answer = serving("column", {"x": np.array([[1], [2], [3]], np.float32)})
    np.testing.assert_array_equal(answer["y"], [[2], [4], [6]])


def test_reshape_on_both_sides(serving: Caller) -> None:
    """The model sees the input's reshape and the client the output's dims."""
    flat = np.arange(12, dtype=np.float32).reshape(2, 6)
    np.testing.assert_array_equal(serving("reshaped", {"x": flat})["x_out"], flat.reshape(2, 3, 2))


@pytest.mark.parametrize(
    ("given", "expected"), [({}, 12), ({"scale": 3}, 13), ({"offset": 1}, 3), ({"scale": 3, "offset": 1}, 4)], ids=str
)
def test_optional_inputs_fall_back_to_the_models_values(
    serving: Caller, given: dict[str, float], expected: float
) -> None:
    """Each optional input may be given or left out by itself; left out, the model's own value counts."""
    inputs = {"x": np.ones(2, np.float32), **{name: np.array([value], np.float32) for name, value in given.items()}}
    np.testing.assert_array_equal(serving("optional", inputs)["y"], np.full(2, expected, np.float32))
