"""The samples that are sent."""

import ml_dtypes
import numpy as np
import pytest

from loadtest_samples import signature, tensor
from naiad.loadtest import InvalidData, Traffic
from naiad.loadtest.data import make_samples

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


def traffic(**fields):
    return Traffic(model="m", **fields)


@pytest.mark.parametrize("datatype", NUMPY)
def test_every_datatype_has_random_values_of_its_kind(datatype):
    """Random samples have the model's type and shape, and more than one value."""
    sample = make_samples(traffic(batch=2), signature(tensor("x", datatype, -1, 50)))[0]
    array = sample.inputs["x"]
    assert (array.dtype, array.shape) == (np.dtype(NUMPY[datatype]), (2, 50))
    assert len(set(array.reshape(-1).tolist())) > 1


def test_the_same_seed_gives_the_same_samples():
    """A run can be repeated exactly; another seed sends something else."""
    model = signature(tensor("x", "FP32", -1, 4))
    one, same, other = (make_samples(traffic(seed=seed), model) for seed in (1, 1, 2))
    assert all(np.array_equal(a.inputs["x"], b.inputs["x"]) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0].inputs["x"], other[0].inputs["x"])


def test_dynamic_dimensions_take_the_given_size():
    """A shape that was given goes before the default for dynamic dimensions."""
    model = signature(tensor("x", "FP32", -1, 3, -1), tensor("y", "INT64", -1, -1))
    sample = make_samples(traffic(shapes={"x": (3, 7)}), model)[0]
    assert sample.inputs["x"].shape == (1, 3, 7)
    assert sample.inputs["y"].shape == (1, 16)


def test_a_model_without_batching_gets_its_own_shape():
    """With max_batch_size 0 no batch dimension is added."""
    sample = make_samples(traffic(), signature(tensor("x", "FP32", 2, 2), max_batch_size=0))[0]
    assert sample.inputs["x"].shape == (2, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shapes": {"x": (4,)}}, r"expected the shape \[3, -1\]"),
        ({"shapes": {"x": (4, 4)}}, r"expected the shape \[3, -1\]"),
        ({"shapes": {"z": (4,)}}, "has no input z"),
        ({"batch": 9}, "a batch of at most 8"),
    ],
)
def test_a_shape_or_batch_the_model_would_refuse_is_refused_before(fields, message):
    """The message says what the model takes."""
    with pytest.raises(InvalidData, match=message):
        make_samples(traffic(**fields), signature(tensor("x", "FP32", -1, 3, -1)))


def test_a_batch_for_a_model_that_does_not_batch_is_refused():
    """The message says that the model does not batch."""
    with pytest.raises(InvalidData, match="does not batch"):
        make_samples(traffic(batch=2), signature(tensor("x", "FP32", 3), max_batch_size=0))


def golden(path, **arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


MODEL = signature(tensor("x", "FP32", -1, 2), outputs=(tensor("y", "FP32", -1, 1),))


def rows(first, last):
    x = np.arange(first, last, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    return x, x[:, :1] * 2


def golden_of(path):
    (x0, y0), (x1, y1) = rows(0, 1), rows(1, 4)
    return golden(path, **{"input/0/x": x0, "output/0/y": y0, "input/1/x": x1, "output/1/y": y1})


@pytest.mark.parametrize("batch", [1, 3, 4, 8])
def test_golden_rows_are_cut_into_batches_with_their_answers(tmp_path, batch):
    """Whatever the batch, each row goes with its own output, and every golden row is sent."""
    samples = make_samples(traffic(batch=batch, golden=golden_of(tmp_path / "g.npz")), MODEL)
    assert {sample.inputs["x"].shape for sample in samples} == {(batch, 2)}
    assert all(np.array_equal(sample.inputs["x"][:, :1] * 2, sample.outputs["y"]) for sample in samples)
    assert {row for sample in samples for row in sample.inputs["x"][:, 0].tolist()} == {0.0, 1.0, 2.0, 3.0}


def test_golden_strings_and_bfloat16_come_back_as_the_model_takes_them(tmp_path):
    """Strings are stored as fixed-width arrays and bfloat16 as its bits."""
    model = signature(tensor("s", "BYTES", -1, 1), tensor("b", "BF16", -1, 1))
    bits = np.array([[1.5]], ml_dtypes.bfloat16)
    path = golden(tmp_path / "g.npz", **{"input/0/s": np.array([["né"]]), "input/0/b": bits.view(np.uint16)})
    sample = make_samples(traffic(golden=path), model)[0]
    assert sample.inputs["s"].tolist() == [["né".encode()]]
    assert np.array_equal(sample.inputs["b"], bits)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros(1)}, "found none"),
        ({"input/0/z": np.zeros((1, 2), np.float32)}, "of another model"),
        ({"input/0/x": np.zeros((1, 3), np.float32)}, "do not fit the model"),
        ({"input/0/x": np.zeros((1, 2), np.float64)}, "do not fit the model"),
    ],
)
def test_golden_samples_of_another_model_are_refused(tmp_path, arrays, message):
    """Names, shapes and types are checked before a request is sent."""
    with pytest.raises(InvalidData, match=message):
        make_samples(traffic(golden=golden(tmp_path / "g.npz", **arrays)), MODEL)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 nothing", b"text"])
def test_a_golden_file_that_is_missing_or_broken_is_refused(tmp_path, content):
    """The message names the file."""
    path = tmp_path / "golden.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidData, match="could not read it"):
        make_samples(traffic(golden=path), MODEL)
