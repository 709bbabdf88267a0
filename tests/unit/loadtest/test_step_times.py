"""Where the time of an ensemble or a script went, from counters made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loadtest_samples import TARGET, TEST, measurement, quarters
from naiad.loadtest import Measurement
from naiad.loadtest._data.pipeline import Pipeline, Step
from naiad.loadtest._truth.resources import ServerSample
from naiad.loadtest._truth.server_times import ServerSnapshot
from naiad.loadtest._truth.step_times import PipelineTimes
from naiad.loadtest._truth.validity import doubts
from naiad.loadtest._truth.window import Counted

A, B = ("a", None), ("b", None)
COUNTED = Counted(client=1000, client_failed=0, server=1000)


def step(model: str, **changed: Any) -> Step:
    return Step(
        **{"model": model, "version": None, "kind": "model", "depth": 1, "callers": ("m",), "calls": 1, **changed}
    )


def pipeline(*steps: Step, **changed: Any) -> Pipeline:
    return Pipeline(**{"name": "m", "kind": "ensemble", "steps": steps, "parallel": False, **changed})


def snapshot(requests: int, each_us: int, *, queue_us: int = 100, failures: int = 0) -> ServerSnapshot:
    return ServerSnapshot(
        success_count=requests,
        success_ns=requests * each_us * 1000,
        fail_count=failures,
        queue_ns=requests * queue_us * 1000,
        compute_input_ns=requests * 10_000,
        compute_infer_ns=requests * 200_000,
        compute_output_ns=requests * 20_000,
        inference_count=requests,
        execution_count=requests // 2,
        cache_hit_count=0,
        batches={2: requests // 2},
    )


def times(plan: Pipeline, at_the_end: dict[Any, ServerSnapshot], *more: ServerSample) -> PipelineTimes:
    """What lies between a server that was never asked and ``at_the_end``."""
    first = {key: snapshot(0, 0) for key in at_the_end}
    samples = [ServerSample(at_s=0.0, snapshots=first), *more, ServerSample(at_s=1.0, snapshots=at_the_end)]
    return PipelineTimes.of(plan, samples, samples, 0)


def test_steps_and_what_is_left_are_the_whole():
    """1 ms in the server: 2 µs before the first step, 600 and 300 µs in the steps, 98 µs between them."""
    found = times(
        pipeline(step("a"), step("b")),
        {0: snapshot(1000, 1000, queue_us=2), A: snapshot(1000, 600), B: snapshot(1000, 300)},
    )
    assert [each.time_us for each in found.steps] == pytest.approx([600, 300])
    assert found.between_us == pytest.approx(98)
    content = found.to_json()
    assert [each["share"] for each in content["steps"]] == pytest.approx([0.6, 0.3])
    assert content["steps"][0]["compute_infer_us"] == pytest.approx(200)
    assert content["steps"][0]["mean_batch"] == 2
    assert content["between_steps"]["share"] == pytest.approx(0.098)


def test_times_are_of_one_request_of_the_whole():
    """A script calls a model three times for each request, and another one for every fourth: so are the times."""
    plan = pipeline(step("a", calls=None), step("b", calls=None), kind="script")
    found = times(plan, {0: snapshot(1000, 2000), A: snapshot(3000, 400), B: snapshot(250, 400)})
    assert [each.calls_per_request for each in found.steps] == [3, 0.25]
    assert [each.time_us for each in found.steps] == pytest.approx([1200, 100])
    assert found.between_us == pytest.approx(2000 - 100 - 1300)


def test_requests_of_others_are_seen_where_an_ensemble_says_how_often_it_calls():
    """The step had half as many requests again: its time counts once per request, and the doubt names it."""
    found = times(
        pipeline(step("a"), step("b")), {0: snapshot(1000, 1000), A: snapshot(1500, 600), B: snapshot(1009, 9)}
    )
    assert [(each.others, each.calls_per_request) for each in found.steps] == [(500, 1.0), (0, 1.009)]
    assert found.steps[0].time_us == pytest.approx(600)
    counted = replace(measurement(), steps=found, counted=COUNTED)
    (doubt,) = doubts(TEST, counted)
    assert (doubt.kind, doubt.invalid) == ("foreign_steps", False)
    assert "'a' (500)" in doubt.text
    assert "'b'" not in doubt.text


def test_requests_that_failed_half_way_are_nobody_elses():
    """400 requests failed in the second step: the first one answered them as well."""
    whole = snapshot(1000, 1000, failures=400)
    found = times(pipeline(step("a"), step("b")), {0: whole, A: snapshot(1400, 600), B: snapshot(1000, 300)})
    assert [each.others for each in found.steps] == [0, 0]


@pytest.mark.parametrize(
    ("plan", "b", "why"),
    [
        (pipeline(step("a"), step("b"), parallel=True), snapshot(1000, 300), "at the same time"),
        (pipeline(step("a"), step("b"), kind="script"), snapshot(1000, 900), "longer than the whole"),
        (pipeline(step("a"), step("b", callers=("m", "a"))), snapshot(1000, 300), "called by another one"),
        (pipeline(step("a"), step("gone")), snapshot(1000, 300), "times of a step"),
    ],
)
def test_what_is_left_is_not_guessed(plan, b, why):
    """Where steps overlap, or one is not known, the report says so and gives no remainder."""
    found = times(plan, {0: snapshot(1000, 1000), A: snapshot(1000, 600), B: b})
    assert found.between_us is None
    assert why in found.unknown
    assert found.to_json()["between_steps"]["time_us"] is None


def test_nested_steps_are_within_those_that_call_them():
    """What a step calls is no part of the sum."""
    plan = pipeline(step("a", kind="script"), step("b", depth=2, callers=("a",), calls=None))
    found = times(plan, {0: snapshot(1000, 1000, queue_us=0), A: snapshot(1000, 900), B: snapshot(2000, 400)})
    assert found.between_us == pytest.approx(100)
    assert found.steps[1].to_json(1000.0)["share"] == pytest.approx(0.8)


def test_a_step_that_began_anew_is_not_known():
    """Counters that fell within the run say nothing; those of the other steps still do."""
    middle = ServerSample(at_s=0.5, snapshots={0: snapshot(500, 1000), A: snapshot(5000, 600), B: snapshot(500, 300)})
    found = times(
        pipeline(step("a"), step("b")),
        {0: snapshot(1000, 1000), A: snapshot(700, 600), B: snapshot(1000, 300)},
        middle,
    )
    assert [each.time_us is None for each in found.steps] == [True, False]
    assert found.unknown == "the times of a step are not known"


def test_a_server_that_says_nothing_leaves_the_names():
    """Without statistics there are steps without times, as JSON has them."""
    found = PipelineTimes.of(pipeline(step("a")), [], [], 0)
    (named,) = found.to_json()["steps"]
    assert (named["model"], named["time_us"], named["requests"], named["calls_per_request"]) == ("a", None, None, None)


def test_a_measurement_has_the_steps_of_its_target():
    """The window's samples make the times, the whole run's the calls; a plain model has neither."""
    plan = pipeline(step("a"))
    samples = [
        ServerSample(at_s=at_s, snapshots={0: snapshot(count, 1000), A: snapshot(count, 600)})
        for at_s, count in ((0.0, 0), (1.0, 300), (2.0, 800))
    ]
    window = quarters(0.0, 2.0, [1.0] * 800)
    found, plain = (
        Measurement.of(TEST, target, window, samples, window=(1.0, 2.0))
        for target in (replace(TARGET, pipeline=plan), TARGET)
    )
    assert found.steps is not None
    assert found.steps.steps[0].times is not None
    assert (found.steps.steps[0].times.requests, found.steps.steps[0].calls_per_request) == (500, 1.0)
    assert plain.steps is None
    assert (plain.to_json()["steps"], plain.to_json()["between_steps"]) == ([], None)
