"""``naiad.loadtest.run`` against the real Triton."""

from __future__ import annotations

import json

import pytest

from loadtest_helpers import write_golden
from naiad.client import ModelNotFound, ServerUnavailable
from naiad.loadtest import InvalidData, LoadTest, Slo, run


@pytest.fixture(scope="module")
def seen():
    return []


@pytest.fixture(scope="module")
def measured(triton, golden, seen):
    """One short run that most tests look at."""
    slos = tuple(map(Slo.parse, ("p50<10s", "throughput>1/s", "errors<0.1%")))
    test = LoadTest(
        model="linear",
        url=triton.grpc_url,
        users=4,
        batch=2,
        duration_s=2,
        warmup_s=0.5,
        golden=golden,
        check=True,
        slos=slos,
    )
    return run(test, on_progress=seen.append)


def test_a_run_passes_with_right_answers_and_met_objectives(measured):
    """Every answer equals the golden one, no request failed, all objectives are met."""
    assert measured.failures() == []
    assert measured.measurement.latencies.count > 0
    assert all(result.met for result in measured.slos)


def test_client_and_server_count_the_same_requests(measured):
    """The server's statistics of the window are of the client's requests, but for those at its edges."""
    server = measured.measurement.server
    slack = 2 * measured.test.users + measured.measurement.completed // 20
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
    assert 0 < server.in_flight <= measured.test.users + 0.5


def test_percentiles_rise_to_the_maximum(measured):
    """p50 ≤ p90 ≤ p99 ≤ p99.9 ≤ max, and each has its microseconds."""
    values = [measured.measurement.value(metric) for metric in ("p50", "p90", "p99", "p99.9", "max")]
    assert values == sorted(values)
    assert any(us % 1000 for us, _ in measured.measurement.latencies.counts())


def test_progress_names_the_phases_in_order(measured, seen):
    """Whoever watches sees warm-up, window and drain, with all users there in the window."""
    phases = [progress.phase for progress in seen]
    assert list(dict.fromkeys(phases)) == ["warmup", "window", "drain"]
    assert {progress.users for progress in seen if progress.phase == "window"} == {4}


def test_the_json_describes_the_run(measured, triton):
    """The report names server, backend, data and load."""
    test = measured.to_json()["test"]
    assert (test["url"], test["backend"], test["data"]) == (triton.grpc_url, "onnxruntime", "golden")
    assert test["server_version"].startswith("2.")
    json.dumps(measured.to_json(), allow_nan=False)


def test_wrong_answers_fail_the_run(triton, tmp_path):
    """Golden outputs that the model does not give are errors, not requests that succeeded."""
    golden = write_golden(tmp_path / "golden.npz", wrong=True)
    test = LoadTest(model="linear", url=triton.grpc_url, users=2, duration_s=0.5, warmup_s=0, golden=golden, check=True)
    report = run(test)
    assert report.measurement.latencies.count == 0
    assert set(report.measurement.errors) == {"WrongAnswer"}
    assert "no request succeeded" in report.failures()[0]


def test_an_unknown_model_is_an_error_before_the_run(triton):
    """The client's own error comes through."""
    with pytest.raises(ModelNotFound, match="nothing"):
        run(LoadTest(model="nothing", url=triton.grpc_url))


def test_an_unknown_version_is_an_error_before_the_run(triton):
    """A version is asked for as it was given."""
    with pytest.raises(ModelNotFound, match="7"):
        run(LoadTest(model="linear", version="7", url=triton.grpc_url))


def test_a_server_that_is_not_there_is_an_error_before_the_run():
    """Nobody listens on port 1."""
    with pytest.raises(ServerUnavailable, match="naiad serve"):
        run(LoadTest(model="linear", url="grpc://127.0.0.1:1"))


def test_a_batch_beyond_the_models_is_refused_before_the_run(triton):
    """The model's maximum is in the message."""
    with pytest.raises(InvalidData, match="at most 16"):
        run(LoadTest(model="linear", url=triton.grpc_url, batch=17))
