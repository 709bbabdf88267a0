"""The engine's loop against a real gRPC server: users, schedules, and what is recorded of them."""

from __future__ import annotations

import itertools
import threading
import time

import grpc
import numpy as np
import pytest

from engine_helpers import WAIT_S, Drive, at_once, plan, serving
from naiad.loadtest import Rate, Trace, Traffic, Users
from naiad.loadtest._engine.messages import INTERVAL_NS
from naiad.loadtest._engine.schedule import arrivals


@pytest.fixture(params=["http2", "grpcio"])
def transport(request):
    """Every behaviour of the loop holds on both wires."""
    return request.param


def test_each_user_keeps_one_request_in_flight(transport):
    """With 8 users, 8 requests are with the server and never more; fewer users leave as their requests end."""
    gate = threading.Event()
    with serving(lambda *_: gate.wait(WAIT_S)) as (url, model):
        with Drive(plan(url, Users(users=8), transport=transport)) as drive:
            drive.until(lambda: model.now == 8)
            assert drive.loop.in_flight == 8
            gate.set()
            drive.until(lambda: model.num_requests > 100)
            drive.source.set_users(2)
            drive.until(lambda: drive.loop.in_flight == 2)
            drive.source.set_users(5)
            drive.until(lambda: drive.loop.in_flight == 5)
            drive.finish()
        assert model.most == 8


def test_every_request_is_counted_once(transport):
    """What the intervals hold adds up to what was sent, and to what the server answered."""
    with serving() as (url, model), Drive(plan(url, Users(users=4), transport=transport)) as drive:
        drive.until(lambda: len(drive.intervals) >= 2 and model.num_requests >= 200)
        drive.finish()
        assert drive.total("sent") == len(drive.values("latencies")) == drive.total("responses") == model.num_requests
        assert len(drive.values("lag")) == model.num_requests
        assert drive.errors() == {}


def test_intervals_lie_side_by_side_on_multiples_of_a_quarter_second():
    """Each begins where the last one ended; only the last one, after the drain, may end anywhere."""
    with serving() as (url, _), Drive(plan(url, Users(users=1))) as drive:
        drive.until(lambda: len(drive.intervals) >= 3)
        drive.finish()
        edges = [0] + [end_ns for _, end_ns, _ in drive.intervals]
        assert [start_ns for start_ns, _, _ in drive.intervals] == edges[:-1]
        assert all(edge % INTERVAL_NS == 0 for edge in edges[:-1])


def test_no_latency_is_shorter_than_the_time_in_the_server(transport):
    """One request in ten is slow: every percentile is at least what the server itself took, median and tail."""
    with (
        serving(lambda number, _: time.sleep(0.1 if number % 10 == 9 else 0.01)) as (url, model),
        Drive(plan(url, Users(users=8), transport=transport)) as drive,
    ):
        drive.until(lambda: model.num_requests >= 200)
        drive.finish()
        service, latencies = drive.values("service"), drive.values("latencies")
    for quantile in (0.5, 0.9, 0.99, 1.0):
        assert np.quantile(service, quantile) >= np.quantile(model.took_ns, quantile)
        assert np.quantile(latencies, quantile) >= np.quantile(service, quantile)


def test_a_latency_is_the_lag_and_the_time_after_it(transport):
    """From when it should have left to when it did, and from there to the answer: nothing is lost in between."""
    with serving() as (url, model), Drive(plan(url, Users(users=4), transport=transport)) as drive:
        drive.until(lambda: model.num_requests >= 100)
        drive.finish()
        assert sum(drive.values("latencies")) == sum(drive.values("lag")) + sum(drive.values("service"))


def test_users_begin_at_their_rate():
    """The k-th user begins k / rate after the start, and not before."""
    gate = threading.Event()
    with serving(lambda *_: gate.wait(WAIT_S)) as (url, model):
        with Drive(plan(url, Users(users=5, spawn_rate=50.0))) as drive:
            drive.until(lambda: model.now == 5)
            gate.set()
            drive.finish()
            after_ns = np.sort(model.arrived_ns) - drive.started_ns
        assert all(after_ns[user] >= user * 20_000_000 for user in range(5))


def test_samples_are_sent_in_turn(transport):
    """Every request is another sample, from the first to the last and again."""
    with serving() as (url, model), Drive(plan(url, Users(users=3), transport=transport)) as drive:
        drive.until(lambda: model.num_requests >= 200)
        drive.finish()
    sent = [request.raw_input_contents[0] for request in model.requests]
    counts = [sent.count(value) for value in set(sent)]
    assert len(counts) == 64
    assert max(counts) - min(counts) <= 1


