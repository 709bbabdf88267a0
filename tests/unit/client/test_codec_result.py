"""What a result offers beside its arrays."""

import ml_dtypes
import numpy as np
import pytest

from naiad.client import InvalidInput, RankedClass, Result


def test_classes_come_by_row_with_their_scores_and_labels():
    """A label may have colons, and a model may have no labels."""
    found = np.array([[b"2.5:1:dog: small", b"-inf:0:cat"], [b"1e-3:2", b"0:11"]], object)
    assert Result({"y": found}).classes("y") == [
        [RankedClass(2.5, 1, "dog: small"), RankedClass(float("-inf"), 0, "cat")],
        [RankedClass(0.001, 2, None), RankedClass(0.0, 11, None)],
    ]


def test_classes_of_a_model_without_batch_are_one_row():
    """So that code that reads them is the same."""
    ((best,),) = Result({"y": np.array([b"1:7:seven"], object)}).classes("y")
    assert (best.score, best.class_index, best.label) == (1.0, 7, "seven")


@pytest.mark.parametrize(
    "array",
    [
        np.ones((1, 3), np.float32),
        np.array([b"dog"], object),
        np.array([b"1:x"], object),
        np.array([b"\xff:1"], object),
        np.empty((2, 0), object),
        np.array(2.0),
    ],
)
def test_an_output_that_was_not_asked_for_as_classes_has_none(array):
    """The message says how to ask."""
    with pytest.raises(InvalidInput, match=r"outputs=\[Output\(name='y', class_count=...\)\]"):
        Result({"y": array}).classes("y")
    with pytest.raises(KeyError, match="no output 'z'"):
        Result({"y": array}).classes("z")


@pytest.mark.parametrize("name", ["float32", "float16", "int8", "bool", "bfloat16", "float8_e4m3fn"])
def test_outputs_go_to_torch_without_a_copy(name):
    """The tensor is writable and has the array's memory."""
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    array = np.zeros((2, 2), getattr(ml_dtypes, name, None) or name)
    result = Result({"y": array})
    tensor = torch.from_dlpack(result.dlpack("y"))
    assert tensor.dtype == getattr(torch, name)
    tensor[0, 1] = 1
    assert array[0, 1] == 1
    if name not in dir(ml_dtypes):
        assert torch.from_dlpack(result["y"]).data_ptr() == tensor.data_ptr()
