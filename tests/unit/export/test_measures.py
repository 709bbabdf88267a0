"""How two tensors are compared, and at which sizes a model is."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from export_helpers import rows
from naiad.export import Tolerance
from naiad.export._source.budget import Budget
from naiad.export._source.reference import answers
from naiad.export._source.samples import Case, Samples
from naiad.export._source.subject import bind, open_subject
from naiad.export._verify.measures import difference, scale_of
from verify_helpers import numbers

LOOSE = Tolerance(rtol=0.5, atol=0.5, cosine=0.9)


def compare(actual: Any, expected: Any, tolerance: Tolerance = LOOSE) -> Any:
    """Compare two lists as float32, or two arrays as they are."""
    a, b = (np.asarray(each, np.float32) if isinstance(each, list) else each for each in (actual, expected))
    return difference(a, b, tolerance, scale_of(b))


@pytest.mark.parametrize(
    ("actual", "expected", "reason"),
    [
        ([[1.0, np.nan]], [[1.0, 2.0]], "1 × NaN where PyTorch has numbers, first at [0, 1]"),
        ([[1.0, np.inf]], [[1.0, 2.0]], "1 × infinity where"),
        ([[1.0, 2.0]], [[1.0, np.nan]], "not in the same places"),
        ([[-np.inf, 2.0]], [[np.inf, 2.0]], "not in the same places"),
        ([[1.0]], [[1.0, 2.0]], "shape [1, 1] in ONNX Runtime and [1, 2]"),
        ([[5.0, 2.0]], [[1.0, 2.0]], "the largest error is 4"),
        ([[0.9, -0.1]], [[0.8, 0.4]], "the least cosine similarity of a row is"),
        (
            np.array([[1, 2]]),
            np.array([[1, 3]]),
            "1 of 2 values differ (2 instead of 3 at [0, 1]); int64 must be equal",
        ),
        (np.array([["a", "b"]], object), np.array([["a", "c"]], object), "(b instead of c at [0, 1])"),
        (np.array(True), np.array(False), "1 of 1 values differ"),
    ],
)
def test_what_differs_is_said(actual: Any, expected: Any, reason: str) -> None:
    """NaN, infinity, shapes, values, directions, and what has to be equal."""
    found = compare(actual, expected)
    assert not found.ok
    assert reason in found.reason


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ([[1.0, np.nan, np.inf, -np.inf]], [[1.0, np.nan, np.inf, -np.inf]]),
        ([], []),
        (np.float32(1.0), np.float32(1.2)),
        ([[0.0, 0.0]], [[0.0, 0.0]]),
        (np.array([["ä"]], object), np.array([["ä"]], object)),
        (np.ones(3, ml_dtypes.bfloat16), np.ones(3, ml_dtypes.bfloat16)),
        ([[1e-9, -1e-9], [1.0, 1.0]], [[-1e-9, 1e-9], [1.0, 1.0]]),
        ([[-1e-9], [1.0]], [[1e-9], [1.0]]),
    ],
)
def test_what_is_alike_passes(actual: Any, expected: Any) -> None:
    """NaN and infinity in their places, nothing at all, and rows too small to have a direction."""
    assert compare(actual, expected).ok


def test_an_output_of_tiny_values_is_held_to_its_own_size() -> None:
    """A likelihood of 1e-12 is compared like any other number; only beside zeros is 1e-9 nothing."""
    expected = np.array([[1e-12, 3e-12]], np.float32)
    assert not compare(expected * 2, expected, Tolerance()).ok
    assert compare(np.full((1, 2), 1e-12, np.float32), np.zeros((1, 2), np.float32)).ok


def test_one_wrong_row_of_many_is_found_by_its_direction() -> None:
    """Over all rows together the cosine would be 0.98."""
    expected = numbers(64, 16)
    actual = expected.copy()
    actual[40] = numbers(1, 16, seed=9)[0]
    found = difference(actual, expected, Tolerance(rtol=0.9, atol=0.99, cosine=0.9), scale_of(expected))
    assert not found.ok
    assert found.row == 40


def test_a_half_output_is_held_to_the_steps_of_its_type() -> None:
    """A tolerance below four steps of fp16 is four steps."""
    expected = np.array([[1.0, 2.0]], np.float16)
    actual = expected + np.float16(0.002)
    assert difference(actual, expected, Tolerance(rtol=0, atol=0), scale_of(expected)).ok


class Lengths(nn.Module):
    """Takes lengths from 4 to 9."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not 4 <= x.shape[1] <= 9:
            raise ValueError
        return x * 2


