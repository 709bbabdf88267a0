"""Sequences and streams in the engine's loop, against a real gRPC server that reads what it was told of them."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

import grpc
import pytest

from engine_helpers import WAIT_S, Drive, at_once, plan, serving
from naiad.loadtest import Rate, Sequence, Traffic, Users


@pytest.fixture(params=["http2", "grpcio"])
def transport(request):
    """Every behaviour of the loop holds on both wires."""
    return request.param


@pytest.fixture(params=[False, True], ids=["unary", "stream"])
def stream(request):
    """And for single calls as for streams."""
    return request.param


def traffic(stream, low, high, pause_s=0.0):
    return Traffic(model="m", sequence=Sequence(length=(low, high), pause_s=pause_s), stream=stream, timeout_s=WAIT_S)


def sequences(model):
    """What the server was told: for each sequence its requests' (start, end) in order."""
    found = defaultdict(list)
    for request in model.requests:
        told = request.parameters
        key = told["sequence_id"].int64_param or told["sequence_id"].uint64_param
        found[key].append((told["sequence_start"].bool_param, told["sequence_end"].bool_param))
    return dict(found)


def assert_whole(found, low, high):
    """Every sequence begins with a start, ends with an end, and has neither in between."""
    for key, marks in found.items():
        assert key > 0
        assert low <= len(marks) <= high
        assert [start for start, _ in marks] == [True] + [False] * (len(marks) - 1)
        assert [end for _, end in marks] == [False] * (len(marks) - 1) + [True]


def test_each_user_sends_whole_sequences(stream, transport):
    """Ids are not zero and never used twice, and every sequence has its start, its end and its length."""
    with serving() as (url, model):
        with Drive(plan(url, Users(users=3), traffic(stream, 2, 5), transport=transport), stateful=True) as drive:
            drive.until(lambda: model.num_requests >= 100)
            drive.finish()
        found = sequences(model)
    assert_whole(found, 1, 5)  # those that the end of the run met were cut short
    assert sum(len(marks) < 2 for marks in found.values()) <= 3
    assert {len(marks) for marks in found.values()} >= {2, 3, 4, 5}
    assert drive.total("sent") == model.num_requests == len(drive.values("latencies"))


def test_arrivals_of_an_open_loop_are_whole_sequences(stream, transport):
    """A rate of sequences, each of which goes on by itself."""
    load = Rate(per_s=100.0, arrivals="constant")
    with serving() as (url, model):
        with Drive(plan(url, load, traffic(stream, 3, 3), transport=transport), stateful=True) as drive:
            drive.until(lambda: model.num_requests >= 60)
            drive.finish()
        found = sequences(model)
    assert_whole(found, 1, 3)
    assert drive.errors() == {}


def test_the_end_of_a_run_ends_its_sequences(stream, transport):
    """Sequences in the middle, one of them in its pause, end with the next request: the server keeps no place."""
    with serving() as (url, model):
        planned = plan(url, Users(users=4), traffic(stream, 1000, 1000, pause_s=30.0), transport=transport)
        with Drive(planned, stateful=True) as drive:
            drive.until(lambda: len(drive.lanes[0].latencies) == 4)
            drive.finish()
        assert_whole(sequences(model), 2, 2)
        assert drive.errors() == {}


def test_a_sequence_pauses_between_its_requests(transport):
    """The next request is due a pause after the answer, and does not leave before."""
    with serving() as (url, model):
        planned = plan(url, Users(users=1), traffic(False, 3, 3, pause_s=0.05), transport=transport)
        with Drive(planned, stateful=True) as drive:
            drive.until(lambda: model.num_requests >= 3)
            drive.finish()
        first, second, third = model.arrived_ns[:3]
        assert second - first >= 50_000_000
        assert third - second >= 50_000_000


