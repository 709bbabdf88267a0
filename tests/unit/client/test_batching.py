"""Which requests travel together and in what order, and how rows part and join, without a server."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naiad.client import ClientClosed, InferenceFailed, InvalidInput, InvalidResponse, Overloaded, Result
from naiad.client._model.batching import Batch, Queue, Request, may_be_one_of_them, own
from naiad.client._protocol.codec import Codec
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.rows import Whole, join, part_of, spans, split
from naiad.client.metadata import TensorMetadata

QUICK = settings(deadline=None, max_examples=200)
MAX_BATCH_SIZE = 8


def codec(max_batch_size: int = MAX_BATCH_SIZE) -> Codec:
    """A model with `x` FP32, `words` BYTES and an optional `n` INT64, rows of any width."""
    inputs = [
        TensorMetadata(name="x", datatype="FP32", shape=(-1, -1)),
        TensorMetadata(name="words", datatype="BYTES", shape=(-1, 1)),
        TensorMetadata(name="n", datatype="INT64", shape=(-1, 1)),
    ]
    contract = Contract(
        model="m",
        inputs={tensor.name: tensor for tensor in inputs},
        outputs={"y": TensorMetadata(name="y", datatype="FP32", shape=(-1, -1))},
        optional=frozenset({"x", "words", "n"}),
        max_batch_size=max_batch_size,
    )
    return Codec("m", "", contract)


def queue(max_rows: int | None = None, max_wait_s: float = 0.0, max_waiting: int = 1000) -> Queue[Request]:
    return Queue("m", max_rows=max_rows, max_wait_s=max_wait_s, max_waiting=max_waiting)


def add(to: Queue[Request], known: Codec, inputs: dict[str, object], now: float = 0.0, **keywords: object) -> Request:
    kind, arrays = to.kind_of(known, inputs, keywords)  # type: ignore[arg-type]
    request = Request(kind, arrays, now, 60.0)
    to.add(request)
    return request


def x(rows: int = 1, width: int = 2) -> np.ndarray:
    return np.zeros((rows, width), np.float32)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, MAX_BATCH_SIZE), st.integers(1, 3)),
        st.tuples(st.just("take"), st.just(0), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 50), st.just(0)),
    ),
    max_size=60,
)


@QUICK
@given(ACTIONS, st.none() | st.integers(1, 20))
def test_every_request_is_sent_once_in_order_and_never_with_too_many_rows(actions, max_rows):
    """Whoever comes, leaves and is sent: first come, first served within a shape, the counters add up."""
    known, waiting = codec(), queue(max_rows)
    limit = min(max_rows or MAX_BATCH_SIZE, MAX_BATCH_SIZE)
    here: list[Request] = []
    sent: list[Request] = []
    batches: list[Batch[Request]] = []
    for now, (action, number, width) in enumerate(actions):
        if action == "add":
            here.append(add(waiting, known, {"x": x(number, width)}, float(now)))
        elif action == "leave" and here:
            assert waiting.leave(here.pop(number % len(here))) is None
        elif action == "take":
            batch = waiting.take(float(now))
            assert (batch is None) == (not here)
            if batch is not None:
                assert batch.requests[0] is here[0]
                assert sum(r.num_rows for r in batch.requests) <= limit or len(batch.requests) == 1
                alike = [r for r in here if r.lane is here[0].lane]
                assert batch.requests == alike[: len(batch.requests)]
                following = alike[len(batch.requests) :]
                assert not following or sum(r.num_rows for r in batch.requests) + following[0].num_rows > limit
                here = [r for r in here if r not in batch.requests]
                batches.append(batch)
                sent += batch.requests
        assert waiting.num_waiting == len(here) == len(list(waiting))
    assert len(set(sent)) == len(sent) == waiting.num_requests
    assert (waiting.num_batches, waiting.num_rows) == (len(batches), sum(r.num_rows for r in sent))


def test_only_requests_that_are_alike_but_for_their_rows_share_a_lane():
    """Names, types, trailing shapes and options part them; the order of names and the longest string do not."""
    known, waiting = codec(), queue()

    def lane(inputs: dict[str, object], **keywords: object) -> object:
        return waiting.kind_of(known, inputs, keywords)[0].lane  # type: ignore[arg-type]

    short, long = np.array([["a"]]), np.array([["a long one"], ["b"]])
    both = {"x": x(), "n": np.zeros((1, 1), np.int64)}
    assert lane({"x": x(1)}) is lane({"x": x(5)}) is lane({"x": [[1, 2]]})
    assert lane(both) is lane(dict(reversed(both.items())))
    assert lane({"words": short}) is lane({"words": long})
    apart = [
        lane({"x": x()}),
        lane({"x": x(width=3)}),
        lane({"x": x().astype(">f4")}),
        lane(both),
        lane({"words": short}),
        lane({"words": short.astype("S")}),
        lane({"words": short.astype(object)}),
        lane({"x": x()}, priority=1),
        lane({"x": x()}, request_id="a"),
        lane({"x": x()}, outputs=["y"]),
        lane({"x": x()}, parameters={"flag": True}),
        lane({"x": x()}, parameters={"flag": 1}),
        lane({"x": x()}, parameters={"flag": 1.0}),
    ]
    assert len(set(map(id, apart))) == len(apart)
    assert lane({"x": x(3)}, parameters={"flag": 1}) is apart[-2]


@pytest.mark.parametrize(
    ("inputs", "keywords", "message"),
    [
        ({"z": x()}, {}, "no input 'z'"),
        ({"x": np.zeros((1, 2))}, {}, "is FP32, found FP64"),
        ({"x": np.zeros(2, np.float32)}, {}, r"needs the batch dimension too"),
        ({"x": x(9)}, {}, "at most 8 rows a request, found 9"),
        ({"x": x(0)}, {}, "at least one row"),
        ({"x": x(2), "n": np.zeros((1, 1), np.int64)}, {}, "the same number of rows"),
        ({"x": x()}, {"outputs": ["q"]}, "no output 'q'"),
        ({"x": x()}, {"parameters": {"a": [1]}}, "parameter 'a' is a bool"),
        ({"x": x()}, {"sequence_id": 3}, "of a sequence cannot be joined"),
        ({"x": x()}, {"out": {"y": x()}}, "out cannot receive"),
    ],
)
def test_wrong_requests_are_refused_before_they_meet_others(inputs, keywords, message):
    """What is wrong for one is the error of that one alone."""
    with pytest.raises(InvalidInput, match=message):
        queue().kind_of(codec(), inputs, keywords)


def test_a_cast_that_was_asked_for_happens_before_requests_are_joined():
    """float16 and float32 travel together as the model's float32."""
    known, waiting = codec(), queue()
    plain = waiting.kind_of(known, {"x": x()}, {})[0]
    kind, arrays = waiting.kind_of(known, {"x": x().astype(np.float16)}, {"cast": "safe"})
    assert kind.lane is plain.lane
    assert arrays["x"].dtype == np.float32


