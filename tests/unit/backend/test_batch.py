"""Joining requests and splitting outputs, without a server."""

from typing import Any

import numpy as np
import pytest
from _ort_batch import Job, groups, join, split
from _ort_config import BatchTensor
from _ort_datatypes import BY_TRITON
from _ort_errors import OutputError
from _ort_ragged import batch_inputs, scatter
from _ort_signature import InputSpec, OutputSpec, Signature
from _ort_strings import strings_for_runtime

FP32 = BY_TRITON["TYPE_FP32"]


def signature(*, batched: bool = True, ragged: bool = False, **output: Any) -> Signature:
    spec = OutputSpec(**{"name": "y", "data_type": FP32, "shape": (-1, 3), **output})
    return Signature(
        model="model",
        batched=batched,
        inputs={"x": InputSpec(name="x", data_type=FP32, ragged=ragged)},
        outputs={"y": spec},
        answered=frozenset({"y"}),
        states={},
        batch_inputs=(),
    )


def job(index: int, array: np.ndarray[Any, Any]) -> Job:
    return Job(index=index, inputs={"x": array}, rows=array.shape[0], wanted=frozenset({"y"}))


def rows(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_equal_shapes_run_together() -> None:
    """Requests are grouped by their shape without the rows, in the order of their arrival."""
    jobs = [job(0, rows(1, 3)), job(1, rows(1, 2)), job(2, rows(4, 3))]
    assert [[each.index for each in group] for group in groups(jobs, signature())] == [[0, 2], [1]]


def test_the_order_of_inputs_does_not_matter() -> None:
    """Clients may name a model's inputs in any order and still share a run."""
    one, two = rows(1, 3), rows(1, 2)
    inputs = [{"x": one, "w": two}, {"w": two, "x": one}]
    jobs = [Job(index=at, inputs=each, rows=1, wanted=frozenset()) for at, each in enumerate(inputs)]
    assert len(groups(jobs, signature())) == 1


def test_ragged_requests_run_together() -> None:
    """A ragged input does not keep requests apart."""
    jobs = [job(0, rows(1, 3)), job(1, rows(1, 2))]
    assert len(groups(jobs, signature(ragged=True))) == 1
    np.testing.assert_array_equal(join(jobs, signature(ragged=True))["x"], [0, 1, 2, 0, 1])


def test_without_batching_each_request_runs_alone() -> None:
    """A model that does not batch gets one request at a time."""
    jobs = [job(0, rows(1, 3)), job(1, rows(1, 3))]
    assert len(groups(jobs, signature(batched=False))) == 2


def test_a_lone_request_is_not_copied() -> None:
    """One request's own array is what the model gets, and the model's own array is what it is answered."""
    array = rows(2, 3)
    alone = [job(0, array)]
    assert join(alone, signature())["x"] is array
    output = rows(2, 3)
    assert split(alone, {"y": output}, signature())[0]["y"] is output


def test_answers_are_views_of_the_batch() -> None:
    """The rows of a batch's output are handed out without a copy."""
    jobs = [job(0, rows(1, 3)), job(1, rows(2, 3))]
    np.testing.assert_array_equal(join(jobs, signature())["x"], np.concatenate([rows(1, 3), rows(2, 3)]))
    output = rows(3, 3)
    parts = split(jobs, {"y": output}, signature())
    assert all(part["y"].base is output.base for part in parts)
    np.testing.assert_array_equal(np.concatenate([part["y"] for part in parts]), output)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (rows(1, 3), r"expected shape \[2, 3\] .*found \[1, 3\]"),
        (rows(2, 4), r"expected shape \[2, 3\] .*found \[2, 4\]"),
        (rows(2), r"expected shape \[2, 3\] .*found \[2\]"),
        (rows(2, 3).astype(np.float64), "expected TYPE_FP32 as configured, found float64"),
    ],
    ids=["rows", "width", "rank", "type"],
)
def test_output_that_contradicts_the_configuration(output: np.ndarray[Any, Any], message: str) -> None:
    """Wrong rows, sizes, ranks and types are noticed before they are sent."""
    with pytest.raises(OutputError, match=message):
        split([job(0, rows(1, 3)), job(1, rows(1, 3))], {"y": output}, signature())


def test_scalar_output_gets_the_configured_dims() -> None:
    """A scalar is sent with the dims that the configuration gives it."""
    spec = signature(batched=False, shape=(1, 1), scalar_dims=(1, 1))
    assert split([job(0, rows(1))], {"y": np.float32(5).reshape(())}, spec)[0]["y"].shape == (1, 1)


REQUESTS = [{"x": rows(1, 2)}, {"x": rows(1, 5)}, {"x": rows(2, 3)}]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("BATCH_ELEMENT_COUNT", [2, 5, 6]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT", [2, 7, 13]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", [0, 2, 7, 13]),
        ("BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", [0, 0, 0, 0, 0, 0]),
        ("BATCH_ITEM_SHAPE", [[2], [5], [3], [3]]),
        ("BATCH_ITEM_SHAPE_FLATTEN", [2, 5, 3, 3]),
    ],
)
@pytest.mark.parametrize("data_type", ["TYPE_INT32", "TYPE_FP32"])
def test_batch_inputs(kind: str, expected: list[Any], data_type: str) -> None:
    """Each kind of batch input tells the model of the requests' shapes what its name says."""
    entry = BatchTensor(kind=kind, targets=("a", "b"), sources=("x",), data_type=data_type)
    made = batch_inputs([entry], REQUESTS)
    assert set(made) == {"a", "b"}
    np.testing.assert_array_equal(made["a"], expected)
    assert made["a"].dtype == BY_TRITON[data_type].numpy


def test_scatter_cuts_by_the_inputs_shapes() -> None:
    """A flat output is cut into views shaped like the requests' inputs."""
    output = rows(13)
    pieces = scatter("y", output, (-1, -1), [each["x"].shape for each in REQUESTS])
    assert [piece.shape for piece in pieces] == [(1, 2), (1, 5), (2, 3)]
    assert all(np.shares_memory(piece, output) for piece in pieces)
    with pytest.raises(OutputError, match=r"expected 13 elements.*found 12"):
        scatter("y", rows(12), (-1, -1), [each["x"].shape for each in REQUESTS])


def test_strings_are_decoded() -> None:
    """UTF-8 goes to ONNX Runtime as text; anything else as bytes that end with a null."""
    text = strings_for_runtime(np.array([["ä".encode()], [b""]], dtype=np.object_))
    assert text.tolist() == [["ä"], [""]]
    raw = strings_for_runtime(np.array([b"\xff\xfe", b"ok"], dtype=np.object_))
    assert (raw.dtype.kind, raw.dtype.itemsize, raw.tolist()) == ("S", 3, [b"\xff\xfe", b"ok"])
    assert strings_for_runtime(np.empty((0, 2), dtype=np.object_)).shape == (0, 2)
