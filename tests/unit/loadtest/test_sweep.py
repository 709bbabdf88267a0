"""Runs along an axis, against servers that are formulas."""

from __future__ import annotations

from pathlib import Path

import pytest

from naiad.loadtest import LoadTest, Report, Slo, Traffic, Users, sweep
from sweep_helpers import SimulatedServer

TEST = LoadTest(traffic=Traffic(model="m"), duration_s=2.0, slos=(Slo.parse("p99<20ms"),))


def test_every_value_is_measured_and_the_knee_found() -> None:
    """Rates up to the capacity of one server: the knee is around half of it."""
    found = sweep(TEST, "rate=100,250,500,750,950", run=SimulatedServer())
    assert [point.value for point in found.points] == [100, 250, 500, 750, 950]
    assert found.knee is not None
    assert found.knee.low <= 500 <= found.knee.high
    assert found.points[0].met
    assert not found.points[-1].met


def test_the_order_may_be_random_and_the_result_is_sorted() -> None:
    """Of a seed, so that it is the same again."""
    servers = [SimulatedServer(), SimulatedServer()]
    for server in servers:
        found = sweep(TEST, "rate=100..800:6", run=server, shuffle=True)
        assert [point.value for point in found.points] == sorted(point.value for point in found.points)
    orders = [[test.load for test in server.tests] for server in servers]
    assert orders[0] == orders[1]
    assert orders[0] != sorted(orders[0], key=lambda load: load.per_s)  # type: ignore[union-attr]


def test_points_beyond_the_generator_are_marked() -> None:
    """They are in the result, as what they are."""
    found = sweep(TEST, "rate=100,200,400,800", run=SimulatedServer(ceiling_per_s=300))
    assert [point.generator_limited for point in found.points] == [False, False, True, True]
    assert found.knee is None


def test_ctrl_c_ends_it_with_the_points_there_are() -> None:
    """What was measured is not lost."""
    server = SimulatedServer()

    def run(test: LoadTest) -> Report:
        if len(server.tests) == 2:
            raise KeyboardInterrupt
        return server(test)

    found = sweep(TEST, "rate=100,200,400,800", run=run)
    assert found.interrupted
    assert [point.value for point in found.points] == [100, 200]


def test_the_result_has_the_report_of_the_knee() -> None:
    """The page of a sweep shows the run at the knee, and the curve."""
    found = sweep(TEST, "rate=100,300,500,700,900", run=SimulatedServer())
    assert found.knee is not None
    assert found.report is not None
    assert found.report.test.load.per_s == found.knee.value  # type: ignore[union-attr]
    content = found.to_json()
    assert content["knee"]["value"] == found.knee.value
    assert len(content["points"]) == 5


def test_users_may_be_swept() -> None:
    """The load of each run is a closed loop of so many."""
    server = SimulatedServer()
    sweep(TEST, "users=1..4", run=server)
    assert [test.load for test in server.tests] == [Users(users=1), Users(users=2), Users(users=4)]


@pytest.mark.parametrize("suffix", ["html", "json", "csv"])
def test_it_can_be_written(tmp_path: Path, suffix: str) -> None:
    """As the page, the document or the table of a report."""
    found = sweep(TEST, "rate=100,500,900", run=SimulatedServer())
    found.write(**{suffix: tmp_path / f"sweep.{suffix}"})
    assert (tmp_path / f"sweep.{suffix}").stat().st_size > 100
