"""Are the numbers true? Measured percentiles against a server that knows how long it really held each request.

The truth is what the server's process wrote down in the same run, by the clock that all processes of the machine share.
Between that clock and the engine's lies the way there and back, which is the machine's. A measured percentile has to
lie between that of the truth and that of the truth with the machine's delays added to each request: thrice what an
ordinary client, that asks the same server a hundred times a second whether it lives, waited beyond what is usual, and
twice the lag that the engine reported. (A busy machine delays some requests by much, which moves the median of all.)
On a quiet machine both are the same, and 2 % (or 100 µs) on either side is what is compared.
"""

from __future__ import annotations

import itertools
import threading
import time
from functools import partial

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from naiad.loadtest import Connection, LoadTest, Rate, Traffic, Users
from naiad.loadtest._engine.group import EngineGroup
from naiad.loadtest._engine.messages import Drained, Failed, Interval
from naiad.loadtest._engine.schedule import arrivals
from naiad.loadtest.latencies import Latencies
from programmed_server import MODEL, Holds, ProgrammedServer

HOLDS = Holds(median_ms=60.0, low_ms=40.0, high_ms=100.0, tail_share=0.02, tail_ms=300.0, far_share=0.004, far_ms=600.0)
BODY_ONLY = Holds(median_ms=25.0, low_ms=15.0, high_ms=45.0, tail_share=0.0)
PERCENTILES = (50.0, 99.0, 99.9)
USUAL_NS = 1_000_000
"""What a call that does nothing takes through gRPC's Python server and client on a quiet machine."""
FREEZE_S = 2.0


class Run:
    """A load that is sent until enough has ended."""

    def __init__(self, server, load, *, num=1, seed=0):
        self.load, self.seed = load, seed
        test = LoadTest(
            traffic=Traffic(model=MODEL),
            load=load,
            connection=Connection(url=server.url),
            seed=seed,
            engines=num,
        )
        self.group = EngineGroup(test)
        self.intervals: list[Interval] = []
        self.stopped = False

    def __enter__(self):
        self.group.start()
        return self

    def __exit__(self, *_):
        self.group.close()

    def follow(self, until):
        """Take what comes until the condition holds, then stop and take the rest."""
        while True:
            message = self.group.next_message(0.2)
            assert not isinstance(message, Failed), message
            if isinstance(message, Interval):
                self.intervals.append(message)
            elif isinstance(message, Drained):
                assert [interval.errors for interval in self.intervals if interval.errors] == []
                return
            if not self.stopped and until(self):
                self.stopped = True
                self.group.stop()

    @property
    def num_completed(self):
        return sum(interval.latencies.count for interval in self.intervals)

    def merged(self, name="latencies"):
        return Latencies.merged(getattr(interval, name) for interval in self.intervals)

    def due_ns(self, number):
        """When the first arrivals of the schedule should have left."""
        schedule = arrivals(self.load, [1.0], seed=self.seed, shard=0, num_shards=1)
        return self.group.started_ns + np.array([due for due, _, _ in itertools.islice(schedule, number)])


def nearest_rank(values_ns, percentile):
    return float(np.percentile(values_ns, percentile, method="inverted_cdf"))


