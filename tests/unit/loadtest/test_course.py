"""Where a run stands, decided from intervals alone."""

import pytest

from naiad.loadtest import LoadTest, Precision, Rate, Trace, Traffic, Users
from naiad.loadtest._engine.messages import Interval
from naiad.loadtest._run.course import Course
from naiad.loadtest.latencies import Latencies

LEVEL_MS = [9.0, 10.0, 11.0] * 10


def plan(load=None, **fields):
    return LoadTest(traffic=Traffic(model="m"), load=load or Users(users=2), **fields)


def follow(course, until_s, *, engines=1, since_s=0.0, latencies_ms=LEVEL_MS, errors=None):
    """Hand over intervals of a quarter second, engine by engine; stop where the window ends."""
    for slot in range(round(since_s * 4), round(until_s * 4)):
        for engine in range(engines):
            latencies = Latencies([round(latency * 1e6) for latency in latencies_ms])
            course.add(
                Interval(
                    engine=engine,
                    start_s=slot / 4,
                    end_s=(slot + 1) / 4,
                    users=2,
                    latencies=latencies,
                    errors=errors or {},
                )
            )
        if course.phase == "drain":
            return


def test_a_given_warmup_and_duration_are_kept_to_the_quarter_second():
    """The window begins after the warm-up and has the length that was asked for."""
    course = Course(plan(warmup_s=0.5, duration_s=2))
    follow(course, 10)
    assert course.window == (0.5, 2.5)
    assert not course.steadiness.detected


def test_the_warmup_counts_from_when_all_users_are_there():
    """Four users at two a second are there after two seconds."""
    course = Course(plan(Users(users=4, spawn_rate=2), warmup_s=1, duration_s=1))
    follow(course, 10)
    assert course.window == (3.0, 4.0)


def test_a_level_run_is_found_steady_and_the_window_begins_at_a_whole_second():
    """The server's counters are read at whole seconds, so that is where a window found out begins."""
    course = Course(plan(duration_s=5))
    follow(course, 30)
    start_s, end_s = course.window
    assert course.steadiness.steady
    assert start_s == int(start_s)
    assert end_s - start_s >= 5


def test_a_run_that_never_becomes_steady_is_measured_after_the_longest_warmup():
    """Latencies that double every second are no steady state; the report says so."""
    course = Course(plan(max_warmup_s=4, duration_s=1))
    for second in range(12):
        follow(course, second + 1, since_s=second, latencies_ms=[2.0**second] * 30)
        if course.phase == "drain":
            break
    assert course.window[0] >= 4
    assert not course.steadiness.steady


def test_a_moment_counts_when_all_engines_have_spoken():
    """A window does not end on the word of the fastest engine."""
    course = Course(plan(warmup_s=0, duration_s=1, engines=2))
    for engine in (0, 1):
        course.add(Interval(engine=engine, start_s=0.0, end_s=0.25))
    for slot in range(1, 8):
        course.add(Interval(engine=0, start_s=slot / 4, end_s=(slot + 1) / 4))
    assert course.edge_s == 0.25
    assert course.phase == "window"


def test_a_window_goes_on_until_the_percentile_is_known_well_enough():
    """Level latencies are known within 5 % after the shortest window; wild ones are not by the longest."""
    level = Course(plan(warmup_s=0, duration_s=4, max_duration_s=20, precision=Precision(percentile=50, within=0.05)))
    follow(level, 40)
    wild = Course(plan(warmup_s=0, duration_s=4, max_duration_s=20, precision=Precision(percentile=50, within=0.01)))
    for slot in range(160):
        follow(wild, (slot + 1) / 4, since_s=slot / 4, latencies_ms=[1.0 + slot * 37 % 101] * 10)
        if wild.phase == "drain":
            break
    assert level.precision is not None
    assert level.precision.reached
    assert level.window[1] < 20
    assert wild.precision is not None
    assert not wild.precision.reached
    assert wild.window[1] == pytest.approx(20, abs=0.5)


def test_a_trace_ends_the_window_when_its_last_arrival_was_due(tmp_path):
    """All of a short trace is measured, steady or not."""
    course = Course(plan(Trace(path=tmp_path / "trace.txt")))
    follow(course, 1.5)
    course.exhausted(1.4)
    follow(course, 5, since_s=1.5)
    assert course.window == (0.0, 1.75)


def test_what_ends_by_itself_has_a_window_up_to_the_last_interval():
    """Locust's own run time ends such a run, not the plan's."""
    course = Course(plan(warmup_s=1, duration_s=1), ends_itself=True)
    follow(course, 6)
    course.close()
    assert course.window == (1.0, 6.0)


def test_a_run_that_is_closed_in_its_warmup_is_its_own_window():
    """Ctrl-C in the warm-up reports what there was."""
    course = Course(plan(Rate(per_s=10), warmup_s=100))
    follow(course, 2)
    course.close()
    assert course.window == (0.0, 2.0)


def test_a_run_that_is_closed_as_its_window_begins_is_its_own_window():
    """Nothing was measured after the warm-up, but something in it."""
    course = Course(plan(Rate(per_s=10), warmup_s=2))
    follow(course, 2)
    course.close()
    assert course.window == (0.0, 2.0)


def test_errors_are_counted_over_the_whole_run():
    """Also those of the warm-up, for whoever watches."""
    course = Course(plan(warmup_s=1, duration_s=1))
    follow(course, 3, errors={"ServerError": 2})
    assert course.num_errors == 2 * 8
