"""Load tests of models that call others, on the real server: every call is counted, and the times add up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib.resources import files
from json import dumps, loads
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from loadtest_helpers import expected
from loadtest_pipelines import write_pipelines
from naiad.client import Client
from naiad.loadtest import Connection, LoadTest, Rate, Report, Traffic, Users, run
from naiad.server import EmbeddedTriton

SCHEMA = loads(files("naiad.loadtest._report").joinpath("report.schema.json").read_text("utf-8"))
PARTS = ("queue_us", "compute_input_us", "compute_infer_us", "compute_output_us")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(write_pipelines(tmp_path_factory.mktemp("steps") / "models")) as running:
        yield running


def measured(server: EmbeddedTriton, *models: str, **fields: object) -> Report:
    plan = {"load": Users(users=3), "warmup_s": 0.5, "duration_s": 1.5, **fields}
    traffic = tuple(Traffic(model=model) for model in models)
    return run(
        LoadTest(traffic=traffic, connection=Connection(url=server.grpc_url), **plan),  # type: ignore[arg-type]
        calibration=False,
    )


def counters(server: EmbeddedTriton) -> dict[str, int]:
    with Client(server.grpc_url) as client:
        return {model.name: model.success.count for model in client.statistics()}


@pytest.mark.parametrize(
    ("model", "calls"),
    [
        ("chain", {"linear": 1, "scaled": 1}),
        ("script", {"linear": 1, "scaled": 2}),
        ("nested", {"script": 1, "linear": 1, "scaled": 2}),
        ("fork", {"linear": 1, "scaled": 2}),
    ],
)
def test_every_call_of_every_request_is_counted(server, model, calls):
    """Exactly, over the whole run, as the server's own counters have it; nobody else's requests are suspected."""
    before = counters(server)
    report = measured(server, model)
    after = counters(server)
    steps = {each.step.model: each for each in report.measurement.steps.steps}
    assert {name: each.calls_per_request for name, each in steps.items()} == calls
    requests = after[model] - before[model]
    assert requests == report.measurement.counted.client > 20
    assert {name: after[name] - before[name] for name in calls} == {name: n * requests for name, n in calls.items()}
    assert [each.others for each in steps.values()] == [0] * len(calls)
    jsonschema.Draft202012Validator(SCHEMA).validate(loads(dumps(report.to_json())))


@pytest.mark.parametrize("model", ["chain", "script", "nested"])
def test_steps_and_the_rest_are_the_time_in_the_server(server, model):
    """What the tested model's own counters say of its requests is its queue, its steps, and little in between."""
    found = measured(server, model).measurement
    top = [each for each in found.steps.steps if each.step.depth == 1]
    for each in found.steps.steps:
        parts = [each.per_request(name) for name in PARTS]
        assert 0 < sum(parts) <= each.time_us * 1.02 + 10
    known_us = found.steps.own_queue_us + sum(each.time_us for each in top)
    if model != "script":  # whose own code takes a while
        assert known_us == pytest.approx(found.server.total_us, rel=0.15)
    assert known_us + (found.steps.between_us or 0.0) == pytest.approx(found.server.total_us, rel=0.15)
    # An ensemble's own counters have the computing of its steps in them, but not their queues.
    if model == "chain":
        assert found.server.compute_us == pytest.approx(
            sum(each.time_us - each.per_request("queue_us") for each in top), rel=0.25
        )


def test_steps_that_run_at_the_same_time_have_no_rest(server):
    """The two branches of a fork overlap, and the report says so in place of a remainder."""
    content = measured(server, "fork").to_json()["results"]
    assert content["between_steps"]["time_us"] is None
    assert "at the same time" in content["between_steps"]["unknown"]
    assert all(step["time_us"] > 0 for step in content["steps"])


def test_requests_of_others_to_a_step_are_named(server):
    """Somebody else asks one of the models that the ensemble calls: a doubt says which, and nothing is invalid."""
    stop = threading.Event()

    def ask() -> None:
        with Client(server.grpc_url) as client:
            linear = client.model("linear")
            while not stop.is_set():
                linear(x=np.zeros((1, 8), np.float32))

    other = threading.Thread(target=ask)
    other.start()
    try:
        report = measured(server, "chain", load=Rate(per_s=50))
    finally:
        stop.set()
        other.join()
    (doubt,) = [each for each in report.doubts if each.kind == "foreign_steps"]
    assert "'linear'" in doubt.text
    assert "'scaled'" not in doubt.text
    assert not doubt.invalid
    linear, scaled = report.measurement.steps.steps
    assert linear.others > 20
    assert (linear.calls_per_request, scaled.calls_per_request) == (1.0, 1.0)


def test_each_model_of_a_mix_has_its_steps(server):
    """The ensemble has steps, the plain model that is one of them has none; all together have none."""
    content = measured(server, "chain", "linear").to_json()
    chain, linear = content["parts"]
    assert [step["model"] for step in chain["steps"]] == ["linear", "scaled"]
    assert chain["steps"][0]["others"] > 0  # our own, to the model itself
    assert (linear["steps"], content["results"]["steps"]) == ([], [])
    assert "foreign_steps" not in {doubt["kind"] for doubt in content["doubts"]}


def test_a_plain_model_asks_for_nothing_more(server):
    """No steps, no more questions to the server: its report is as it was."""
    measurement = measured(server, "linear").measurement
    assert measurement.steps is None
    assert measurement.server is not None


def test_the_script_of_these_tests_answers_right(server):
    """The models that are measured here do what they are said to do."""
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    with Client(server.grpc_url) as client:
        for model, factor in (("chain", 2), ("script", 4), ("nested", 4), ("fork", 2)):
            np.testing.assert_allclose(client.model(model)(x=x)["z"], expected(x) * factor, rtol=1e-5)


def test_page_and_summary_show_the_steps(server, tmp_path: Path):
    """Both are made of the JSON alone."""
    report = measured(server, "nested")
    report.write(html=tmp_path / "r.html", json=tmp_path / "r.json")
    assert Report.read(tmp_path / "r.json") == Report.read(tmp_path / "r.html")
    assert 'id="steps-table"' in (tmp_path / "r.html").read_text("utf-8")