def test_a_mix_is_sent_by_weight():
    """Two models with weights of 3 and 1 get three quarters and one quarter of the requests, counted apart."""
    traffic = Traffic(model="m", weight=3.0), Traffic(model="n")
    with serving() as (url, model), Drive(plan(url, Users(users=4), *traffic)) as drive:
        drive.until(lambda: model.num_requests >= 1000)
        drive.finish()
        names = [request.model_name for request in model.requests]
        assert [drive.total("sent", lane) for lane in (0, 1)] == [names.count("m"), names.count("n")]
    assert names.count("m") / len(names) == pytest.approx(0.75, abs=0.06)


def test_failures_are_counted_by_their_class_and_a_user_pauses_after_one(transport):
    """The client's names of errors, one example each; who failed waits, so that the server is not flooded."""
    codes = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND]

    def refuse(number, context):
        context.abort(codes[number % 2], f"refusal of kind {number % 2}")

    with serving(refuse) as (url, model), Drive(plan(url, Users(users=2), transport=transport)) as drive:
        drive.until(lambda: model.num_requests >= 10)
        drive.finish()
        assert sum(drive.errors().values()) == model.num_requests
        assert set(drive.errors()) == {"ServerUnavailable", "ModelNotFound"}
        assert "refusal of kind 1" in drive.examples()["ModelNotFound"]
        assert drive.values("latencies") == []
        gaps_ns = np.diff(np.sort(model.arrived_ns))
        assert gaps_ns.sum() >= (model.num_requests // 2 - 1) * 20_000_000


def test_a_request_that_takes_too_long_has_failed(transport):
    """The deadline of the plan ends it."""
    gate = threading.Event()
    traffic = Traffic(model="m", timeout_s=0.1)
    with (
        serving(lambda *_: gate.wait(WAIT_S)) as (url, _),
        Drive(plan(url, Users(users=1), traffic, transport=transport)) as drive,
    ):
        drive.until(lambda: drive.lanes[0].errors or any(taken[0]["errors"] for _, _, taken in drive.intervals))
        gate.set()
        drive.finish()
        assert set(drive.errors()) == {"DeadlineExceeded"}


def test_a_server_that_is_not_there_is_an_error_per_attempt(transport):
    """Nobody listens: every user fails and pauses, nothing spins."""
    with Drive(plan("grpc://127.0.0.1:1", Users(users=4), transport=transport)) as drive:
        drive.until(lambda: sum(drive.lanes[0].errors.values()) >= 4)
        drive.finish()
        assert set(drive.errors()) == {"ServerUnavailable"}


@pytest.mark.parametrize("right", [True, False])
def test_answers_are_checked_with_the_sample_they_belong_to(right, transport):
    """Each answer goes to the check with the number of its sample; a wrong one is an error."""
    seen = []

    def check(index, answer, slot):
        seen.append((index, answer))
        return right

    with serving() as (url, model), Drive(plan(url, Users(users=3), transport=transport), check=check) as drive:
        drive.until(lambda: model.num_requests >= 10)
        drive.finish()
        assert [index for index, _ in seen] == [index % 64 for index in range(len(seen))] or {0, 1, 2} <= {
            index for index, _ in seen
        }
        assert all(answer == b"\n\x01m" for _, answer in seen)
        assert bool(drive.values("latencies")) is right
        assert drive.errors() == ({} if right else {"WrongAnswer": model.num_requests})


def test_what_does_not_end_within_the_drain_is_counted_as_unfinished(transport):
    """A server that hangs at the end cannot hide."""
    gate = threading.Event()
    with serving(lambda *_: gate.wait(WAIT_S)) as (url, model):
        with Drive(plan(url, Users(users=2), transport=transport)) as drive:
            drive.until(lambda: model.now == 2)
            drive.finish(0.1)
            assert drive.errors() == {"Unfinished": 2}
        gate.set()


@pytest.mark.parametrize("kind", ["poisson", "constant", "trace"])
def test_arrivals_leave_when_they_are_due_and_never_before(kind, transport, tmp_path):
    """Each request of a schedule reaches the server after its intended time, and its latency begins there."""
    dues_s = np.sort(np.random.default_rng(3).random(100))
    path = tmp_path / "trace"
    path.write_text("\n".join(map(str, dues_s)))
    load = Trace(path=path) if kind == "trace" else Rate(per_s=200.0, arrivals=kind)
    with serving() as (url, model), Drive(plan(url, load, transport=transport)) as drive:
        drive.until(lambda: model.num_requests >= 100)
        drive.finish()
        due_ns = np.array(
            [due for due, _, _ in itertools.islice(arrivals(load, [1.0], seed=0, shard=0, num_shards=1), 100)]
        )
        arrived_ns = np.sort(model.arrived_ns)[:100] - drive.started_ns
        assert (arrived_ns >= due_ns).all()
        assert min(drive.values("lag")) >= 0
        assert drive.total("sent") == model.num_requests


def test_what_left_late_because_the_engine_was_busy_counts_from_when_it_was_due(transport):
    """While the engine does something else for a while, arrivals wait: their lag and their latency say so."""
    load = Rate(per_s=100.0, arrivals="constant")
    with serving() as (url, model), Drive(plan(url, load, transport=transport)) as drive:
        drive.until(lambda: model.num_requests >= 5)
        time.sleep(0.3)
        drive.until(lambda: model.num_requests >= 50)
        drive.finish()
        lag_ns, latencies_ns, service_ns = map(drive.values, ("lag", "latencies", "service"))
    assert 0.28e9 < max(lag_ns) <= max(latencies_ns)
    assert sum(value > 0.1e9 for value in latencies_ns) >= 18  # those due in the first 0.2 s of the pause
    assert sum(latencies_ns) == sum(service_ns) + sum(lag_ns)


def test_arrivals_beyond_the_limit_are_failures_that_were_not_sent(transport):
    """With at most 3 in flight and a server that hangs, everything else fails at once."""
    gate = threading.Event()
    with serving(lambda *_: gate.wait(WAIT_S)) as (url, model):
        load = Rate(per_s=200.0, arrivals="constant", max_in_flight=3)
        with Drive(plan(url, load, transport=transport)) as drive:
            drive.until(lambda: drive.lanes[0].errors["NotSent"] >= 10)
            gate.set()
            drive.finish()
            assert model.most == 3
            assert drive.errors()["NotSent"] >= 10
            assert "3 requests were in flight" in drive.examples()["NotSent"]
            assert drive.total("sent") == model.num_requests


def test_a_schedule_that_is_too_fast_is_accounted_for():
    """A million arrivals a second: the engine still ends its intervals, stops, and each arrival was sent or failed."""
    with serving() as (url, model), Drive(plan(url, Rate(per_s=1e6, arrivals="constant", max_in_flight=2))) as drive:
        drive.until(lambda: len(drive.intervals) >= 2)
        before_ns = time.perf_counter_ns() - drive.started_ns
        drive.loop.drain()
        after_ns = time.perf_counter_ns() - drive.started_ns
        drive.finish()
        assert drive.total("sent") == model.num_requests
        accounted = drive.total("sent") + drive.errors()["NotSent"]
    assert before_ns // 1000 <= accounted <= after_ns // 1000 + 1


def test_a_schedule_goes_on_at_another_pace():
    """Nothing arrives at 0 times the rate, and the schedule goes on where it was at twice the rate."""
    with serving() as (url, model), Drive(plan(url, Rate(per_s=100.0, arrivals="constant"))) as drive:
        drive.until(lambda: model.num_requests >= 5)
        drive.source.set_users(0)
        sent = drive.lanes[0].sent
        time.sleep(0.1)
        drive.loop.turn()
        assert drive.lanes[0].sent == sent
        drive.source.set_users(2)
        first = model.num_requests
        drive.until(lambda: model.num_requests >= first + 20)
        drive.finish()
        dues_ns = np.sort(model.arrived_ns)[first : first + 20]
        assert dues_ns[-1] - dues_ns[0] >= 18 * 5_000_000 - 5_000_000
        assert max(drive.values("lag")) < 5_000_000_000


def test_an_exhausted_trace_says_when_its_last_arrival_was(tmp_path):
    """The schedule ends; what was sent drains."""
    path = tmp_path / "trace"
    path.write_text("0\n0.05\n0.1\n")
    with serving(at_once) as (url, model), Drive(plan(url, Trace(path=path))) as drive:
        drive.until(lambda: model.num_requests == 3)
        drive.finish()
        assert drive.source.exhausted_ns == 100_000_000
        assert len(drive.values("latencies")) == 3
