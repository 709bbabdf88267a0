"""When an answer counts as right."""

import numpy as np
import pytest

from naiad.loadtest.answers import answers_match


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_last_bits_may_differ(dtype):
    """Another batch sums in another order: that is no wrong answer."""
    expected = np.linspace(0.1, 1, 10, dtype=dtype)
    assert answers_match({"y": np.nextafter(expected, dtype(2))}, {"y": expected})


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"y": np.array([1.0, 2.5], np.float32)},
        {"y": np.array([1.0], np.float32)},
        {"y": np.array([1.0, 2.0], np.float64)},
        {"y": np.array([1.0, np.nan], np.float32)},
    ],
)
def test_a_missing_or_different_output_is_wrong(found):
    """Names, types, shapes and values all count."""
    assert not answers_match(found, {"y": np.array([1.0, 2.0], np.float32)})


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.object_])
def test_whole_numbers_and_strings_are_compared_exactly(dtype):
    """Only floating point has a tolerance."""
    expected = np.array([b"a", b"b"], object) if dtype is np.object_ else np.array([0, 1], dtype)
    assert answers_match({"y": expected.copy()}, {"y": expected})
    assert not answers_match({"y": expected[::-1]}, {"y": expected})
