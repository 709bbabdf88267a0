"""The knee of a latency-throughput curve, against formulas that say where it is."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from naiad.loadtest._sweep.knee import Knee, NoKnee, find_knee
from naiad.loadtest._sweep.point import Point


def curve(values: list[float], times: Callable[[float], tuple[float, float]], **fields: object) -> list[Point]:
    """Points with the throughput and mean latency (µs) that a formula gives for each value."""
    return [point(value, *times(value), **fields) for value in values]


def point(value: float, per_s: float, mean_us: float, **fields: object) -> Point:
    known = {
        "value": value,
        "throughput_per_s": per_s,
        "inferences_per_s": per_s,
        "mean_us": mean_us,
        "p50_us": mean_us,
    }
    return Point(**{**known, **fields})  # type: ignore[arg-type]


def mm_c(servers: int, service_per_s: float) -> Callable[[float], tuple[float, float]]:
    """M/M/c: the mean time in the system by Erlang's C formula."""

    def times(rate: float) -> tuple[float, float]:
        offered = rate / service_per_s
        terms = [offered**k / math.factorial(k) for k in range(servers)]
        last = offered**servers / math.factorial(servers) * servers / (servers - offered)
        waits = last / (sum(terms) + last)
        return rate, (waits / (servers * service_per_s - rate) + 1 / service_per_s) * 1e6

    return times


def test_of_one_server_it_is_half_its_capacity() -> None:
    """Kleinrock: the power of M/M/1 is greatest at half the load."""
    found = find_knee(curve([float(rate) for rate in range(50, 1000, 50)], mm_c(1, 1000.0)))
    assert isinstance(found, Knee)
    assert found.value == 500
    assert found.low < 500 < found.high


def test_of_several_servers_it_is_where_the_formula_has_it() -> None:
    """M/M/4: the greatest power on a fine grid lies in the interval that a coarse sweep gives."""
    times = mm_c(4, 250.0)
    best = max(range(10, 1000, 2), key=lambda rate: times(rate)[0] / times(rate)[1])
    found = find_knee(curve([100.0, 200, 300, 400, 500, 600, 700, 800, 900], times))
    assert isinstance(found, Knee)
    assert found.low <= best <= found.high


def test_of_a_closed_loop_without_chance_it_is_where_nothing_idles_and_nobody_waits() -> None:
    """Ten users on a pipe that holds ten: fewer leave it empty, more only wait."""
    found = find_knee(curve([1, 2, 5, 10, 20, 40], lambda n: (min(n, 10) * 100.0, max(n, 10) * 1000.0)))
    assert isinstance(found, Knee)
    assert (found.value, found.low, found.high) == (10, 10, 10)


def test_a_recorded_curve_has_one() -> None:
    """A small net with dynamic batching, users 1 to 64, as measured on two cores."""
    measured = {1: (1550, 620), 4: (3120, 1260), 8: (4445, 1770), 16: (5900, 2680), 32: (6900, 4600)}
    found = find_knee([point(users, per_s, mean_us) for users, (per_s, mean_us) in measured.items()])
    assert isinstance(found, Knee)
    assert found.value == 8
    assert found.high < 32
    assert "knee at 8 (between 1 and 8)" in found.text


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (lambda n: (n * 100.0, 1000.0), "sweep further"),
        (lambda n: (1000.0, n * 1000.0), "begin lower"),
    ],
)
def test_a_curve_without_one_says_so(times: Callable[[float], tuple[float, float]], words: str) -> None:
    """A server that was never loaded, and one that was saturated from the start."""
    found = find_knee(curve([1, 2, 4, 8, 16], times))
    assert isinstance(found, NoKnee)
    assert words in found.reason


def test_points_that_the_generator_limited_are_not_used() -> None:
    """Where the load generator was the limit, its knee is not the server's."""
    good = curve([1.0, 2, 4], lambda n: (n * 100.0, 1000.0))
    limited = curve([8.0, 16], lambda n: (410.0, n * 1e6), valid=False, generator_limited=True)
    found = find_knee([*good, *limited])
    assert isinstance(found, NoKnee)
    assert "up to 4" in found.reason


def test_two_points_are_no_curve() -> None:
    """The reason says how many there were."""
    found = find_knee(curve([1.0, 2], lambda n: (n, 1.0)))
    assert isinstance(found, NoKnee)
    assert "2 of 2 points" in found.reason


def test_noise_as_large_as_the_difference_widens_the_knee() -> None:
    """Points whose power is within the interval of the best one's are named with it."""
    values = [10.0, 20, 40, 80, 160]
    powers = {10: 0.5, 20: 0.93, 40: 1.0, 80: 0.9, 160: 0.4}
    sharp = find_knee([point(v, powers[int(v)], 1.0, p50_interval_us=(0.99, 1.01)) for v in values])
    blurred = find_knee([point(v, powers[int(v)], 1.0, p50_interval_us=(0.8, 1.2)) for v in values])
    assert isinstance(sharp, Knee)
    assert isinstance(blurred, Knee)
    assert (sharp.low, sharp.high) == (40, 40)
    assert (blurred.low, blurred.high) == (20, 80)
