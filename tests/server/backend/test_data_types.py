"""Every tensor type of Triton goes through the backend unchanged."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from backend_helpers import MIXED_TYPES, NUMBER_TYPES, Caller

NUMPY_TYPES = {"BF16": ml_dtypes.bfloat16, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64}


def values(data_type: str, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    """Numbers over the whole range of an integer type, halves of a floating one."""
    random = np.random.default_rng(seed)
    match data_type:
        case "STRING":
            words = [f"wört-{number}".encode() for number in random.integers(0, 1 << 40, np.prod(shape, dtype=int))]
            return np.array(words, dtype=np.object_).reshape(shape)
        case "BOOL":
            return random.integers(0, 2, shape).astype(np.bool_)
        case _ if data_type in NUMPY_TYPES:
            return (random.integers(-100, 100, shape) / 2).astype(NUMPY_TYPES[data_type])
    dtype = np.dtype(data_type.lower())
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def inputs(types: tuple[str, ...], shape: tuple[int, ...], seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    return {each.lower(): values(each, shape, seed + at) for at, each in enumerate(types)}


def assert_same(answer: dict[str, Any], sent: dict[str, np.ndarray[Any, Any]]) -> None:
    for name, array in sent.items():
        got = answer[f"{name}_out"]
        assert got.dtype == array.dtype, name
        np.testing.assert_array_equal(got, array, err_msg=name)


@pytest.mark.parametrize("shape", [(4, 3), (4, 1), (4, 0)], ids=str)
@pytest.mark.parametrize(("model", "types"), [("numbers", NUMBER_TYPES), ("mixed", MIXED_TYPES)])
def test_comes_back_unchanged(serving: Caller, model: str, types: tuple[str, ...], shape: tuple[int, int]) -> None:
    """Each type keeps its values and its shape, with no elements too."""
    sent = inputs(types, shape)
    assert_same(serving(model, sent), sent)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)], ids=str)
@pytest.mark.parametrize(("model", "types"), [("unbatched_numbers", NUMBER_TYPES), ("unbatched_mixed", MIXED_TYPES)])
def test_nothing_comes_back_as_nothing(
    serving: Caller, model: str, types: tuple[str, ...], shape: tuple[int, int]
) -> None:
    """A tensor without elements keeps its shape where no dimension is the batch's."""
    sent = inputs(types, shape)
    assert_same(serving(model, sent), sent)


@pytest.mark.parametrize(("model", "types"), [("numbers", NUMBER_TYPES), ("mixed", MIXED_TYPES)])
def test_comes_back_to_whom_it_belongs(serving: Caller, model: str, types: tuple[str, ...]) -> None:
    """Requests that Triton joins to one batch get their own rows back, of every type."""
    sent = [inputs(types, (rows, 2), seed=100 * rows) for rows in (1, 3)]
    under_way = [serving.start(model, each)[0] for each in sent]
    for future, each in zip(under_way, sent, strict=True):
        assert_same(future.result(60), each)


def test_a_single_type_can_be_asked_for(serving: Caller) -> None:
    """A model with bfloat16 outputs still answers for its other outputs alone."""
    sent = inputs(NUMBER_TYPES, (4, 2))
    answer = serving("numbers", sent, outputs=["fp32_out"])
    assert list(answer) == ["fp32_out"]
    np.testing.assert_array_equal(answer["fp32_out"], sent["fp32"])


@pytest.mark.parametrize("text", ["", "naïve ☃", "a\0b", "long " * 10_000], ids=["empty", "utf8", "null", "long"])
def test_strings_keep_every_character(serving: Caller, text: str) -> None:
    """A string comes back byte for byte, whatever UTF-8 it is."""
    sent = inputs(MIXED_TYPES, (4, 1)) | {"string": np.full((4, 1), text.encode(), dtype=np.object_)}
    assert_same(serving("mixed", sent), sent)


def test_strings_need_not_be_utf_8(serving: Caller) -> None:
    """Any bytes reach the model; only an output of such strings cannot be answered, and says why."""
    raw = inputs(MIXED_TYPES, (4, 1)) | {"string": np.full((4, 1), b"\xff\xfe", dtype=np.object_)}
    np.testing.assert_array_equal(serving("mixed", raw, outputs=["int64_out"])["int64_out"], raw["int64"])
    with pytest.raises(InferenceServerException, match=r"INTERNAL.*a string that is not UTF-8"):
        serving("mixed", raw)


def test_an_unreadable_string_fails_alone(serving: Caller) -> None:
    """Of a batch, only the request whose output cannot be answered fails."""
    good, bad = inputs(MIXED_TYPES, (3, 1)), inputs(MIXED_TYPES, (1, 1)) | {"string": np.array([[b"\xff"]], np.object_)}
    futures = [serving.start("mixed", each)[0] for each in (good, bad)]
    assert_same(futures[0].result(60), good)
    with pytest.raises(InferenceServerException, match="not UTF-8"):
        futures[1].result(60)
