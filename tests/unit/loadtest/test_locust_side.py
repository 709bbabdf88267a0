"""What happens in a Locust process, in one of its own: importing Locust patches the standard library."""

import subprocess
import sys


def in_locust(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_locust_shows_what_the_engine_handed_over():
    """A batch of results counts as if each request had been logged, in Locust's milliseconds."""
    code = """
from naiad.loadtest.user import feed_statistics
from locust.stats import RequestStats
from naiad.loadtest.latencies import Latencies
from naiad.loadtest.measurement import Interval
stats = RequestStats()
latencies = Latencies([1_500_000] * 90 + [20_000_000] * 10)
for _ in range(2):
    interval = Interval(phase="window", start_s=0, end_s=1, users=1, latencies=latencies, errors={"E": 5})
    feed_statistics(stats, "m", interval)
for entry in (stats.total, stats.get("m", "grpc")):
    assert (entry.num_requests, entry.num_failures) == (210, 10)
    assert entry.get_response_time_percentile(0.5) == 1.5, entry.get_response_time_percentile(0.5)
    assert entry.get_response_time_percentile(0.99) == 20
    assert 19.9 < entry.max_response_time < 20.1
    assert 1.4 < entry.min_response_time < 1.6
    assert 3.3 < entry.avg_response_time < 3.4
assert [error.occurrences for error in stats.errors.values()] == [10]
feed_statistics(stats, "m", Interval(phase="window", start_s=0, end_s=1, users=1, latencies=Latencies()))
assert stats.total.num_requests == 210
"""
    in_locust(code)


def test_a_user_class_says_what_it_sends():
    """Class attributes make the traffic; options of the command line go before them, the host before both."""
    code = """
from naiad.loadtest import TritonUser
from locust.env import Environment
import argparse
class Mine(TritonUser):
    model, batch, seed = "digits", 4, 7
plain = Mine.traffic(Environment(user_classes=[Mine]))
assert (plain.model, plain.batch, plain.seed, plain.url) == ("digits", 4, 7, "grpc://127.0.0.1:8001")
options = argparse.Namespace(model="other", batch="2", seed=None, golden="", check=False, model_version="3")
given = Mine.traffic(Environment(user_classes=[Mine], parsed_options=options, host="grpc://h:1"))
assert (given.model, given.batch, given.seed, given.version, given.url) == ("other", 2, 7, "3", "grpc://h:1")
"""
    in_locust(code)


def test_the_locust_side_is_imported_only_on_demand():
    """The package leaves the standard library alone until TritonUser is asked for."""
    code = """
import socket, sys
plain = socket.socket
import naiad.loadtest
assert "gevent" not in sys.modules and socket.socket is plain
naiad.loadtest.TritonUser
assert "gevent" in sys.modules and socket.socket is not plain
"""
    in_locust(code)
