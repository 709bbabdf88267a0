"""The highest rate that keeps an objective, on simulated servers whose capacity is known."""

from __future__ import annotations

import pytest

from naiad.loadtest import Capacity, InvalidPlan, InvalidSlo, LoadTest, Rate, Report, Slo, Traffic, find_max
from sweep_helpers import SimulatedServer, capacity_mm1

TEST = LoadTest(traffic=Traffic(model="m"), duration_s=4.0)


def search(server: SimulatedServer, slo: str = "p99<20ms", **options: object) -> Capacity:
    known = {"budget_s": 300.0, "clock": server.clock, "run": server}
    return find_max(TEST, Slo.parse(slo), **{**known, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slo", "drift", "truth"),
    [
        ("p99<20ms", 0.0, capacity_mm1(1000, Slo.parse("p99<20ms"))),
        ("p90<10ms", 0.02, capacity_mm1(1000, Slo.parse("p90<10ms"))),
        ("mean<5ms", 0.0, 800.0),
    ],
)
def test_the_interval_covers_the_true_capacity(slo: str, drift: float, truth: float) -> None:
    """In at least 7 of 10 searches on M/M/1, also with a machine that drifts; nominally in 95 %."""
    found = [search(SimulatedServer(seed=seed, drift=drift), slo, within=0.1) for seed in range(10)]
    covered = [each.low <= truth <= each.high for each in found if each.low and each.high]
    assert len(covered) == 10
    assert sum(covered) >= 7
    assert all(0.85 < each.per_s / truth < 1.15 for each in found if each.per_s)


def test_a_server_without_chance_is_found_too() -> None:
    """M/D/1: 718 requests/s keep p99 below 8 ms, as a long simulation says."""
    found = [search(SimulatedServer(seed=seed, service="constant"), "p99<8ms") for seed in range(4)]
    assert sum(each.low <= 718 <= each.high for each in found if each.low and each.high) >= 3


def test_the_answer_states_its_confidence() -> None:
    """One line says objective, interval and confidence; the points say what it comes from."""
    found = search(SimulatedServer(), "p90<10ms", confidence=0.9)
    assert found.found
    assert "p90<10ms up to" in found.text
    assert "90% confidence" in found.text
    content = found.to_json()
    assert content["maximum"]["low"] < content["maximum"]["value"] < content["maximum"]["high"]
    assert len(content["points"]) == len(found.points)


def test_a_wider_interval_takes_fewer_runs() -> None:
    """Whoever wants it less exact waits less."""
    coarse, fine = search(SimulatedServer(), within=0.3, repeats=3), search(SimulatedServer(), within=0.04)
    assert len(coarse.points) < len(fine.points)


def test_the_edge_gets_longer_runs_than_the_bracket() -> None:
    """Short runs find the neighbourhood, full ones the edge."""
    found = search(SimulatedServer(), "p90<10ms")
    full = [point.rate_per_s for point in found.points if point.full]
    assert not found.points[0].full
    assert full
    assert all(0.5 < rate / (found.per_s or 1) < 2 for rate in full)


def test_an_objective_that_no_rate_keeps_is_said_so() -> None:
    """A server that always takes longer than the limit."""
    found = search(SimulatedServer(always_ms=30), "p99<20ms")
    assert (found.found, found.low, found.high) == (False, None, None)
    assert "not even at" in found.text


def test_the_generators_ceiling_is_not_the_servers() -> None:
    """Where the load generator gives up first, the answer is "at least"."""
    found = search(SimulatedServer(ceiling_per_s=300), "p99<20ms")
    assert not found.found
    assert found.high is None
    assert found.low is not None
    assert found.low <= 300
    assert "at least" in found.text
    assert "load generator" in found.text


def test_the_highest_allowed_rate_may_keep_it() -> None:
    """Nothing above it is tried."""
    server = SimulatedServer()
    found = search(server, low=50, high=200)
    assert found.low == 200
    assert found.high is None
    assert max(test.load.per_s for test in server.tests if isinstance(test.load, Rate)) == 200


def test_the_time_may_be_over_before() -> None:
    """The interval is then as wide as it is, and says why."""
    server = SimulatedServer()
    found = search(server, budget_s=25.0)
    assert server.now_s < 45
    assert "time was over" in found.text


def test_ctrl_c_gives_what_is_known() -> None:
    """An interrupted search is no lost one."""
    server = SimulatedServer()

    def run(test: LoadTest) -> Report:
        if len(server.tests) == 12:
            raise KeyboardInterrupt
        return server(test)

    found = find_max(TEST, Slo.parse("p99<20ms"), run=run, clock=server.clock)
    assert len(found.points) == 11  # the first run was the closed loop
    assert "interrupted" in found.text


def test_several_objectives_count_by_the_one_that_breaks_first() -> None:
    """p99 below 20 ms breaks long before p50 below 20 ms does."""
    server = SimulatedServer()
    both = find_max(
        TEST, (Slo.parse("p50<20ms"), Slo.parse("p99<20ms")), run=server, clock=server.clock, budget_s=300.0
    )
    truth = capacity_mm1(1000, Slo.parse("p99<20ms"))
    assert both.per_s is not None
    assert both.per_s == pytest.approx(truth, rel=0.15)


@pytest.mark.parametrize("slo", ["throughput>100/s", "goodput>95%"])
def test_objectives_that_load_does_not_break_are_refused(slo: str) -> None:
    """There is no highest rate for them."""
    with pytest.raises(InvalidSlo, match="more load breaks"):
        search(SimulatedServer(), slo)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"low": 0.0}, "low is a number"),
        ({"low": 10.0, "high": 5.0}, "low is below high"),
        ({"confidence": 95.0}, "confidence is a fraction"),
        ({"within": 5.0}, "within is a fraction"),
        ({"repeats": 1}, "repeats is at least 3"),
        ({"budget_s": 0.0}, "budget_s"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, float], words: str) -> None:
    """Before anything is sent."""
    server = SimulatedServer()
    with pytest.raises(InvalidPlan, match=words):
        search(server, **options)
    assert not server.tests
