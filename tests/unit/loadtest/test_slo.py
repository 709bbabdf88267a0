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
        ("goodput>=95%", "goodput", 0.95),
        ("service_p99<5ms", "service_p99", 5000),
        ("First_Response_P99 < 0.5 s", "first_response_p99", 500_000),
        ("between_mean<20ms", "between_mean", 20_000),
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
        "goodput>95",
        "lag_p99<1ms",
        "service_throughput>1/s",
        "p99_service<1ms",
        "p99<20ms or so",
        "p99<20ms<30ms",
        "p99=20ms",
        "p99<-20ms",
    ],
)
def test_what_is_no_objective_is_refused_with_an_example(text):
    """The message shows how one is written and what was found."""
    with pytest.raises(InvalidSlo, match=r"p99<20ms.*found"):
        Slo.parse(text)


@pytest.mark.parametrize("text", ["p99>20ms", "throughput<10/s", "errors>1%", "goodput<95%", "between_p99>=1ms"])
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
        ("service_p50<6ms", True),
    ],
)
def test_an_objective_is_compared_with_what_was_measured(text, met):
    """1000 requests of 1 to 10 ms in one second."""
    assert Slo.parse(text).judge(measurement()).met is met


def test_a_limit_is_not_rounded():
    """20.001 ms are more than 20 ms."""
    assert not Slo.parse("max<=1.001ms").judge(measurement([1.002])).met
    assert Slo.parse("max<=1.001ms").judge(measurement([1.001])).met


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("p99<20", ""),
        ("p99 < 20 furlongs", "furlongs"),
        ("p999x<20ms", "p999x<20ms"),
        ("p99~20ms", "~20ms"),
        ("p99<<20ms", "<20ms"),
        ("p99>20ms", ">20ms"),
        ("p99<20ms please", "please"),
        ("latency<20ms", "latency<20ms"),
    ],
)
def test_the_message_points_at_what_is_wrong(text, wrong):
    """The objective is shown with a mark under its first wrong part; at the end, where one is missing."""
    with pytest.raises(InvalidSlo) as caught:
        Slo.parse(text)
    line, mark = str(caught.value).splitlines()[-2:]
    assert line[mark.index("^") :] == wrong


def test_an_objective_is_proven_where_the_whole_interval_meets_it():
    """The measured value alone decides whether it is met; the interval, whether the run was long enough to show it."""
    far, near = (Slo.parse(text).judge(measurement()) for text in ("p50<9ms", "p50<5.6ms"))
    assert (far.met, far.proven, far.note) == (True, True, "")
    assert (near.met, near.proven) == (True, False)
    assert near.interval is not None
    assert near.interval[0] < 5600 < near.interval[1]
    assert "met, but not proven" in near.note


def test_where_everything_failed_the_errors_are_measured():
    """All of 50 requests failed: that is a share of 100 %, and not too few requests to tell."""
    result = Slo.parse("errors<50%").judge(measurement([], errors={"E": 50}))
    assert (result.measured, result.met) == (1.0, False)


def test_a_maximum_is_met_but_proves_nothing():
    """What was seen was within the limit; of the longest request there is there is no interval."""
    result = Slo.parse("max<1s").judge(measurement())
    assert (result.met, result.proven) == (True, False)
    assert "no confidence interval" in result.note


def test_a_clear_miss_is_proven_too():
    """The run shows beyond doubt that the objective is missed."""
    result = Slo.parse("p50<2ms").judge(measurement())
    assert (result.met, result.proven, result.note) == (False, True, "")


def test_too_few_requests_cannot_meet_a_percentile():
    """A p99 of 50 requests is their maximum, so it is not called met; the note says how many it takes."""
    result = Slo.parse("p99<1s").judge(measurement([1.0] * 50))
    assert not result.met
    assert "it takes 100" in result.note


@pytest.mark.parametrize(
    "text", ["p50<1s", "throughput>0/s", "errors<50%", "mean<1s", "goodput>0%", "first_response_p50<1s"]
)
def test_nothing_measured_meets_nothing(text):
    """No objective is met by a run in which no request succeeded."""
    assert not Slo.parse(text).judge(measurement([])).met
