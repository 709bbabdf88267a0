"""The server looked at while it works, and the load generator against one that does nothing."""

import threading
import time

import numpy as np
import pytest

from naiad.client import Client
from naiad.loadtest import Calibration, Connection, LoadTest, Traffic, Users, calibrate
from naiad.loadtest._data.target import connect, describe
from naiad.loadtest._engine.group import EngineGroup
from naiad.loadtest._engine.messages import Drained, Interval
from naiad.loadtest._truth.measurement import Measurement
from naiad.loadtest._truth.sampler import ServerSampler

MIX = (Traffic(model="linear"), Traffic(model="reloaded"))


def ask(url, model, times):
    with Client(url) as client:
        for _ in range(times):
            client.model(model)(x=np.zeros((1, 8), np.float32))


def test_samples_have_the_counters_of_each_model_and_what_the_server_uses(triton):
    """What is asked of a model between two samples is the difference of its counters, and of no other's."""
    with ServerSampler(Connection(url=triton.grpc_url), MIX) as sampler:
        sampler.start(time.perf_counter_ns())
        ask(triton.grpc_url, "linear", 20)
        sampler.stop()
        first, last = sampler.samples[0], sampler.samples[-1]
    spent = [last.snapshots[k].success_count - first.snapshots[k].success_count for k in range(2)]
    assert spent == [20, 0]
    assert last.rss_bytes > 10_000_000
    assert last.num_threads > 1
    assert last.cpu_s >= first.cpu_s
    assert sampler.notes == []


def test_samples_lie_on_whole_seconds_since_the_start(triton):
    """The samples of the thread are those of the run's clock, those that were asked for in between are of their own."""
    with ServerSampler(Connection(url=triton.grpc_url), MIX) as sampler:
        started_ns = time.perf_counter_ns()
        sampler.start(started_ns)
        while sum(sample.at_s >= 1 for sample in sampler.samples) < 2:
            time.sleep(0.05)
        at_s = (time.perf_counter_ns() - started_ns) / 1e9
        sampler.mark()
        samples = sampler.samples
    assert samples[0].at_s < 0
    assert samples[-1].at_s >= at_s
    seconds = [int(sample.at_s + 0.001) for sample in samples[1:-1]]
    assert seconds == sorted(set(seconds))
    assert seconds[0] >= 1


def test_a_server_that_does_not_answer_is_noted_once_and_ends_nothing():
    """Without a server there are no counters, one note, and no error."""
    with ServerSampler(Connection(url="grpc://127.0.0.1:1"), MIX) as sampler:
        sampler.start(time.perf_counter_ns())
        sampler.mark()
        sampler.stop()
        assert not any(sample.snapshots for sample in sampler.samples)
        assert len(sampler.notes) == 1
    assert "statistics" in sampler.notes[0]


def test_leaving_the_sampler_ends_its_thread(triton):
    """Nothing asks the server any more."""
    with ServerSampler(Connection(url=triton.grpc_url), MIX) as sampler:
        sampler.start(time.perf_counter_ns())
    assert "naiad-loadtest-sampler" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture(scope="module")
def measurement(triton):
    """Three seconds of two users on a mix: what the engine and the sampler said."""
    test = LoadTest(traffic=MIX, load=Users(users=2), connection=Connection(url=triton.grpc_url))
    with connect(test.connection) as client:
        targets = [describe(client, traffic) for traffic in MIX]
    intervals, stopped = [], False
    with EngineGroup(test) as group, ServerSampler(test.connection, MIX) as sampler:
        group.start()
        sampler.start(group.started_ns)
        while not isinstance(message := group.next_message(30), Drained):
            assert message is not None
            if isinstance(message, Interval):
                intervals.append(message)
                if message.end_s >= 3 and not stopped:
                    sampler.mark()
                    group.stop()
                    stopped = True
        sampler.stop()
        return Measurement.of(test, targets, intervals, sampler.samples, window=(1, 3))


def test_both_sides_count_the_same_requests(measurement):
    """From the first request to the last, every answer is in Triton's statistics, model by model."""
    assert measurement.counted is not None
    assert measurement.counted.client == measurement.counted.server > 100
    assert measurement.errors == {}


def test_the_servers_times_lie_within_what_the_client_measured(measurement):
    """The mean time in the server is shorter than the mean latency, and both models have their own."""
    assert [part.model for part in measurement.parts] == ["linear", "reloaded"]
    for part in (measurement, *measurement.parts):
        assert part.server is not None
        assert 0 < part.server.total_us < part.service.mean_us
        assert part.server.requests == pytest.approx(part.completed, rel=0.2)
    assert sum(part.server.requests for part in measurement.parts) == measurement.server.requests


def test_what_the_server_used_is_known_where_it_runs_here(measurement):
    """CPU time of Triton and its stubs within the window."""
    assert measurement.resources is not None
    assert 0 < measurement.resources.cpu_cores < 64
    assert measurement.resources.cpu_us_per_request > 1


def test_the_generator_knows_what_it_can_do(triton):
    """Against a server that does nothing requests are faster, and there are more of them, than Triton answers."""
    test = LoadTest(traffic=Traffic(model="linear"), load=Users(users=8), connection=Connection(url=triton.grpc_url))
    with connect(test.connection) as client:
        target = describe(client, test.mix[0])
    found = calibrate(test, target)
    assert isinstance(found, Calibration)
    assert 0 < found.floor_p50_us <= found.floor_p99_us
    assert found.ceiling_per_s > 100
    assert found.cpu_us_per_request > 0
    assert found.answer_bytes > 8
    assert f"{found.floor_p50_us:,.0f}" in found.text


def test_what_the_server_refuses_is_not_calibrated(triton):
    """Without an answer to repeat there is nothing to compare with; the run will show the errors."""
    good = LoadTest(traffic=Traffic(model="linear"), connection=Connection(url=triton.grpc_url))
    with connect(good.connection) as client:
        target = describe(client, good.mix[0])
    wrong = LoadTest(traffic=Traffic(model="linear", version="7"), connection=good.connection)
    assert calibrate(wrong, target) is None