def test_a_model_without_a_batch_dimension_cannot_be_batched():
    """The message says what to do instead."""
    with pytest.raises(InvalidInput, match=r"max_batch_size is 0.*call the model itself"):
        queue().kind_of(codec(max_batch_size=0), {"x": x()}, {})


@pytest.mark.parametrize("options", [{"max_rows": 0}, {"max_wait_s": -1.0}, {"max_wait_s": float("nan")}])
def test_options_out_of_range_are_refused(options):
    """The message names the option."""
    with pytest.raises(InvalidInput, match=next(iter(options))):
        queue(**options)
    with pytest.raises(InvalidInput, match="max_waiting"):
        queue(max_waiting=0)


def test_more_callers_than_may_wait_are_turned_away():
    """The others keep their places; who leaves makes room."""
    known, waiting = codec(), queue(max_waiting=2)
    first = add(waiting, known, {"x": x()})
    add(waiting, known, {"x": x()})
    with pytest.raises(Overloaded, match="max_waiting") as caught:
        add(waiting, known, {"x": x()})
    assert caught.value.unprocessed
    waiting.leave(first)
    add(waiting, known, {"x": x()})
    assert waiting.num_waiting == 2


def test_a_batch_may_wait_for_more_but_not_when_it_is_full_or_at_the_end():
    """Due is what is full, what waited long enough, and everything once no more may come."""
    known, waiting = codec(), queue(max_rows=3, max_wait_s=10.0)
    assert waiting.due_at() is None
    add(waiting, known, {"x": x(2)}, now=100.0)
    assert waiting.due_at() == 110.0
    assert waiting.take(109.0) is None
    wide = add(waiting, known, {"x": x(3, width=5)}, now=105.0)
    full = waiting.take(109.0)
    assert full is not None
    assert full.requests == [wide]
    waiting.closed = True
    assert waiting.take(109.0) is not None
    with pytest.raises(ClientClosed, match="make a new one"):
        add(waiting, known, {"x": x()})


def test_a_batch_is_given_up_when_the_last_of_its_callers_left():
    """Until then it goes on for the others."""
    known, waiting = codec(), queue()
    requests = [add(waiting, known, {"x": x()}) for _ in range(3)]
    batch = waiting.take(0.0)
    assert [waiting.leave(request) for request in requests] == [None, None, batch]


def test_many_shapes_do_not_fill_memory():
    """What is known of a thousand shapes is forgotten before it is too much; those who wait stay."""
    known, waiting = codec(), queue(max_waiting=2000)
    for width in range(1, 1001):
        add(waiting, known, {"x": x(1, width)})
        assert len(waiting._kinds) <= 256
        assert len(waiting._lanes) <= 256
    assert sum(1 for _ in iter(lambda: waiting.take(0.0), None)) == 1000
    assert waiting.num_waiting == 0


def test_what_broke_may_be_sent_again_only_where_that_does_no_harm():
    """A refused request was not run; one that broke may have been."""
    assert may_be_one_of_them(InvalidInput("no"), idempotent=False)
    assert may_be_one_of_them(InferenceFailed("no"), idempotent=True)
    assert not may_be_one_of_them(InferenceFailed("no"), idempotent=False)
    assert not may_be_one_of_them(Overloaded("no"), idempotent=True)


