"""Objectives: how they are written, and how they come out."""

import pytest

from loadtest_samples import measurement
from naiad.loadtest import InvalidSlo, Slo


@pytest.mark.parametrize(
    ("text", "metric", "limit"),
    [
        ("p99<20ms", "p99", 20_000),
        ("P99 <= 1.5s", "p99", 1_500_000),
        ("p99.9<800us", "p99.9", 800),
        ("mean<3µs", "mean", 3),
        ("max<1s", "max", 1_000_000),
        ("throughput>1000/s", "throughput", 1000),
        ("inferences>=10/s", "inferences", 10),
        ("errors<0.1%", "errors", 0.001),
    ],
)
def test_an_objective_is_read(text, metric, limit):
    """Metric, direction, number and unit are understood; times become µs, shares fractions."""
    slo = Slo.parse(text)
    assert (slo.metric, slo.limit) == (metric, pytest.approx(limit))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p99",
        "p99<",
        "p99<20",
        "p99<20/s",
        "p0<1ms",
        "p100<1ms",
        "p<1ms",
        "speed>3/s",
        "throughput>3ms",
        "errors<1",
        "1<2",
    ],
)
def test_what_is_no_objective_is_refused_with_an_example(text):
    """The message shows how one is written and what was found."""
    with pytest.raises(InvalidSlo, match=r"p99<20ms.*found"):
        Slo.parse(text)


@pytest.mark.parametrize("text", ["p99>20ms", "throughput<10/s", "errors>1%"])
def test_an_objective_that_points_the_wrong_way_is_refused(text):
    """A latency is bounded from above and a rate from below: anything else is a slip."""
    with pytest.raises(InvalidSlo, match="is bounded with"):
        Slo.parse(text)


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("p99<10ms", True),
        ("p99<9ms", False),
        ("throughput>999/s", True),
        ("throughput>1001/s", False),
        ("errors<0.1%", True),
        ("max<9ms", False),
    ],
)
def test_an_objective_is_compared_with_what_was_measured(text, met):
    """1000 requests of 1 to 10 ms in one second."""
    assert Slo.parse(text).judge(measurement()).met is met


def test_a_limit_is_not_rounded():
    """20.001 ms are more than 20 ms."""
    assert not Slo.parse("max<=1.001ms").judge(measurement([1.002])).met
    assert Slo.parse("max<=1.001ms").judge(measurement([1.001])).met


def test_too_few_requests_cannot_meet_a_percentile():
    """A p99 of 50 requests is their maximum, so it is not called met; the note says how many it takes."""
    result = Slo.parse("p99<1s").judge(measurement([1.0] * 50))
    assert not result.met
    assert "it takes 100" in result.note


@pytest.mark.parametrize("text", ["p50<1s", "throughput>0/s", "errors<50%", "mean<1s"])
def test_nothing_measured_meets_nothing(text):
    """No objective is met by a run in which no request succeeded."""
    assert not Slo.parse(text).judge(measurement([])).met
