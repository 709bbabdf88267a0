"""``naiad.loadtest.run`` against the real Triton."""

from __future__ import annotations

import json

import pytest

from loadtest_helpers import write_golden
from naiad.client import ModelNotFound, ServerUnavailable
from naiad.loadtest import Connection, Golden, InvalidData, LoadTest, Precision, Rate, Slo, Traffic, Users, run


def plan(triton, traffic: Traffic | None = None, **fields) -> LoadTest:
    defaults = {"load": Users(users=4), "duration_s": 0.5, "warmup_s": 0.0}
    connection = Connection(url=getattr(triton, "grpc_url", triton))
    return LoadTest(traffic=traffic or Traffic(model="linear"), connection=connection, **{**defaults, **fields})


@pytest.fixture(scope="module")
def seen():
    return []


@pytest.fixture(scope="module")
def measured(triton, golden, seen):
    """One short run that most tests look at."""
    slos = tuple(map(Slo.parse, ("p50<10s", "throughput>1/s", "errors<0.1%")))
    traffic = Traffic(model="linear", batch=2, data=Golden(path=golden), check=True)
    return run(plan(triton, traffic, duration_s=2.0, warmup_s=0.5, slos=slos), on_progress=seen.append)


def test_a_run_reaches_its_objectives_with_right_answers(measured):
    """Every answer equals the golden one, no request failed, all objectives are met."""
    assert measured.measurement.errors == {}
    assert measured.incidents == []
    assert measured.measurement.latencies.count > 0
    assert all(result.met for result in measured.slos)


def test_client_and_server_count_the_same_requests(measured):
    """Over the whole run exactly; in the window but for those at its edges."""
    counted = measured.to_json()["results"]["counted"]
    assert counted["client"] == counted["server"] > 0
    server = measured.measurement.server
    slack = 2 * measured.measurement.users + measured.measurement.completed // 4
    assert abs(server.requests - measured.measurement.completed) <= slack
    assert server.inferences == pytest.approx(2 * server.requests, abs=32)  # its counters are not read in one moment
    assert sum(size * count for size, count in server.batches.items()) == pytest.approx(server.inferences, abs=32)
    assert server.failures == 0


def test_the_times_fit_into_each_other(measured):
    """Queue and compute lie within the server's time, and that within the client's."""
    server = measured.measurement.server
    assert server.compute_us > 0
    assert server.queue_us + server.compute_us <= server.total_us
    assert server.total_us < measured.measurement.latencies.mean_us
    assert 0 < server.in_flight <= measured.measurement.users + 0.5


def test_percentiles_rise_to_the_maximum(measured):
    """p50 ≤ p90 ≤ p99 ≤ p99.9 ≤ max, and each has its microseconds."""
    values = [measured.measurement.value(metric) for metric in ("p50", "p90", "p99", "p99.9", "max")]
    assert values == sorted(values)
    assert any(us % 1000 for us, _ in measured.measurement.latencies.counts())


def test_progress_names_the_phases_in_order(measured, seen):
    """Whoever watches sees calibration, warm-up, window and drain, with all users there in the window."""
    phases = [progress.phase for progress in seen]
    assert list(dict.fromkeys(phases)) == ["calibrating", "warmup", "window", "drain"]
    assert {progress.users for progress in seen if progress.phase == "window"} == {4}


def test_the_json_describes_the_run(measured, triton):
    """The report names server, backend, data and load."""
    content = measured.to_json()
    (target,) = content["targets"]
    assert (target["model"], target["backend"]) == ("linear", "onnxruntime")
    assert target["server_version"].startswith("2.")
    assert triton.grpc_url in json.dumps(content["test"])
    json.dumps(content, allow_nan=False)


def test_an_open_loop_sends_what_was_asked_for(triton):
    """Whatever the server does: the arrivals of one second at a constant rate."""
    report = run(plan(triton, load=Rate(per_s=200, arrivals="constant"), duration_s=1.0), calibration=False)
    assert 100 <= report.measurement.sent <= 300  # a busy machine moves some over the edges
    assert report.to_json()["results"]["users"] is None


def test_a_mix_is_measured_model_by_model(triton):
    """The parts add up to the whole, in the shares of their weights."""
    mix = (Traffic(model="linear", weight=3), Traffic(model="digits", weight=1))
    report = run(plan(triton, mix, load=Rate(per_s=400, arrivals="constant"), duration_s=1.0), calibration=False)
    parts = report.measurement.parts
    assert [part.model for part in parts] == ["linear", "digits"]
    assert sum(part.latencies.count for part in parts) == report.measurement.latencies.count
    assert 2 < parts[0].sent / parts[1].sent < 4.5


def test_a_run_ends_when_it_knows_enough_or_says_that_it_does_not(triton):
    """A loose precision is reached at once; one that no run reaches ends at the longest duration."""
    loose = run(plan(triton, precision=Precision(percentile=50, within=0.9), max_duration_s=20.0), calibration=False)
    assert loose.precision.reached
    strict = run(plan(triton, precision=Precision(percentile=99.9, within=1e-6), max_duration_s=1.0), calibration=False)
    assert not strict.precision.reached
    assert strict.measurement.window_s < 20


def test_wrong_answers_fail_the_run(triton, tmp_path):
    """Golden outputs that the model does not give are errors, not requests that succeeded."""
    golden = write_golden(tmp_path / "golden.npz", wrong=True)
    traffic = Traffic(model="linear", data=Golden(path=golden), check=True)
    report = run(plan(triton, traffic, load=Users(users=2)), calibration=False)
    assert report.measurement.latencies.count == 0
    assert set(report.measurement.errors) == {"WrongAnswer"}
    assert "no request succeeded" in report.failures()[0]


def test_an_unknown_model_or_version_is_an_error_before_the_run(triton):
    """The client's own error comes through; a version is asked for as it was given."""
    with pytest.raises(ModelNotFound, match="nothing"):
        run(plan(triton, Traffic(model="nothing")))
    with pytest.raises(ModelNotFound, match="7"):
        run(plan(triton, Traffic(model="linear", version="7")))


def test_a_server_that_is_not_there_is_an_error_before_the_run():
    """Nobody listens on port 1."""
    with pytest.raises(ServerUnavailable, match="naiad serve"):
        run(plan("grpc://127.0.0.1:1"))


def test_a_batch_beyond_the_models_is_refused_before_the_run(triton):
    """The model's maximum is in the message."""
    with pytest.raises(InvalidData, match="at most 16"):
        run(plan(triton, Traffic(model="linear", batch=17)))
