"""The engine's loop driven by hand, against a gRPC server in this process whose behaviour a test decides."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from naiad.client import ModelMetadata, TensorMetadata
from naiad.loadtest import Connection, LoadTest, Rate, Traffic, Users
from naiad.loadtest._data.payloads import make_payloads
from naiad.loadtest._data.signature import Signature
from naiad.loadtest._engine.lane import Lane
from naiad.loadtest._engine.loop import Loop
from naiad.loadtest._engine.schedule import Mix, arrivals
from naiad.loadtest._engine.sources import Crowd, Timetable
from naiad.loadtest._wire.opening import open_wire

WAIT_S = 20.0
Behave = Callable[[int, grpc.ServicerContext], None]


def at_once(number: int, context: grpc.ServicerContext) -> None:
    pass


class Model(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers as it is told to, counts, and keeps what it was asked."""

    def __init__(self, behave: Behave) -> None:
        self.behave, self.lock = behave, threading.Lock()
        self.num_requests = self.now = self.most = 0
        self.requests: list[pb.ModelInferRequest] = []
        self.arrived_ns: list[int] = []
        self.took_ns: list[int] = []

    def ModelInfer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        arrived_ns = time.perf_counter_ns()
        with self.lock:
            number, self.num_requests = self.num_requests, self.num_requests + 1
            self.now += 1
            self.most = max(self.most, self.now)
            self.requests.append(request)
            self.arrived_ns.append(arrived_ns)
        try:
            self.behave(number, context)
        finally:
            with self.lock:
                self.now -= 1
                self.took_ns.append(time.perf_counter_ns() - arrived_ns)
        return pb.ModelInferResponse(model_name=request.model_name)

    def ModelStreamInfer(
        self, requests: Iterator[pb.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        """Answer with one response, which is the last, to each request."""
        for request in requests:
            answer = self.ModelInfer(request, context)
            answer.outputs.add(name="y", datatype="FP32", shape=[1])
            answer.parameters["triton_final_response"].bool_param = True
            yield pb.ModelStreamInferResponse(infer_response=answer)


@contextmanager
def serving(behave: Behave = at_once) -> Iterator[tuple[str, Model]]:
    model = Model(behave)
    server = grpc.server(ThreadPoolExecutor(64))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(model, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}", model
    finally:
        server.stop(None).wait()


class Drive:
    """A loop, and everything it reported."""

    def __init__(self, test: LoadTest, *, check: Any = None, stateful: bool = False) -> None:
        metadata = ModelMetadata(
            name="m",
            versions=("1",),
            platform="",
            inputs=(TensorMetadata(name="x", datatype="FP32", shape=(1,)),),
            outputs=(),
        )
        self.wire = open_wire(test.connection, transport=test.transport, connections=test.connections)
        self.lanes = []
        for index, traffic in enumerate(test.mix):
            payloads = make_payloads(traffic, Signature(metadata=metadata, stateful=stateful), seed=test.seed)
            payloads.check = check
            self.lanes.append(Lane(index, traffic, payloads, self.wire, url=test.connection.url))
        weights = [traffic.weight for traffic in test.mix]
        if isinstance(test.load, Users):
            self.source: Any = Crowd(
                self.lanes,
                Mix(weights, test.seed),
                users=test.load.users,
                spawn_rate=test.load.spawn_rate,
                shard=0,
                num_shards=1,
            )
        else:
            schedule = arrivals(test.load, weights, seed=test.seed, shard=0, num_shards=1)
            self.source = Timetable(self.lanes, schedule, max_in_flight=test.load.max_in_flight)
        self.intervals: list[tuple[int, int, list[dict[str, Any]]]] = []
        self.loop = Loop(self.wire, self.lanes, self.source, lambda *parts: self.intervals.append(parts))

    def __enter__(self) -> Drive:
        self.started_ns = time.perf_counter_ns()
        self.loop.start(self.started_ns)
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until something is so."""
        deadline_s = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline_s
            self.loop.turn()

    def finish(self, wait_s: float = WAIT_S) -> None:
        """Drain, and end the last interval."""
        self.loop.drain()
        end_s = time.monotonic() + wait_s
        while self.loop.busy and time.monotonic() < end_s:
            self.loop.turn()
        self.loop.finish()

    def total(self, name: str, lane: int = 0) -> int:
        return sum(taken[lane][name] for _, _, taken in self.intervals)

    def values(self, name: str, lane: int = 0) -> list[int]:
        return [value for _, _, taken in self.intervals for value in taken[lane][name]]

    def errors(self, lane: int = 0) -> dict[str, int]:
        return dict(sum((Counter(taken[lane]["errors"]) for _, _, taken in self.intervals), Counter()))

    def examples(self, lane: int = 0) -> dict[str, str]:
        return {name: text for _, _, taken in self.intervals for name, text in taken[lane]["examples"].items()}


def plan(url: str, load: Users | Rate, *traffic: Traffic, **fields: Any) -> LoadTest:
    """A load test of a model ``m``, whose requests time out late."""
    sent = traffic or (Traffic(model="m", timeout_s=WAIT_S),)
    return LoadTest(traffic=sent, load=load, connection=Connection(url=url), **fields)