def test_a_sequence_that_fails_is_ended_and_the_user_begins_another(transport):
    """After a failed step the server is told the end; that request is no result, and a new sequence follows."""

    def fail_once(number, context):
        if number == 1:
            context.abort(grpc.StatusCode.INTERNAL, "this step broke")

    with serving(fail_once) as (url, model):
        with Drive(plan(url, Users(users=1), traffic(False, 4, 4), transport=transport), stateful=True) as drive:
            drive.until(lambda: model.num_requests >= 7)
            drive.finish()
        broken, *others = sequences(model).values()
        assert broken == [(True, False), (False, False), (False, True)]
        assert_whole(dict(enumerate(others, 1)), 1, 4)
        assert sum(drive.errors().values()) == 1
        assert drive.total("sent") == model.num_requests - 1


def test_streams_are_used_again(transport):
    """One request at a time is on a stream, and 3 users need 3 streams, not one for every request."""
    with serving() as (url, model):
        planned = plan(url, Users(users=3), Traffic(model="m", stream=True, timeout_s=WAIT_S), transport=transport)
        with Drive(planned) as drive:
            drive.until(lambda: model.num_requests >= 60)
            assert len(drive.loop._streams._open) == 3
            drive.finish()
        assert model.most <= 3
        assert len(drive.values("first_response")) == len(drive.values("latencies")) == model.num_requests
        assert drive.values("between_responses") == []


def test_a_stream_that_breaks_fails_its_request_and_is_replaced(transport):
    """The error of a call that ends is that of its request; the next one opens another stream."""

    def fail_once(number, context):
        if number == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone for a moment")

    with serving(fail_once) as (url, model):
        planned = plan(url, Users(users=1), Traffic(model="m", stream=True, timeout_s=WAIT_S), transport=transport)
        with Drive(planned) as drive:
            drive.until(lambda: model.num_requests >= 10)
            drive.finish()
        assert drive.errors() == {"ServerUnavailable": 1}
        assert len(drive.values("latencies")) == model.num_requests - 1


def test_a_streamed_request_that_takes_too_long_has_failed(transport):
    """A stream has no deadline of its own: the engine keeps that of each request."""
    gate = threading.Event()

    def hang_once(number, context):
        if number == 1:
            gate.wait(WAIT_S)

    with serving(hang_once) as (url, model):
        planned = plan(url, Users(users=1), Traffic(model="m", stream=True, timeout_s=0.2), transport=transport)
        with Drive(planned) as drive:
            drive.until(lambda: model.num_requests >= 5)
            gate.set()
            drive.finish()
        assert drive.errors().get("DeadlineExceeded", 0) >= 1


def test_streams_and_single_calls_share_a_run(transport):
    """A mix of a streamed and an ordinary model: each is counted for itself."""
    mix = Traffic(model="m", stream=True, timeout_s=WAIT_S), Traffic(model="n", timeout_s=WAIT_S)
    with serving(at_once) as (url, model), Drive(plan(url, Users(users=4), *mix, transport=transport)) as drive:
        drive.until(lambda: model.num_requests >= 100)
        drive.finish()
        names = [request.model_name for request in model.requests]
        assert [len(drive.values("latencies", lane)) for lane in (0, 1)] == [names.count("m"), names.count("n")]
        assert drive.errors(0) == drive.errors(1) == {}


def test_what_is_on_a_stream_when_the_drain_is_over_is_unfinished(transport):
    """A stream that hangs is counted like everything else."""
    gate = threading.Event()
    with serving(lambda *_: gate.wait(WAIT_S)) as (url, model):
        planned = plan(url, Users(users=2), Traffic(model="m", stream=True, timeout_s=WAIT_S), transport=transport)
        with Drive(planned) as drive:
            drive.until(lambda: model.now == 2)
            began_s = time.monotonic()
            drive.finish(0.1)
            assert time.monotonic() - began_s < WAIT_S
            assert drive.errors() == {"Unfinished": 2}
        gate.set()
