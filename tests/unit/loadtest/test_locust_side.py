"""What happens in a Locust process, in one of its own: importing Locust patches the standard library."""

from __future__ import annotations

import subprocess
import sys

import pytest

from naiad.loadtest._locust.clock import Offset


def in_locust(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_locust_shows_what_the_engine_handed_over():
    """A batch of results counts as if each request had been logged, to the microsecond."""
    code = """
from naiad.loadtest._locust.statistics import feed_statistics
from locust.stats import RequestStats
from naiad.loadtest import Latencies
from naiad.loadtest._engine.messages import Interval
stats = RequestStats()
latencies = Latencies([1_503_000] * 90 + [20_000_000] * 10)
for _ in range(2):
    feed_statistics(stats, "m", Interval(start_s=0, end_s=1, latencies=latencies, errors={"E": 5}))
for entry in (stats.total, stats.get("m", "grpc")):
    assert (entry.num_requests, entry.num_failures) == (210, 10)
    assert entry.get_response_time_percentile(0.5) == 1.503, entry.get_response_time_percentile(0.5)
    assert abs(entry.get_response_time_percentile(0.99) - 20) < 0.02
    assert 19.9 < entry.max_response_time < 20.1
    assert entry.min_response_time == 1.503
    assert 3.34 < entry.avg_response_time < 3.36
assert [error.occurrences for error in stats.errors.values()] == [10]
feed_statistics(stats, "m", Interval(start_s=0, end_s=1))
assert stats.total.num_requests == 210
"""
    in_locust(code)


def test_requests_of_ordinary_tasks_keep_their_microseconds():
    """Locust's own rounding, to whole milliseconds or two digits, is replaced by the buckets of our histograms."""
    code = """
from naiad.loadtest._locust.statistics import keep_microseconds
keep_microseconds()
from locust.stats import RequestStats
from naiad.loadtest import Latencies
stats = RequestStats()
times_ms = [0.001, 0.4567, 1.9994, 2.0481, 147.123, 3432.1, 58760.4]
for each in times_ms:
    stats.log_request("grpc", "m", each, 0)
ours = [us / 1000 for us, _ in Latencies([round(each * 1e6) for each in times_ms]).counts()]
assert sorted(stats.total.response_times) == ours, (sorted(stats.total.response_times), ours)
"""
    in_locust(code)


def test_a_user_class_says_what_it_sends():
    """Class attributes make the traffic; options of the command line go before them, the host before both."""
    code = """
from naiad.loadtest import Golden, Rate, TritonUser, Users
from locust.env import Environment
import argparse
from pathlib import Path
class Mine(TritonUser):
    model, batch, seed = "digits", 4, 7
plain = Mine.test(Environment(user_classes=[Mine]))
assert (plain.mix[0].model, plain.mix[0].batch, plain.seed) == ("digits", 4, 7)
assert (plain.connection.url, plain.load) == ("grpc://127.0.0.1:8001", Users(users=1))
options = argparse.Namespace(model="other", batch="2", seed=None, golden="g.npz", check=True, model_version="3")
options.rate_per_user = "2.5"
environment = Environment(user_classes=[Mine], parsed_options=options, host="grpc://h:1")
given = Mine.test(environment, seed_offset=1000)
traffic = given.mix[0]
assert (traffic.model, traffic.batch, traffic.version, traffic.check) == ("other", 2, "3", True)
assert (given.seed, given.connection.url, given.load) == (1007, "grpc://h:1", Rate(per_s=2.5))
assert traffic.data == Golden(path=Path("g.npz"))
assert Mine.load(environment, 4) == Rate(per_s=10)
"""
    in_locust(code)


def test_the_locust_side_is_imported_only_on_demand():
    """The package leaves the standard library alone until TritonUser is asked for."""
    code = """
import socket, sys
plain = socket.socket
import naiad.loadtest
naiad.loadtest.Scenario
assert "gevent" not in sys.modules and socket.socket is plain
naiad.loadtest.TritonUser
assert "gevent" in sys.modules and socket.socket is not plain
"""
    in_locust(code)


def test_the_master_is_conducted_without_gevent():
    """The process that looks at the server and writes the report stays as it is."""
    code = """
import sys
import naiad.loadtest._locust.master
import naiad.loadtest._locust.reporter
assert not {"gevent", "locust"} & set(sys.modules)
"""
    in_locust(code)


@pytest.mark.parametrize(("ahead_ns", "there_ns", "back_ns"), [(0, 10, 10), (5_000, 300, 20), (-7_000, 20, 900)])
def test_another_clock_is_known_to_half_a_round_trip(ahead_ns, there_ns, back_ns):
    """However unequal the two ways are; the shortest trip decides."""
    asked = []
    for left, slow in ((1_000_000, 50), (2_000_000, 1), (3_000_000, 7)):
        seen = left + there_ns * slow
        asked.append((left, seen + ahead_ns, seen + back_ns * slow))
    offset = Offset.of(asked, same_clock=False)
    assert abs(offset.ahead_ns - ahead_ns) <= offset.error_ns
    assert offset.error_ns <= (there_ns + back_ns + 1) // 2
    assert Offset.of(asked, same_clock=True) == Offset(0, 0)
