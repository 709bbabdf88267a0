"""Which requests count where."""

import pytest

from loadtest_samples import interval, measurement, server_times
from naiad.loadtest import Measurement
from naiad.loadtest.measurement import Interval
from naiad.loadtest.validity import foreign_load, generator_limits, is_of_this_run


def measured(*intervals: Interval) -> Measurement:
    return Measurement.of(intervals, rows_per_request=3, server=None)


def test_the_warm_up_is_not_measured():
    """Slow first requests appear nowhere."""
    result = measured(interval("warmup", 0, 5, [900.0] * 10, errors={"E": 4}), interval("window", 5, 6, [1.0] * 10))
    assert (result.throughput, result.inferences, result.failed) == (10, 30, 0)
    assert result.value("max") == pytest.approx(1000, rel=0.002)


def test_what_was_in_flight_at_the_end_counts_for_latency_but_not_for_throughput():
    """A server that hangs at the end shows in the percentiles and errors; its late answers give no throughput."""
    late = interval("drain", 6, 9, [3000.0] * 10, errors={"Unfinished": 1})
    result = measured(interval("window", 5, 6, [1.0] * 10), late)
    assert (result.throughput, result.failed) == (10, 1)
    assert result.value("p99") == pytest.approx(3e6, rel=0.002)
    assert result.error_share == pytest.approx(1 / 21)


def test_a_frozen_second_is_seen_over_time():
    """A stretch without an answer is a point with throughput 0, not a gap."""
    result = measured(
        interval("window", 0, 1, [1.0] * 50), interval("window", 1, 2, []), interval("window", 2, 3, [1.0] * 50)
    )
    assert [point.throughput for point in result.points] == [50, 0, 50]
    assert result.points[1].p99_us is None


def test_a_long_run_has_a_bounded_number_of_points():
    """A report of 20 minutes is no larger than one of two, and loses no request."""
    result = measured(*(interval("window", second, second + 1, [1.0]) for second in range(1200)))
    assert len(result.points) <= 240
    assert sum(point.throughput * 5 for point in result.points) == pytest.approx(1200)


def test_a_run_that_never_reached_its_window_measured_nothing():
    """Rates are 0 and shares unknown, without a division by zero."""
    result = measured(interval("warmup", 0, 1, [1.0]), interval("drain", 1, 2, [1.0]))
    assert (result.latencies.count, result.throughput, result.cpu_share) == (0, 0, 0)
    assert (result.error_share, result.points) == (None, [])


def test_an_interval_survives_the_pipe():
    """What the engine says is what the report counts."""
    sent = interval("window", 1.5, 2.0, [1.0, 2.0], errors={"E": 2}, examples={"E": "why"}, cpu_s=0.2)
    found = Interval.from_json(sent.to_json())
    assert list(found.latencies.counts()) == list(sent.latencies.counts())
    assert (found.errors, found.examples, found.cpu_s, found.phase) == ({"E": 2}, {"E": "why"}, 0.2, "window")


def test_a_busy_generator_is_named_as_the_limit():
    """Above 70 % of a core, the result may be the generator's."""
    assert generator_limits(measurement(cpu_s=0.69)) == []
    (limit,) = generator_limits(measurement(cpu_s=0.9))
    assert "90%" in limit


def test_requests_that_were_not_in_the_server_are_named():
    """By Little's law fewer than half of the requests in flight were in the server."""
    (limit,) = generator_limits(measurement(server=server_times(in_flight=1.9)))
    assert "of 4 requests in flight only 1.9 were in the server" in limit


def test_requests_of_others_are_named():
    """The server counted twice the requests that this run sent."""
    assert foreign_load(measurement(server=server_times(requests=1040))) == []
    (warning,) = foreign_load(measurement(server=server_times(requests=2000)))
    assert "about 1,000 requests of others" in warning


def test_counters_that_miss_requests_are_not_of_this_run():
    """A server that counted far fewer requests than were answered began anew in between."""
    assert is_of_this_run(server_times(requests=992), completed=1000, users=4)
    assert not is_of_this_run(server_times(requests=991), completed=1000, users=4)