def bound(model: nn.Module, num_rows: int, max_batch_size: int = 8) -> tuple[Any, Samples]:
    """Bind samples of length 6 and 7, `num_rows` each."""
    subject = open_subject(model, None)
    given = [(rows(num_rows, 6),), (rows(num_rows, 6, seed=1),), (rows(2, 7),)]
    dynamic = {"x": {0: "batch", 1: "length"}}
    return subject, bind(subject, given, dynamic, max_batch_size)


def sizes(cases: Any) -> list[tuple[int, int]]:
    return [(case.sizes["batch"], case.sizes["length"]) for case in cases]


def test_every_batch_other_size_and_row_is_a_case() -> None:
    """Batches first, then other lengths alone and at both ends of the batch, then the rows that were left."""
    _, samples = bound(Lengths(), 6)
    cases = list(samples.cases())
    assert sizes(cases) == [
        *((batch, 6) for batch in (1, 2, 3, 7, 8)),
        *((batch, 7) for batch in (1, 2, 3, 7)),
        *((2, 3), (2, 7), (8, 3), (1, 7)),
        (8, 6),
    ]
    used = {case.origin(row) for case in cases for row in range(case.sizes["batch"])}
    assert used == {f"sample {sample}, row {row}" for sample, count in ((0, 6), (1, 6), (2, 2)) for row in range(count)}
    for case in cases:
        assert case.inputs["x"].shape == (case.sizes["batch"], case.sizes["length"])


def test_a_size_that_only_the_samples_have_is_owned_up_to() -> None:
    """A model that refuses other lengths is not refused for it, and the report says what was not compared."""

    class OneLength(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.ones(6, 2)

    subject = open_subject(OneLength(), None)
    samples = bind(subject, [(rows(4, 6),)], {"x": {0: "batch", 1: "length"}}, 4)
    left_out: list[str] = []
    answers(subject, samples, left_out=left_out)
    assert left_out == ["length was compared at 6 only: the model itself refuses 3 and 7"]


def test_what_does_not_fit_in_memory_is_compared_smaller_and_said() -> None:
    """The largest batch is halved until it fits; the sentence has both sizes and the reason."""
    subject = open_subject(Lengths(), None)
    samples = bind(subject, [(rows(6, 6),)], None, 512)
    left_out: list[str] = []
    found = answers(subject, samples, budget=Budget(total_bytes=10_000), left_out=left_out)
    assert [answer.case.sizes["batch"] for answer in found] == [1, 2, 3, 7, 128]
    (sentence,) = left_out
    assert sentence.startswith("batch 512 was compared with batch 128 instead: it would hold about")


def test_what_would_take_too_long_is_left_out_and_said() -> None:
    """Without any time left only the first case is run."""
    budget = Budget(total_s=1e-12)
    subject = open_subject(Lengths(), None)
    samples = bind(subject, [(rows(6, 6),)], None, 4)
    left_out: list[str] = []
    found = answers(subject, samples, budget=budget, left_out=left_out)
    assert len(found) == 1
    assert "batch 4 was not compared: it would take about 0 s, and 0 s were left for it" in left_out


def test_a_case_knows_where_its_rows_are_from() -> None:
    """Rows repeat when a batch is larger than the samples."""
    case = Case(sizes={"batch": 5}, inputs={}, origins=((0, 0), (0, 1), (1, 0)))
    assert [case.origin(row) for row in (0, 2, 4)] == ["sample 0, row 0", "sample 1, row 0", "sample 0, row 1"]
