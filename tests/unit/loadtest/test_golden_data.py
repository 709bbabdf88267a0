"""Samples from a version's ``golden.npz``."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from loadtest_data_helpers import samples_of as of
from loadtest_data_helpers import save, signature
from naiad.loadtest import InvalidData
from naiad.loadtest.plan import Golden, Sequence

MODEL = signature("x FP32 [-1, 2]", outputs=("y FP32 [-1, 1]",))


def samples_of(path, model=MODEL, **traffic):
    return of(Golden(path=path), model, **traffic)


def rows(first, last):
    x = np.arange(first, last, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    return x, x[:, :1] * 2


@pytest.fixture
def golden(tmp_path):
    (x0, y0), (x1, y1) = rows(0, 1), rows(1, 4)
    return save(tmp_path / "g.npz", **{"input/0/x": x0, "output/0/y": y0, "input/1/x": x1, "output/1/y": y1})


@pytest.mark.parametrize("batch", [1, 3, 4, 8])
def test_golden_rows_are_cut_into_batches_with_their_answers(golden, batch):
    """Whatever the batch, each row goes with its own output, and every golden row is sent."""
    samples = samples_of(golden, batch=batch).samples
    assert {sample.inputs["x"].shape for sample in samples} == {(batch, 2)}
    assert all(np.array_equal(sample.inputs["x"][:, :1] * 2, sample.outputs["y"]) for sample in samples)
    assert {row for sample in samples for row in sample.inputs["x"][:, 0].tolist()} == {0.0, 1.0, 2.0, 3.0}


def test_golden_cases_are_sequences(golden):
    """The rows of a case are the steps of one sequence, in their order."""
    found = samples_of(golden, sequence=Sequence())
    assert [[found.samples[index].inputs["x"][0, 0] for index in steps] for steps in found.steps] == [[0], [1, 2, 3]]


def test_a_model_without_batching_gets_its_cases_as_they_are(golden):
    """The first dimension is no batch."""
    found = samples_of(golden, signature("x FP32 [-1, 2]", outputs=("y FP32 [-1, 1]",), max_batch_size=0))
    assert [sample.inputs["x"].shape for sample in found.samples] == [(1, 2), (3, 2)]
    assert [sample.outputs["y"].shape for sample in found.samples] == [(1, 1), (3, 1)]


def test_golden_strings_and_bfloat16_come_back_as_the_model_takes_them(tmp_path):
    """Strings are stored as fixed-width arrays and bfloat16 as its bits."""
    model = signature("s BYTES [-1, 1]", "b BF16 [-1, 1]")
    bits = np.array([[1.5]], ml_dtypes.bfloat16)
    path = save(tmp_path / "g.npz", **{"input/0/s": np.array([["né"]]), "input/0/b": bits.view(np.uint16)})
    inputs = samples_of(path, model).samples[0].inputs
    assert inputs["s"].tolist() == [["né".encode()]]
    assert np.array_equal(inputs["b"], bits)


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
        samples_of(save(tmp_path / "g.npz", **arrays))


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 nothing", b"text"])
def test_a_golden_file_that_is_missing_or_broken_is_refused(tmp_path, content):
    """The message names the file."""
    path = tmp_path / "golden.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidData, match=r"golden\.npz, could not read it"):
        samples_of(path)