class Probe:
    """An ordinary client that asks a server whether it lives, a hundred times a second, whatever that takes."""

    def __init__(self, server):
        self.server = server
        self.calls: list[tuple[int, int]] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def run(self):
        with grpc.insecure_channel(self.server.url.removeprefix("grpc://")) as channel:
            ask = service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerLive
            ask(service_pb2.ServerLiveRequest(), wait_for_ready=True)
            due_ns = time.perf_counter_ns()
            while not self.over.wait(max(0, due_ns - time.perf_counter_ns()) / 1e9):
                ask.future(service_pb2.ServerLiveRequest()).add_done_callback(partial(self.note, due_ns))
                due_ns += 10_000_000

    def note(self, due_ns, _):
        self.calls.append((due_ns, time.perf_counter_ns()))

    def took_ns(self):
        """How long the calls took from when they were due, but for those that met a freeze."""
        frozen = self.server.freezes
        return [end - due for due, end in self.calls if not any(due < thaw and end > stop for stop, thaw in frozen)]

    def delayed(self, truth_ns, lag):
        """Return the truth as it would be with the machine's delays on the way of each request."""
        draw, number = np.random.default_rng(0).choice, len(truth_ns)
        beyond_ns = np.maximum(np.array(self.took_ns()) - USUAL_NS, 0)
        lag_us, counts = np.array(list(lag.counts())).T
        return truth_ns + 3 * draw(beyond_ns, number) + draw(lag_us, (2, number), p=counts / counts.sum()).sum(0) * 1e3


def assert_true(run, truth_ns, probe):
    """Compare every percentile; all of them are shown where one is wrong."""
    measured = run.merged()
    assert measured.count == len(truth_ns)
    delayed_ns, rows = probe.delayed(truth_ns, run.merged("lag")), []
    for percentile in PERCENTILES:
        truth, latest = nearest_rank(truth_ns, percentile), nearest_rank(delayed_ns, percentile)
        slack = max(0.02 * truth, 100_000.0)
        rows.append((percentile, truth - slack, measured.percentile_us(percentile) * 1e3, latest + slack))
    shown = [tuple(round(value / 1e6, 3) for value in row[1:]) for row in rows]
    assert all(low <= found <= high for _, low, found, high in rows), f"(lowest, measured, highest) in ms: {shown}"


def test_a_closed_loop_measures_what_the_server_knows():
    """24 users of two engines: p50, p99 and p99.9 are those of the times for which the server held their requests."""
    with ProgrammedServer(HOLDS, seed=1) as server:
        with Probe(server) as probe, Run(server, Users(users=24), num=2) as run:
            run.follow(lambda run: run.num_completed >= 1000)
        record = server.record()
    assert_true(run, record.held_ns, probe)


def test_an_open_loop_measures_what_the_server_knows():
    """Arrivals on a schedule: the latencies from when they were due are the server's times, too."""
    with ProgrammedServer(HOLDS, seed=2) as server:
        with Probe(server) as probe, Run(server, Rate(per_s=350.0), seed=7) as run:
            run.follow(lambda run: run.num_completed >= 1000)
        record = server.record()
    assert_true(run, record.held_ns, probe)


def test_an_open_loop_shows_a_frozen_server_and_a_naive_loop_does_not():
    """The server stops for two seconds. What had arrived on the schedule waited, and p99 says for how long.

    The truth of the open loop is the schedule and the server's answers: answer k came that long after arrival k was
    due. A closed loop against a server frozen in the same way sends nothing in the meantime: its p99 shows nothing.
    """
    with ProgrammedServer(BODY_ONLY, seed=3) as server, ProgrammedServer(BODY_ONLY, seed=4) as other:
        with (
            Probe(server) as probe,
            Run(server, Rate(per_s=150.0), seed=5) as run,
            Run(other, Users(users=4)) as naive,
        ):
            at_ns = time.perf_counter_ns() + 1_000_000_000
            server.freeze(at_ns, FREEZE_S)
            other.freeze(at_ns, FREEZE_S)
            run.follow(lambda run: len(server.freezes) == 1 and run.num_completed >= 750)
            naive.follow(lambda naive: len(other.freezes) == 1 and naive.num_completed >= 800)
        record = server.record()
    order = np.argsort(record.arrived_ns)
    truth_ns = record.answered_ns[order] - run.due_ns(len(order))
    assert nearest_rank(truth_ns, 99) > 0.9 * FREEZE_S * 1e9
    assert_true(run, truth_ns, probe)
    assert naive.merged().percentile_us(99) < 0.3 * FREEZE_S * 1e6
    assert naive.merged().percentile_us(100) > 0.9 * FREEZE_S * 1e6
