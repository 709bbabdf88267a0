"""Random samples."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from loadtest_data_helpers import samples_of, signature
from naiad.loadtest import InvalidData
from naiad.loadtest._data import samples as limits
from naiad.loadtest.plan import Synthetic

NUMPY = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BF16": ml_dtypes.bfloat16,
    "BYTES": np.object_,
}
FLOATS = {"FP16", "FP32", "FP64", "BF16"}


def first(data, model, **traffic):
    return samples_of(data, model, **traffic).samples[0].inputs


@pytest.mark.parametrize("datatype", NUMPY)
def test_every_datatype_has_random_values_of_its_kind(datatype):
    """Random samples have the model's type and shape, and more than one value."""
    array = first(Synthetic(), signature(f"x {datatype} [-1, 50]"), batch=2)["x"]
    assert (array.dtype, array.shape) == (np.dtype(NUMPY[datatype]), (2, 50))
    assert len(set(array.reshape(-1).tolist())) > 1


@pytest.mark.parametrize("datatype", sorted(set(NUMPY) - {"BOOL", "BYTES"}))
def test_values_lie_within_the_range(datatype):
    """Both ends belong to it; whole numbers reach them."""
    array = first(Synthetic(ranges={"x": (3, 5)}), signature(f"x {datatype} [-1, 400]"))["x"]
    assert ((array >= 3) & (array <= 5)).all()
    assert set(array.reshape(-1).tolist()) == {3, 4, 5} if datatype not in FLOATS else array.max() - array.min() > 1


def test_a_range_may_be_all_that_the_type_holds():
    """64-bit integers to their last one, half floats to their largest."""
    model = signature("x UINT64 [-1, 9]", "y FP16 [-1, 9]", "z INT8 [-1, 900]")
    largest = 2**64 - 2048  # the largest double below 2**64
    ranges = {"x": (largest, largest), "y": (65504, 65504), "z": (-128, 127)}
    inputs = first(Synthetic(ranges=ranges), model)
    assert set(inputs["x"].reshape(-1).tolist()) == {largest}
    assert (inputs["y"] == 65504).all()
    assert inputs["z"].min() < -100 < 100 < inputs["z"].max()


def test_strings_have_the_lengths_that_were_asked_for():
    """Between the fewest and the most characters, both reached; 16 where nothing was said."""
    model = signature("x BYTES [-1, 300]", "y BYTES [-1, 2]")
    inputs = first(Synthetic(string_lengths={"x": (0, 3)}), model)
    assert {len(text) for text in inputs["x"].flat} == {0, 1, 2, 3}
    assert {len(text) for text in inputs["y"].flat} == {16}
    assert all(isinstance(text, bytes) for text in inputs["x"].flat)


def test_the_same_seed_gives_the_same_samples():
    """A run can be repeated exactly; another seed sends something else."""
    model = signature("x FP32 [-1, 4]", "s BYTES [-1, 2]")
    one, same, other = (samples_of(Synthetic(), model, seed=seed).samples for seed in (1, 1, 2))
    assert all(np.array_equal(a.inputs["x"], b.inputs["x"]) for a, b in zip(one, same, strict=True))
    assert all(a.inputs["s"].tolist() == b.inputs["s"].tolist() for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0].inputs["x"], other[0].inputs["x"])


def test_dynamic_dimensions_take_the_given_size():
    """A shape that was given goes before the default for dynamic dimensions."""
    inputs = first(Synthetic(shapes={"x": (3, 7)}), signature("x FP32 [-1, 3, -1]", "y INT64 [-1, -1]"))
    assert inputs["x"].shape == (1, 3, 7)
    assert inputs["y"].shape == (1, 16)


def test_a_model_without_batching_gets_its_own_shape():
    """With max_batch_size 0 no batch dimension is added."""
    assert first(Synthetic(), signature("x FP32 [2, 2]", max_batch_size=0))["x"].shape == (2, 2)


def test_inputs_that_the_server_fills_in_or_that_may_be_left_out_are_left_out():
    """A sequence's controls always, optional inputs unless something is said about them."""
    model = signature(
        "x FP32 [-1, 2]",
        "start FP32 [-1, 1]",
        "a FP32 [-1, 1]",
        "b FP32 [-1, 1]",
        optional=frozenset({"a", "b"}),
        controls=frozenset({"start"}),
    )
    assert set(first(Synthetic(), model)) == {"x"}
    assert set(first(Synthetic(ranges={"b": (0, 1)}), model)) == {"x", "b"}


def test_a_model_whose_inputs_may_all_be_left_out_gets_all():
    """A request without any input would be refused."""
    model = signature("a FP32 [-1, 1]", "b FP32 [-1, 1]", optional=frozenset({"a", "b"}))
    assert set(first(Synthetic(), model)) == {"a", "b"}


def test_there_are_as_many_samples_as_asked_for():
    """Fewer only where they would take too much memory, which is noted."""
    assert len(samples_of(Synthetic(num_samples=3), signature("x FP32 [-1, 2]")).samples) == 3


def test_large_samples_are_fewer_and_the_report_says_so(monkeypatch):
    """The limit is on the bytes of all of them."""
    monkeypatch.setattr("naiad.loadtest._data.synthetic.MAX_BYTES", 1000)
    found = samples_of(Synthetic(num_samples=50), signature("x FP32 [-1, 100]"))
    assert len(found.samples) == 3
    assert found.notes[0].startswith("3 different requests instead of 50")
    assert limits.MAX_BYTES == 64 << 20


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Synthetic(shapes={"x": (4,)}), r"input x FP32 \[\?, 3, \?\]: expected the shape \[3, -1\].*found \[4\]"),
        (Synthetic(shapes={"x": (4, 4)}), r"expected the shape \[3, -1\]"),
        (Synthetic(shapes={"z": (4,)}), r"shapes: model 'm' has no input z; it takes x FP32"),
        (Synthetic(ranges={"z": (0, 1)}), "ranges: model 'm' has no input z"),
        (Synthetic(string_lengths={"z": (0, 1)}), "string_lengths: model 'm' has no input z"),
        (Synthetic(string_lengths={"x": (1, 2)}), "string_lengths for inputs of strings .* only, found FP32"),
        (Synthetic(ranges={"s": (1, 2)}), "a range for numbers only, found BYTES"),
        (Synthetic(ranges={"u": (-1, 5)}), "a range within 0 to 255, found -1 to 5"),
        (Synthetic(ranges={"u": (0, 256)}), "a range within 0 to 255"),
        (Synthetic(ranges={"u": (0.2, 0.8)}), "a range with a whole number in it"),
        (Synthetic(ranges={"h": (0, 1e6)}), "a range within -65504 to 65504"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(data, message):
    """The message names the input and says what it takes."""
    model = signature("x FP32 [-1, 3, -1]", "s BYTES [-1, 1]", "u UINT8 [-1, 1]", "h FP16 [-1, 1]")
    with pytest.raises(InvalidData, match=message):
        samples_of(data, model)
