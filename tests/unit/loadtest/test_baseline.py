"""Baselines: written, refused, compared."""

import json

import pytest

from loadtest_samples import measurement
from naiad.loadtest.baseline import Baseline
from naiad.loadtest.errors import InvalidBaseline
from naiad.loadtest.plan import LoadTest, Rate, Trace, Traffic, Users

TEST = LoadTest(traffic=Traffic(model="m"), load=Users(users=4), duration_s=1)


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "baseline.json"
    Baseline.of(TEST, measurement()).write(path)
    return path


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return Baseline.read(path)


def test_a_baseline_is_read_as_it_was_written(stored):
    """Writing and reading changes nothing, and the file names no host."""
    assert Baseline.read(stored) == Baseline.of(TEST, measurement())
    assert set(json.loads(stored.read_text())["machine"]) == {"cores", "cpu", "system", "kernel", "governor", "turbo"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"models": "other"}, "another model"),
        ({"models": "m × 2 rows"}, "another model"),
        ({"load": "5 users"}, "another load"),
        ({"machine": {"cores": 512, "cpu": "other", "system": "Linux x86_64"}}, "another machine.*--any-machine"),
    ],
)
def test_a_baseline_that_says_nothing_about_this_run_is_refused(stored, fields, message):
    """Model, load and machine have to be the same."""
    with pytest.raises(InvalidBaseline, match=message):
        change(stored, **fields).check_comparable(TEST)


def test_another_machine_can_be_allowed(stored):
    """Whoever knows that two machines are alike may say so."""
    other = change(stored, machine={"cores": 512, "cpu": "other", "system": "Linux x86_64"})
    other.check_comparable(TEST, any_machine=True)


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"schema_version": 99}', '{"schema_version": 2, "models": 3}']
)
def test_what_is_no_baseline_is_refused(tmp_path, content):
    """A missing, empty, foreign or newer file is one clear error."""
    path = tmp_path / "baseline.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidBaseline, match=r"baseline\.json"):
        Baseline.read(path)


def test_a_baseline_tells_every_kind_of_load_from_the_others(tmp_path):
    """Users, rates with their arrivals, traces with their speed, and mixes with their shares are all different."""
    mixed = (Traffic(model="a", weight=3), Traffic(model="b", batch=8))
    loads = [Users(users=4), Rate(per_s=4), Rate(per_s=4, arrivals="constant"), Trace(path=tmp_path / "t"), Users()]
    tests = [LoadTest(traffic=Traffic(model="m"), load=load) for load in loads]
    tests += [LoadTest(traffic=mixed), LoadTest(traffic=mixed[:1]), LoadTest(traffic=mixed[1:])]
    for test in tests:
        stored = Baseline.of(test, measurement())
        for other in tests:
            if other is test:
                stored.check_comparable(other)
            else:
                with pytest.raises(InvalidBaseline):
                    stored.check_comparable(other)


def slower(factor):
    return measurement([(1 + index % 1000 * 0.009) * factor for index in range(1000)])


def test_slower_by_more_than_the_margin_is_a_regression(stored):
    """Twice the latency fails a margin of 25 % for every percentile; throughput did not change."""
    compared = {item.metric: item for item in Baseline.read(stored).compare(slower(2), 0.25)}
    assert {metric for metric, item in compared.items() if item.regressed} == {"p50", "p90", "p99"}
    assert compared["p99"].worse_by == pytest.approx(1, rel=0.01)


def test_within_the_margin_or_better_is_none(stored):
    """Ten per cent slower passes a margin of 25 %, twice as fast passes any."""
    baseline = Baseline.read(stored)
    assert not any(item.regressed for factor in (1.1, 0.5) for item in baseline.compare(slower(factor), 0.25))


def test_less_throughput_is_a_regression(stored):
    """Half the requests in the same time."""
    compared = Baseline.read(stored).compare(measurement([1.0] * 500), 0.25)
    assert [item.metric for item in compared if item.regressed] == ["throughput"]
