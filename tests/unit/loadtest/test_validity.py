"""Reasons to doubt a result."""

from dataclasses import replace

import pytest

from loadtest_samples import TEST, histogram, measured, measurement, quarters, server_times
from naiad.loadtest import Calibration, LoadTest, Rate, Traffic
from naiad.loadtest._truth.noise import MachineLoad
from naiad.loadtest._truth.steady import Steadiness
from naiad.loadtest._truth.validity import GENERATOR_KINDS, doubts
from naiad.loadtest._truth.window import Counted

CALIBRATION = Calibration(
    floor_p50_us=200.0,
    floor_p99_us=400.0,
    ceiling_per_s=10_000.0,
    cpu_us_per_request=90.0,
    request_bytes=100,
    answer_bytes=100,
)
QUIET = MachineLoad(steal_share=0.0, pressure_share=0.1, busy_share=0.6)


def kinds(found, test=TEST, **known):
    return {doubt.kind: doubt.invalid for doubt in doubts(test, found, **known)}


def test_a_good_run_is_not_doubted():
    """Half a core, every request in the server, both sides count the same: nothing to say."""
    found = replace(measurement(cpu_s=0.5), counted=Counted(client=1000, client_failed=0, server=1000))
    steady = Steadiness(steady=True, warmup_s=2.0, detected=True, reason="")
    assert kinds(found, steadiness=steady, calibration=CALIBRATION, machine_load=QUIET) == {}


def test_nothing_measured_is_a_failure_and_no_doubt():
    """Where no request succeeded there is no result to doubt."""
    assert doubts(TEST, measurement([], cpu_s=0.99)) == []


@pytest.mark.parametrize(
    ("cpu_s", "in_server", "expected"),
    [
        (0.69, 2.0, {}),
        (0.8, 4.0, {"generator_cpu": False}),
        (0.95, 4.0, {"generator_cpu": False}),
        (0.8, 2.0, {"generator_cpu": False, "in_flight": True}),
        (0.95, 2.0, {"generator_cpu": True, "in_flight": True}),
    ],
)
def test_a_busy_generator_spoils_a_result_only_where_the_server_went_hungry(cpu_s, in_server, expected):
    """As long as the server had the requests it was to have, it was the limit; else the generator was."""
    found = measurement(cpu_s=cpu_s, server=server_times(in_flight=in_server))
    assert kinds(found) == expected


def test_a_rate_near_the_generators_ceiling_is_the_generators():
    """9 of 10 thousand requests per second that it can send to anybody: the server might have answered more."""
    found = replace(measurement(cpu_s=0.8, server=server_times(in_flight=1.0)), completed=9000)
    assert kinds(found, calibration=CALIBRATION)["generator_cpu"]
    assert not kinds(found, calibration=replace(CALIBRATION, ceiling_per_s=30_000.0))["generator_cpu"]


def test_requests_on_the_way_are_no_ones_fault():
    """1.4 of 4 requests are on the way at this rate even with a server that does nothing: the server had the others."""
    found = measurement(cpu_s=0.8, server=server_times(in_flight=2.0))
    assert kinds(found)["in_flight"]
    assert "in_flight" not in kinds(found, calibration=replace(CALIBRATION, floor_p50_us=1400.0))


@pytest.mark.parametrize(
    ("lag_ms", "expected"), [(0.4, {}), (0.9, {}), (2.0, {"generator_lag": False}), (6.0, {"generator_lag": True})]
)
def test_requests_that_left_late_are_named(lag_ms, expected):
    """Of a p99 of 10 ms, lateness may be a tenth; from half on it is the generator that was measured."""
    window = quarters(0, 1, [1 + index % 1000 * 0.009 for index in range(1000)], lag=histogram([lag_ms] * 250))
    assert kinds(measured(*window, start_s=0, end_s=1)) == expected


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (10_050, {}),
        (10_300, {"foreign_load": False}),
        (20_000, {"foreign_load": True}),
        (9_000, {"counts": False}),
    ],
)
def test_both_sides_have_to_count_the_same(server, expected):
    """More in the server were requests of others; fewer were answered elsewhere."""
    found = replace(measurement(), counted=Counted(client=10_000, client_failed=0, server=server))
    assert kinds(found) == expected


def test_failed_requests_may_have_been_answered():
    """A request that timed out here may be a success there: it is no load of others."""
    found = replace(measurement(), counted=Counted(client=10_000, client_failed=900, server=10_900))
    assert kinds(found) == {}


def test_an_open_loop_that_outruns_the_server_is_true_but_has_no_steady_state():
    """100 arrive and 80 are answered each second: overload is what was asked for, and the result is valid."""
    test = LoadTest(traffic=Traffic(model="m"), load=Rate(per_s=100))
    window = [one for second in range(4) for one in quarters(second, second + 1, [50.0] * 80, sent=25, users=0)]
    found = measured(*window, start_s=0, end_s=4, test=test)
    not_steady = Steadiness(steady=False, warmup_s=30.0, detected=True, reason="not steady within 30 s")
    assert kinds(found, test, steadiness=not_steady) == {"overload": False}


def test_a_run_that_was_never_steady_and_still_moves_is_invalid():
    """Latency doubled within the window: there is no one number for it."""
    not_steady = Steadiness(steady=False, warmup_s=30.0, detected=True, reason="not steady within 30 s")
    level = [one for second in range(10) for one in quarters(second, second + 1, [5.0] * 200)]
    moving = [one for second in range(10) for one in quarters(second, second + 1, [5.0 + second] * 200)]
    assert kinds(measured(*level, start_s=0, end_s=10), steadiness=not_steady) == {"not_steady": False}
    assert kinds(measured(*moving, start_s=0, end_s=10), steadiness=not_steady) == {"not_steady": True}
    assert kinds(measured(*moving, start_s=0, end_s=10)) == {"drift": False}


def test_a_disturbed_machine_is_named():
    """Time stolen by the host, and waiting for a core, are in the latencies."""
    load = MachineLoad(steal_share=0.2, pressure_share=0.9, busy_share=1.0, engine_wait_share=0.3)
    texts = {doubt.kind: doubt.text for doubt in doubts(TEST, measurement(), machine_load=load)}
    assert set(texts) == {"machine", "generator_waited"}
    assert "30%" in texts["generator_waited"]


def test_what_makes_a_result_invalid_comes_first():
    """The reader sees the worst at once; kinds that mean the generator are told apart from the others."""
    found = replace(
        measurement(cpu_s=0.95, server=server_times(in_flight=1.0)),
        counted=Counted(client=10_000, client_failed=0, server=9_000),
    )
    listed = doubts(TEST, found)
    assert [doubt.invalid for doubt in listed] == sorted((doubt.invalid for doubt in listed), reverse=True)
    assert {doubt.kind for doubt in listed} - GENERATOR_KINDS == {"counts"}
