"""Sequences and streams from engine processes to the real Triton."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import client_models
from naiad.client import Client
from naiad.loadtest import Connection, LoadTest, Rate, Sequence, Synthetic, Traffic, Users
from naiad.loadtest._engine.group import EngineGroup
from naiad.loadtest._engine.messages import Drained, Failed, Interval
from naiad.loadtest.latencies import Latencies
from naiad.server import EmbeddedTriton

WAIT_S = 60.0
BOTH = ("http2", "grpcio")
ONE = {"n": (1, 1), "gap_s": (0.0, 0.0), "size": (4, 4), "fail_at": (-1, -1), "mark_last": (0, 0)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    repository: Path = tmp_path_factory.mktemp("stateful")
    client_models.write_stateful(repository)
    with EmbeddedTriton(repository) as running:
        yield running


@pytest.fixture(params=[False, True], ids=["unary", "stream"])
def stream(request):
    """Sequences go over single calls and over streams."""
    return request.param


def totals(strategy, stream, **sequence):
    data = Synthetic(shapes={"x": (1,)})
    return Traffic(model=f"totals_{strategy}", data=data, sequence=Sequence(**sequence), stream=stream)


def parts(**inputs):
    return Traffic(model="parts", data=Synthetic(ranges={**ONE, **inputs}), stream=True)


def measure(server, traffic, load, enough, transport="http2"):
    """Send until the intervals are enough, drain, and return all of them."""
    connection = Connection(url=server.grpc_url)
    test = LoadTest(traffic=traffic, load=load, connection=connection, transport=transport)
    found, stopped, deadline_s = [], False, time.monotonic() + WAIT_S
    with EngineGroup(test) as group:
        group.start()
        while True:
            assert time.monotonic() < deadline_s, found[-3:]
            message = group.next_message(0.5)
            assert not isinstance(message, Failed), message
            if isinstance(message, Interval):
                found.append(message)
                if not stopped and enough(found):
                    stopped = True
                    group.stop()
            elif isinstance(message, Drained):
                return found


def merged(intervals, name):
    return Latencies.merged(getattr(interval, name) for interval in intervals)


def num_completed(intervals):
    return sum(interval.latencies.count for interval in intervals)


def num_known(server, model):
    """How many sequences the model remembers, besides the one that asks."""
    with Client(server.grpc_url) as client, client.model(model).sequence() as sequence:
        return int(sequence.infer({"x": np.zeros((1, 1), np.int32)}, end=True)["known"][0, 0])


@pytest.mark.parametrize("strategy", ["direct", "oldest"])
@pytest.mark.parametrize("transport", BOTH)
def test_sequences_end_on_the_server_too(strategy, stream, transport, server):
    """More users than the server has slots: no error, and afterwards it remembers no sequence but the asking one."""
    before = num_known(server, f"totals_{strategy}")
    traffic = totals(strategy, stream, length=(2, 6))
    found = measure(server, traffic, Users(users=4), lambda found: num_completed(found) >= 60, transport)
    assert [interval.errors for interval in found if interval.errors] == []
    assert sum(interval.sent for interval in found) == num_completed(found)
    assert num_known(server, f"totals_{strategy}") == before == 0


def test_a_run_that_ends_within_long_sequences_leaves_no_slot_taken(server):
    """Sequences of a thousand requests with pauses are cut short with their end."""
    traffic = totals("direct", False, length=(1000, 1000), pause_s=0.01)
    found = measure(server, traffic, Users(users=2), lambda found: num_completed(found) >= 20)
    assert [interval.errors for interval in found if interval.errors] == []
    assert num_known(server, "totals_direct") == 0


@pytest.mark.parametrize("transport", BOTH)
def test_parts_of_a_decoupled_answer_are_counted_and_timed(transport, server):
    """Five parts 20 ms apart: the first one comes early, the request ends with the last one."""
    traffic = parts(n=(5, 5), gap_s=(0.02, 0.02))
    found = measure(server, traffic, Users(users=2), lambda found: num_completed(found) >= 10, transport)
    assert [interval.errors for interval in found if interval.errors] == []
    number = num_completed(found)
    assert sum(interval.responses for interval in found) == 5 * number
    assert merged(found, "first_response").count == number
    assert merged(found, "between_responses").count == 4 * number
    assert merged(found, "between_responses").percentile_us(50) > 15_000
    assert merged(found, "latencies").percentile_us(0) >= 5 * 20_000 * 0.99
    assert merged(found, "first_response").percentile_us(100) < merged(found, "latencies").percentile_us(100)


@pytest.mark.parametrize("num_parts", [0, 1])
@pytest.mark.parametrize("marked", [0, 1])
def test_an_answer_ends_with_or_without_a_last_part(num_parts, marked, server):
    """The final response may be a part, or empty; there may be no part at all."""
    traffic = parts(n=(num_parts, num_parts), mark_last=(marked, marked))
    found = measure(server, traffic, Users(users=2), lambda found: num_completed(found) >= 10)
    assert [interval.errors for interval in found if interval.errors] == []
    assert sum(interval.responses for interval in found) == num_parts * num_completed(found)


def test_an_answer_that_breaks_is_one_error(server):
    """The second of three parts is an error: each request failed once, whatever else came for it."""
    traffic = parts(n=(3, 3), fail_at=(1, 1))
    enough = lambda found: sum(interval.errors.get("InferenceFailed", 0) for interval in found) >= 10  # noqa: E731
    found = measure(server, traffic, Users(users=2), enough)
    assert num_completed(found) == 0
    assert {name for interval in found for name in interval.errors} == {"InferenceFailed"}
    assert sum(sum(interval.errors.values()) for interval in found) == sum(interval.sent for interval in found)
    assert "part 1 broke" in next(text for interval in found for text in interval.examples.values())


def test_streams_open_as_arrivals_need_them(server):
    """An open loop over streams: what is in flight at a time is more than one, and nothing is lost."""
    traffic = parts(n=(2, 2), gap_s=(0.05, 0.05))
    load = Rate(per_s=60.0, arrivals="constant")
    found = measure(server, traffic, load, lambda found: num_completed(found) >= 30)
    assert [interval.errors for interval in found if interval.errors] == []
    assert max(interval.in_flight for interval in found) > 1
    assert sum(interval.sent for interval in found) == num_completed(found)