def test_everybody_gets_an_error_of_their_own():
    """With the same fields; a note on one is not on the others."""
    error = InferenceFailed("broken", model="m", endpoint="grpc://a:1")
    error.add_note("for all")
    first, second = own(error), own(error)
    first.add_note("for me")
    assert isinstance(second, InferenceFailed)
    assert (str(second), second.model, second.endpoint, second.__cause__) == ("broken", "m", "grpc://a:1", error)
    assert (second.__notes__, first.__notes__) == (["for all"], ["for all", "for me"])


ROWS = st.lists(st.integers(1, 5), min_size=1, max_size=6)
DTYPES = st.sampled_from(["f4", "i8", "?", "S3", "U2", object])


@QUICK
@given(ROWS, st.integers(0, 3), DTYPES)
def test_what_is_joined_and_split_again_is_what_it_was(sizes, width, dtype):
    """For any number of requests of any sizes; whoever writes into their part changes no other."""
    dice = np.random.default_rng(sum(sizes))
    parts = [dice.integers(0, 2, (size, width)).astype(dtype) for size in sizes]
    joined = join([{"a": part, "b": part[:, :1]} for part in parts])
    answers = split(Result(joined, model_name="m", model_version="3", parameters={"k": 1}), sizes)
    for part, answer in zip(parts, answers, strict=True):
        assert answer["a"].tolist() == part.tolist()
        assert answer["b"].tolist() == part[:, :1].tolist()
        assert (answer.model_name, answer.model_version, answer.parameters) == ("m", "3", {"k": 1})
        assert answer["a"].flags.writeable
        if len(sizes) > 1:
            assert answer["a"].base is None


def test_large_rows_are_aligned_as_large_outputs_are():
    """Each caller's part at a multiple of 64 bytes."""
    large = Result({"y": np.ones((3, 70_001), np.float32), "words": np.full((3, 40_000), b"a", object)})
    for part in split(large, [1, 2]):
        assert part["y"].ctypes.data % 64 == 0
        assert part["y"].all()
        assert (part["words"] == b"a").all()


@pytest.mark.parametrize("shape", [(4, 2), (), (2, 3)])
def test_an_output_without_a_row_for_each_row_cannot_be_split(shape):
    """Neither one more, nor a scalar, nor the number of callers."""
    with pytest.raises(InvalidResponse, match="rows cannot be told apart"):
        split(Result({"y": np.zeros(shape)}, model_name="m"), [2, 1])


@QUICK
@given(st.integers(0, 40), st.integers(1, 12), st.sampled_from([(), (2,), (200, 100)]), st.randoms())
def test_parts_in_any_order_make_the_whole(num_rows, rows, trailing, dice):
    """Whether its arrays are known beforehand, after the first part, or brought by the caller."""
    source = np.arange(num_rows * int(np.prod(trailing)), dtype=np.float32).reshape(num_rows, *trailing)
    mine = np.empty_like(source)
    known = [TensorMetadata(name="y", datatype="FP32", shape=(-1, *trailing))]
    whole = Whole(num_rows, rows, {"mine": mine}, known)
    parts = list(spans(num_rows, rows))
    assert [row for part in parts for row in part] == list(range(num_rows))
    dice.shuffle(parts)
    for span in parts:
        out = whole.out(span)
        given_to_us = part_of({"y": source}, span)["y"]
        outputs = {name: given_to_us.copy() for name in ("y", "mine", "late")}
        for name, buffer in out.items():  # what the codec does with `out`
            buffer[...] = given_to_us
            outputs[name] = buffer
        whole.put(span, Result(outputs, model_name="m", model_version=str(span.start % 2)))
    if num_rows:
        result = whole.result(1.5)
        assert result["mine"] is mine
        for name in ("y", "mine", "late"):
            np.testing.assert_array_equal(result[name], source)
        assert result.timing.total_s == 1.5
        assert set(result.model_version.split(",")) == {str(part.start % 2) for part in parts}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"y": np.zeros((2, 4), np.float32)}, r"'y' as float32 \[2, 4\], an earlier one with float32 \[2, 3\]"),
        ({"y": np.zeros((2, 3), np.int32)}, r"'y' as int32"),
        ({"z": np.zeros((2, 3), np.float32)}, r"the outputs z, an earlier one with y"),
        ({"y": np.zeros((1, 3), np.float32)}, r"has the shape \[1, 3\] for 2 rows"),
    ],
)
def test_parts_that_do_not_go_together_are_named(second, message):
    """The message says what came, and what came before."""
    whole = Whole(4, 2, {}, [])
    for span in spans(4, 2):
        whole.out(span)
    whole.put(range(2), Result({"y": np.zeros((2, 3), np.float32)}, model_name="m"))
    with pytest.raises(InvalidResponse, match=message):
        whole.put(range(2, 4), Result(second, model_name="m"))


def test_buffers_need_a_row_for_each_row():
    """Before anything is sent."""
    with pytest.raises(InvalidInput, match=r"out\['y'\] has a row for each of the 4 rows, found \[3, 2\]"):
        Whole(4, 2, {"y": np.zeros((3, 2))}, [])
