"""infer_many on the real Triton: many rows as one answer, many requests as an iterator."""

import asyncio
import contextlib
import pickle
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from naiad.client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    InvalidResponse,
    Output,
    Result,
)
from rows_helpers import num_cancelled, num_requests, wait_until_busy, wait_until_idle

Many = Callable[..., Result]


@pytest.fixture(params=["blocking", "asyncio"])
def many(request: pytest.FixtureRequest, url: str) -> Many:
    """`many(model, arrays, **keywords)` by either client."""

    def by_asyncio(model: str, arrays: Mapping[str, Any], **keywords: Any) -> Result:
        async def run() -> Result:
            async with AsyncClient(url) as client:
                return await client.model(model).infer_many(arrays, **keywords)

        return asyncio.run(run())

    def blocking(model: str, arrays: Mapping[str, Any], **keywords: Any) -> Result:
        with Client(url) as client:
            return client.model(model).infer_many(arrays, **keywords)

    return blocking if request.param == "blocking" else by_asyncio


def rows(number: int) -> np.ndarray:
    return np.arange(number * 3, dtype=np.float32).reshape(number, 3)


@pytest.mark.parametrize("number", [1, 7, 8, 9, 100])
@pytest.mark.parametrize("inflight", [1, 4])
def test_any_number_of_rows_is_one_answer(many, number, inflight):
    """Above and below `max_batch_size`; the result says who answered and how long all of it took."""
    answer = many("scale", {"x": rows(number)}, inflight=inflight)
    np.testing.assert_array_equal(answer["y"], rows(number) * 3)
    assert answer["y"].flags.writeable
    assert (answer.model_name, answer.model_version) == ("scale", "2")
    assert answer.timing.num_attempts == -(-number // 8)
    assert answer.timing.total_s > 0


def test_rows_says_how_large_a_request_is(many):
    """Not more than the model takes; the model tells how many came together."""
    x = np.zeros((20, 1), np.float32)
    assert many("rows", {"x": x}, rows=6)["size"].ravel().tolist() == [6] * 18 + [2] * 2
    assert many("rows", {"x": x}, rows=1000)["size"].ravel().tolist() == [16] * 16 + [4] * 4


@pytest.mark.parametrize("x", [rows(40)[::-2], np.asfortranarray(rows(20)), rows(20).astype(">f4"), rows(20).tolist()])
def test_rows_of_any_layout_are_divided(many, x):
    """Strided, transposed, big-endian, and lists."""
    np.testing.assert_array_equal(many("scale", {"x": x})["y"], np.asarray(x, np.float32) * 3)


def test_keywords_go_with_every_part(many):
    """Casts, chosen outputs, classes and the request's id."""
    answer = many("scale", {"x": rows(20).astype(np.float16)}, cast="safe", request_id="r7")
    np.testing.assert_array_equal(answer["y"], rows(20) * 3)
    assert answer.request_id == "r7"
    assert list(many("rows", {"x": np.ones((40, 1), np.float32)}, outputs=["y"])) == ["y"]
    best = many("labelled", {"x": rows(20)}, outputs=[Output(name="y", class_count=1)])
    assert [row[0].label for row in best.classes("y")] == ["fish"] * 20


def test_the_callers_memory_receives_all_rows(many):
    """`out` is as long as the input, and is what the result has."""
    out = np.zeros((20, 3), np.float32)
    assert many("scale", {"x": rows(20)}, out={"y": out})["y"] is out
    np.testing.assert_array_equal(out, rows(20) * 3)
    with pytest.raises(InvalidInput, match=r"out\['y'\] has a row for each of the 19 rows, found \[20, 3\]"):
        many("scale", {"x": rows(19)}, out={"y": out})


def test_large_outputs_are_received_in_place(many):
    """Parts of a megabyte each, which the answer's array receives without another copy."""
    x = np.random.default_rng(0).random((24, 65536), np.float32)
    y = many("long", {"x": x})["y"]
    np.testing.assert_array_equal(y, x * 2)
    assert y.ctypes.data % 64 == 0


def test_no_rows_are_answered_without_asking(many):
    """Where the metadata tells the outputs' shapes; otherwise the error says so."""
    empty = many("scale", {"x": rows(0)})
    assert (empty["y"].shape, empty["y"].dtype) == ((0, 3), np.float32)
    assert many("labelled", {"x": rows(0)}, outputs=[Output(name="y", class_count=2)])["y"].shape == (0, 2)
    with pytest.raises(InvalidInput, match=r"what no rows give cannot be said for the output wide FP32 \[\?, \?\]"):
        many("uneven", {"x": np.zeros((0, 1), np.float32)})


@pytest.mark.parametrize(
    ("model", "inputs", "keywords", "message"),
    [
        ("scale", {"x": np.zeros((20, 3))}, {}, "is FP32, found FP64"),
        ("scale", {"x": np.zeros((20, 4), np.float32)}, {}, r"has the shape \[\?, 3\], found \[20, 4\]"),
        ("scale", {"x": np.zeros((), np.float32)}, {}, r"found \[\]"),
        ("scale", {}, {}, "expects the input x"),
        ("scale", {"x": rows(20), "z": rows(20)}, {}, "no input 'z'"),
        ("scale", {"x": rows(20)}, {"inflight": 0}, "inflight is 1 or more"),
        ("scale", {"x": rows(20)}, {"rows": 0}, "rows is 1 or more"),
        ("scale", {"x": rows(20)}, {"sequence_id": 1}, "sequence"),
        ("scale", {"x": rows(20)}, {"outputs": ["q"]}, "no output 'q'"),
        ("maybe", {"a": [1, 2]}, {}, r"max_batch_size is 0.*give a list of inputs"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_sent(url, many, model, inputs, keywords, message):
    """The server's counters do not move."""
    before = num_requests(url, model)
    with pytest.raises(InvalidInput, match=message):
        many(model, inputs, **keywords)
    assert num_requests(url, model) == before


@pytest.mark.parametrize(("value", "error"), [(-1, InvalidInput), (-2, InferenceFailed)])
def test_the_first_failure_says_which_rows_it_is_about(many, value, error):
    """As a field and in the traceback; it survives a process boundary."""
    x = np.zeros((50, 1), np.float32)
    x[21] = value
    with pytest.raises(error, match=f"a row of {value}") as caught:
        many("rows", {"x": x}, rows=5, inflight=2)
    assert caught.value.rows == range(20, 25)
    assert caught.value.__notes__ == ["concerning the rows 20:25 of 50"]
    assert pickle.loads(pickle.dumps(caught.value)).rows == range(20, 25)


def test_a_failure_cancels_the_other_parts_on_the_server(many, url):
    """The part that would have taken minutes is over when the failure of the one before it is raised."""
    x = np.array([[100.3], [-1.0], [300.0], [300.0]], np.float32)
    with pytest.raises(InvalidInput, match="a row of -1") as caught:
        many("rows", {"x": x}, rows=1, inflight=2)
    assert caught.value.rows == range(1, 2)
    num_cancelled(url)  # is answered, although there is one instance


def test_one_deadline_is_over_all_parts(many, url):
    """Parts that would each be in time are not, together."""
    x = np.full((4, 1), 100.4, np.float32)
    with pytest.raises(DeadlineExceeded) as caught:
        many("rows", {"x": x}, rows=1, inflight=1, timeout_s=1.0)
    assert caught.value.rows is not None
    assert caught.value.rows.start >= 1
    num_cancelled(url)  # is answered: nothing runs any more


def test_answers_that_make_no_array_are_refused_with_what_to_do(many, triton):
    """As one answer they cannot be had, one by one they can."""
    x = np.array([[2], [2], [3], [3]], np.float32)
    with pytest.raises(
        InvalidResponse, match=r"'wide' as float32 \[2, [23]\], an earlier one with float32 \[2, [23]\]"
    ):
        many("uneven", {"x": x}, rows=2, outputs=["wide"])
    with pytest.raises(InvalidResponse, match="rows cannot be told apart"):
        many("uneven", {"x": x}, rows=2, outputs=["total"])
    parts = triton.model("uneven").infer_many([{"x": x[:2]}, {"x": x[2:]}])
    assert [part["wide"].shape for part in parts] == [(2, 2), (2, 3)]


@pytest.mark.parametrize("inflight", [1, 2, 5])
def test_requests_are_answered_in_order_and_taken_only_as_needed(triton, inflight):
    """Never more than `inflight` ahead of what the consumer has, however fast it is."""
    taken = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield {"x": [[number, 0, 0]]}

    answers = triton.model("scale").infer_many(source(), inflight=inflight)
    assert taken == 0
    for consumed, answer in enumerate(answers):
        assert answer["y"][0, 0] == consumed * 3
        assert taken - consumed <= inflight
    assert taken == 40


def test_a_model_without_a_batch_dimension_takes_many_requests(triton):
    """What cannot be divided can still be pipelined."""
    answers = triton.model("maybe").infer_many({"a": [number, 0]} for number in range(20))
    assert [answer["sum"][0] for answer in answers] == [number + 0.5 for number in range(20)]


def test_a_wrong_request_fails_when_its_turn_comes(triton):
    """Those before it are answered; the note says which one it was."""
    good = {"x": [[1, 2, 3]]}
    answers = triton.model("scale").infer_many([good, good, {"x": [[1]]}, good])
    assert [next(answers)["y"].shape, next(answers)["y"].shape] == [(1, 3), (1, 3)]
    with pytest.raises(InvalidInput, match="has the shape") as caught:
        next(answers)
    assert caught.value.__notes__ == ["concerning the request 2 of infer_many, counted from 0"]
    with pytest.raises(StopIteration):
        next(answers)
    wait_until_idle(triton)


def test_leaving_early_cancels_what_was_sent_ahead(triton, url):
    """The request that would have taken a minute ends with the iterator."""
    model, before = triton.model("rows"), num_cancelled(url)

    def source() -> Iterator[dict[str, Any]]:
        yield {"x": [[100.8]]}
        wait_until_busy(url)
        yield {"x": [[160]]}

    answers = model.infer_many(source(), inflight=2)
    next(answers)
    wait_until_busy(url)
    answers.close()
    assert num_cancelled(url) == before + 1
    wait_until_idle(triton)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": [np.zeros((1, 3), np.float32)]}, "a mapping of inputs by name, found ndarray"),
        ({"inputs": rows(3)}, "a mapping of inputs by name, found ndarray"),
        ({"inputs": [], "rows": 3}, "rows is 1 or more and divides one mapping"),
        ({"inputs": [], "out": {}}, "out receives one answer"),
    ],
)
def test_iterables_of_something_else_are_refused(triton, arguments, message):
    """And so is what belongs to arrays only."""
    with pytest.raises(InvalidInput, match=message):
        list(triton.model("scale").infer_many(**arguments))


def test_an_error_of_the_source_ends_the_iteration(triton):
    """It passes as it is, and what was sent is cancelled."""

    def source() -> Iterator[dict[str, Any]]:
        yield {"x": [[1, 2, 3]]}
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(triton.model("scale").infer_many(source()))
    wait_until_idle(triton)


@pytest.mark.parametrize("kind", ["iterable", "asynchronous"])
async def test_requests_are_answered_in_order_in_an_event_loop(url, kind):
    """From either kind of iterable, with the same look-ahead."""
    taken = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield {"x": [[number, 0, 0]]}

    async def asynchronous() -> AsyncIterator[dict[str, Any]]:
        for inputs in source():
            await asyncio.sleep(0)
            yield inputs

    async with AsyncClient(url) as client:
        consumed = 0
        scale = client.model("scale")
        async for answer in scale.infer_many(source() if kind == "iterable" else asynchronous(), inflight=3):
            assert answer["y"][0, 0] == consumed * 3
            assert taken - consumed <= 3
            consumed += 1
    assert consumed == taken == 40


async def test_leaving_an_asynchronous_iterator_cancels_what_was_sent_ahead(url):
    """No task is left behind, and nothing runs on the server."""
    async with AsyncClient(url) as client:
        model, before = client.model("rows"), num_cancelled(url)
        await model(x=[[0]])
        tasks = asyncio.all_tasks()

        async def source() -> AsyncIterator[dict[str, Any]]:
            yield {"x": [[100.8]]}
            await asyncio.to_thread(wait_until_busy, url)
            yield {"x": [[160]]}

        async with contextlib.aclosing(model.infer_many(source(), inflight=2)) as answers:
            async for _ in answers:
                await asyncio.to_thread(wait_until_busy, url)
                break
        assert asyncio.all_tasks() == tasks
        assert await asyncio.to_thread(num_cancelled, url) == before + 1
        assert client.servers[0].outstanding == 0


async def test_cancelling_many_rows_cancels_all_of_them(url):
    """The task ends at once, and so do its requests."""
    async with AsyncClient(url) as client:
        model = client.model("rows")
        await model(x=[[0]])
        task = asyncio.create_task(model.infer_many({"x": np.full((4, 1), 160, np.float32)}, rows=1))
        await asyncio.to_thread(wait_until_busy, url)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.servers[0].outstanding == 0
        assert (await model.infer({"x": [[0]]}, timeout_s=10))["y"].shape == (1, 1)
