"""The verdict and the files."""

import json
import os
import subprocess
import sys

import pytest

from loadtest_samples import measurement, report, server_times
from naiad.loadtest import Baseline, LoadTest, OutputNotWritable, Slo

TEST = LoadTest(model="m", users=4, duration_s=1)


def judged(*texts, measured=None):
    measured = measured or measurement()
    return report(measured, slos=[Slo.parse(text).judge(measured) for text in texts])


def test_a_run_without_objectives_passes_when_requests_succeeded():
    """Nothing was asked for, and it worked."""
    assert report().ok


def test_a_run_without_one_success_never_passes():
    """Zero requests, or only failed ones, are a failure that says why."""
    assert report(measurement([])).failures() == ["no request succeeded"]
    (failure,) = report(measurement([], errors={"ServerUnavailable": 7})).failures()
    assert failure == "no request succeeded; 7 × ServerUnavailable: what ServerUnavailable says"


def test_errors_beyond_the_budget_fail_a_run_that_says_nothing_about_errors():
    """More than one request in a hundred failed: the percentiles describe only the lucky ones."""
    assert report(measurement(errors={"E": 5})).ok
    assert not report(measurement(errors={"E": 50})).ok


def test_an_objective_on_errors_replaces_the_budget():
    """Who expects rejections can say how many."""
    assert judged("errors<10%", measured=measurement(errors={"E": 50})).ok
    assert not judged("errors<0.1%", measured=measurement(errors={"E": 5})).ok


def test_every_missed_objective_is_named():
    """The message has the objective and what was measured."""
    assert judged("p99<1ms", "p50<1s", "throughput>9000/s").failures() == [
        "objective missed: p99<1ms (9.90 ms measured)",
        "objective missed: throughput>9000/s (1,000/s measured)",
    ]


def test_a_regression_fails_the_run():
    """The message has both figures and the margin."""
    baseline = Baseline.of(TEST, measurement([0.1] * 1000))
    failures = report(comparisons=baseline.compare(measurement(), 0.5)).failures()
    assert len(failures) == 3
    assert "baseline 100 µs" in failures[0]


def test_an_incident_fails_the_run():
    """A server that died is a failed run, whatever was measured before."""
    assert report(incidents=["the server died"]).failures() == ["the server died"]


def test_the_json_has_everything_and_no_secret(tmp_path):
    """The report is versioned, is strict JSON, and shows the server's address without its secret."""
    test = LoadTest(model="m", url="grpc://:hunter2@127.0.0.1:8001", users=4, duration_s=1)
    path = tmp_path / "report.json"
    report(test=test).write(json=path)
    assert "hunter2" not in path.read_text()
    content = json.loads(path.read_text())
    assert (content["schema_version"], content["verdict"]) == (1, "passed")
    assert content["test"]["url"] == "grpc://127.0.0.1:8001"
    assert content["results"]["latency_us"]["p99"] == pytest.approx(9911, rel=0.002)


def test_the_breakdown_adds_up_to_the_mean():
    """Client, queue, compute and the rest of the server are the whole mean latency."""
    content = report().to_json()
    assert sum(content["breakdown_us"].values()) == pytest.approx(content["results"]["latency_us"]["mean"], rel=0.001)


def test_nothing_measured_makes_a_report_all_the_same(tmp_path):
    """Both files are written for a run in which nothing succeeded."""
    empty = report(measurement([], server=server_times(requests=0, executions=0, inferences=0, batches={})))
    empty.write(html=tmp_path / "r.html", json=tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["verdict"] == "failed"


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_written(tmp_path):
    """One bad path, and neither file appears."""
    with pytest.raises(OutputNotWritable, match="create"):
        report().write(html=tmp_path / "missing" / "r.html", json=tmp_path / "r.json")
    with pytest.raises(OutputNotWritable, match="folder"):
        report().write(json=tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_report_replaces_the_old_one_in_one_step(tmp_path):
    """No temporary file stays, and the permissions are those of any new file."""
    path = tmp_path / "r.json"
    for _ in range(2):
        report().write(json=path)
    assert os.listdir(tmp_path) == ["r.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_full_disk_leaves_the_old_report_and_no_rest(tmp_path):
    """With no room for the page, the error says so, the old page is whole and no temporary file stays."""
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from pathlib import Path
from naiad.loadtest import OutputNotWritable
from naiad.loadtest._files import write_atomically
try:
    write_atomically(Path("r.html"), "x" * 200_000)
except OutputNotWritable as exc:
    print(exc)
"""
    (tmp_path / "r.html").write_text("old")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "r.html could not be written" in done.stdout
    assert os.listdir(tmp_path) == ["r.html"]
    assert (tmp_path / "r.html").read_text() == "old"
