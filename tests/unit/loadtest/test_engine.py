"""The engine against a real gRPC server with a known behaviour."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from naiad.loadtest.engine import WRONG_ANSWER, Engine
from naiad.loadtest.latencies import Latencies

REQUEST = pb.ModelInferRequest(model_name="m").SerializeToString()
WAIT_S = 20.0


class Model(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers as it is told to, and counts."""

    def __init__(self, behave: Callable[[int, grpc.ServicerContext], None]) -> None:
        self.behave, self.lock = behave, threading.Lock()
        self.num_requests = self.now = self.most = 0

    def ModelInfer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        with self.lock:
            number, self.num_requests = self.num_requests, self.num_requests + 1
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self.behave(number, context)
        finally:
            with self.lock:
                self.now -= 1
        return pb.ModelInferResponse(model_name="m")


@contextmanager
def serving(behave: Callable[[int, grpc.ServicerContext], None]) -> Iterator[tuple[str, Model]]:
    model = Model(behave)
    server = grpc.server(ThreadPoolExecutor(32))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(model, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}", model
    finally:
        server.stop(None).wait()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def hold(gate: threading.Event) -> None:
    gate.wait(WAIT_S)


def at_once(number: int, context: grpc.ServicerContext) -> None:
    pass


def test_each_user_keeps_one_request_in_flight():
    """With 8 users, 8 requests are with the server and never more; fewer users leave as their requests end."""
    gate = threading.Event()
    with serving(lambda *_: hold(gate)) as (url, model):
        with Engine(url, "m", [REQUEST], timeout_s=WAIT_S) as engine:
            engine.set_users(8)
            wait_for(lambda: model.now == 8)
            assert engine.in_flight == 8
            gate.set()
            wait_for(lambda: model.num_requests > 100)
            engine.set_users(2)
            wait_for(lambda: engine.in_flight <= 2)
            assert engine.drain(WAIT_S) == 0
        assert model.most == 8


def test_every_request_is_counted_once():
    """What the engine hands over in parts adds up to what the server answered."""
    with serving(at_once) as (url, model), Engine(url, "m", [REQUEST], timeout_s=WAIT_S) as engine:
        engine.set_users(4)
        taken = 0
        while model.num_requests < 500:
            taken += len(engine.take().latencies_ns)
            time.sleep(0.01)
        assert engine.drain(WAIT_S) == 0
        taken += len(engine.take().latencies_ns)
        assert taken == model.num_requests


def test_no_latency_is_shorter_than_the_time_in_the_server():
    """One request in ten is slow: every percentile is at least what the server itself took, median and tail."""
    took_ns = []

    def behave(number: int, context: grpc.ServicerContext) -> None:
        start_ns = time.perf_counter_ns()
        time.sleep(0.1 if number % 10 == 9 else 0.01)
        took_ns.append(time.perf_counter_ns() - start_ns)

    with serving(behave) as (url, model), Engine(url, "m", [REQUEST], timeout_s=WAIT_S) as engine:
        engine.set_users(8)
        wait_for(lambda: model.num_requests >= 200)
        engine.drain(WAIT_S)
        measured, truth = Latencies(engine.take().latencies_ns), Latencies(took_ns)
    assert measured.count == truth.count
    for percentile in (0, 50, 90, 95, 99, 100):
        assert measured.percentile_us(percentile) >= truth.percentile_us(percentile)
    assert measured.percentile_us(95) >= 100_000


def test_failures_are_counted_by_class_and_slow_the_user_down():
    """A refused request is an error with an example; its user waits until it is told to go on."""

    def refuse(number: int, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")

    with serving(refuse) as (url, model), Engine(url, "m", [REQUEST], timeout_s=WAIT_S) as engine:
        engine.set_users(3)
        wait_for(lambda: model.num_requests == 3 and engine.in_flight == 0)
        engine.resume_paused()
        wait_for(lambda: model.num_requests == 6 and engine.in_flight == 0)
        taken = engine.take()
        assert (dict(taken.errors), taken.latencies_ns) == ({"Overloaded": 6}, [])
        assert "Exceeds maximum queue size" in taken.examples["Overloaded"]


def test_a_request_without_an_answer_fails_at_its_deadline():
    """A server that hangs gives deadline errors, not a run that never ends."""
    gate = threading.Event()
    with serving(lambda *_: hold(gate)) as (url, _):
        with Engine(url, "m", [REQUEST], timeout_s=0.2) as engine:
            engine.set_users(2)
            assert engine.drain(WAIT_S) == 0
            assert dict(engine.take().errors) == {"DeadlineExceeded": 2}
        gate.set()


def test_what_never_ends_is_left_when_the_drain_is_over():
    """The number of unfinished requests is known, and closing cancels them."""
    gate = threading.Event()
    with serving(lambda *_: hold(gate)) as (url, model):
        with Engine(url, "m", [REQUEST], timeout_s=WAIT_S) as engine:
            engine.set_users(2)
            wait_for(lambda: model.now == 2)
            assert engine.drain(0.1) == 2
        gate.set()


def test_a_server_that_is_not_there_is_an_error_per_attempt():
    """Nobody listens: every user fails and pauses, nothing spins."""
    with Engine("grpc://127.0.0.1:1", "m", [REQUEST], timeout_s=5.0) as engine:
        engine.set_users(4)
        wait_for(lambda: engine.in_flight == 0)
        assert dict(engine.take().errors) == {"ServerUnavailable": 4}


@pytest.mark.parametrize("right", [True, False])
def test_answers_are_checked_with_the_sample_they_belong_to(right):
    """Each answer goes to the check with the number of its sample; a wrong one is an error."""
    seen = set()

    def check(index: int, answer: bytes) -> bool:
        seen.add(index)
        assert pb.ModelInferResponse.FromString(answer).model_name == "m"
        return right

    with serving(at_once) as (url, model), Engine(url, "m", [REQUEST] * 3, timeout_s=WAIT_S, check=check) as engine:
        engine.set_users(3)
        wait_for(lambda: model.num_requests >= 3 and engine.in_flight == 0 if not right else model.num_requests >= 30)
        engine.drain(WAIT_S)
        taken = engine.take()
    assert seen == {0, 1, 2}
    assert bool(taken.latencies_ns) is right
    assert dict(taken.errors) == ({} if right else {WRONG_ANSWER: 3})
