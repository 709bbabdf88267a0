"""``naiad loadtest``: exit codes, files, interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from loadtest_helpers import NAIAD, write_repository
from naiad.loadtest import Baseline, Machine
from naiad.server import EmbeddedTriton

SHORT = ("--users", 4, "--duration", "500ms", "--warmup", "100ms")


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_run_prints_the_figures_writes_the_reports_and_saves_a_baseline(naiad, triton, tmp_path):
    """Exit code 0, the summary on stdout, nothing on stderr, three files; the baseline is then kept."""
    where = ("--url", triton.grpc_url, *SHORT)
    written = ("--html", "r.html", "--report-json", "r.json", "--save-baseline", "b.json")
    done = naiad("linear", *where, *written, "--slo", "p50<10s")
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("throughput", "p99.9", "queue", "compute", "passed"):
        assert part in done.stdout
    assert files(tmp_path) == ["b.json", "r.html", "r.json"]

    again = naiad("linear", *where, "--baseline", "b.json", "--margin", 10_000, "--json")
    assert again.returncode == 0
    assert [item["metric"] for item in json.loads(again.stdout)["baseline"]] == ["throughput", "p50", "p90", "p99"]


def test_a_missed_objective_and_a_regression_end_with_exit_code_1(naiad, triton, tmp_path):
    """The report is written, says why, and no baseline is saved."""
    metrics = {"throughput": 1e9, "p50": 1e9, "p90": 1e9, "p99": 1e9}
    Baseline(model="linear", users=4, batch=1, machine=Machine.this(), metrics=metrics).write(tmp_path / "b.json")
    where = ("--url", triton.grpc_url, *SHORT)
    done = naiad(
        "linear",
        *where,
        "--slo",
        "p50<1us",
        "--baseline",
        "b.json",
        "--report-json",
        "r.json",
        "--save-baseline",
        "n.json",
    )
    assert done.returncode == 1
    failures = json.loads((tmp_path / "r.json").read_text())["failures"]
    assert [failure.partition(":")[0] for failure in failures] == ["objective missed", "regression"]
    assert files(tmp_path) == ["b.json", "r.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--slo", "p99<20"], 2, "expected an objective"),
        (["--duration", "soon"], 2, "expected a duration"),
        (["--users", 0], 2, "users"),
        (["--shape", "x"], 2, "expected INPUT=SIZE"),
        (["--baseline", "missing.json"], 2, "--save-baseline"),
        (["--baseline", "other.json"], 2, "another model"),
        (["--golden", "missing.npz"], 2, "golden.npz"),
        (["--html", "missing/r.html"], 2, "does not exist"),
        (["--batch", 99], 2, "at most 16"),
        (["--version", 9], 1, "9"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(naiad, triton, tmp_path, arguments, code, message):
    """No traceback, the exit code for wrong use or for a server that says no, and no file."""
    machine = {"cores": 1, "cpu": "c", "system": "s"}
    metrics = {"throughput": 1, "p50": 1, "p90": 1, "p99": 1}
    other = {"schema_version": 1, "model": "other", "users": 64, "batch": 1, "machine": machine, "metrics": metrics}
    (tmp_path / "other.json").write_text(json.dumps(other))
    done = naiad("linear", "--url", triton.grpc_url, "--report-json", "r.json", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files(tmp_path) == ["other.json"]


def test_an_unknown_model_or_server_ends_with_exit_code_1(naiad, triton, tmp_path):
    """The message says what to do next."""
    unknown = naiad("nothing", "--url", triton.grpc_url, "--html", "r.html")
    nobody = naiad("linear", "--url", "grpc://127.0.0.1:1", "--html", "r.html")
    assert (unknown.returncode, nobody.returncode) == (1, 1)
    assert "nothing" in unknown.stderr
    assert "naiad serve" in nobody.stderr
    assert files(tmp_path) == []


def start(tmp_path: Path, model: str, url: str, *arguments: str) -> subprocess.Popen[str]:
    command = [*NAIAD, "loadtest", model, "--url", url, "--users", "4", "--warmup", "0s", "--report-json", "r.json"]
    command += arguments
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def requests_served(server: EmbeddedTriton, model: str) -> int:
    with server.client() as client:
        return sum(version.success.count for version in client.statistics(model))


def wait_for_load(server: EmbeddedTriton, model: str, before: int = 0) -> None:
    """Return when a good number of requests were answered."""
    deadline = time.monotonic() + 60
    while requests_served(server, model) < before + 300:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def engines() -> list[str]:
    """The command lines of this user's engine processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "naiad.loadtest._" in text:
            found.append(f"{path.parent.name}: {text}")
    return found


def test_ctrl_c_reports_what_was_measured(triton, tmp_path):
    """A minute was asked for; after Ctrl-C the report has what there is, says that it was interrupted, exit code 1."""
    before = requests_served(triton, "linear")
    with start(tmp_path, "linear", triton.grpc_url, "--duration", "60s") as process:
        wait_for_load(triton, "linear", before)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    content = json.loads((tmp_path / "r.json").read_text())
    assert (process.returncode, errors) == (1, "")
    assert content["interrupted"]
    assert content["results"]["requests"] > 100
    assert content["server"]["requests"] > 100
    assert "interrupted" in output


def test_a_server_that_dies_ends_the_run_with_a_report(tmp_path):
    """The report is written, marked as failed, and has what was measured until then; the errors have their class."""
    repository = write_repository(tmp_path / "repository")
    with (
        EmbeddedTriton(repository, supervise=False) as server,
        start(tmp_path, "linear", server.grpc_url, "--duration", "60s", "--html", "r.html") as process,
    ):
        wait_for_load(server, "linear")
        os.kill(server.pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
    content = json.loads((tmp_path / "r.json").read_text())
    assert (process.returncode, content["verdict"]) == (1, "failed")
    assert any("stopped answering" in failure for failure in content["failures"])
    assert content["results"]["requests"] > 100
    assert content["results"]["errors"]["ServerUnavailable"]["count"] > 0
    assert (tmp_path / "r.html").exists()
    assert "failed:" in output


def test_a_model_that_begins_anew_within_the_window_fails_the_run(triton, tmp_path):
    """The server's counters are not those of the run any more: no times are shown, and the errors make it a failure."""
    with start(tmp_path, "reloaded", triton.grpc_url, "--duration", "4s") as process:
        wait_for_load(triton, "reloaded")
        with triton.client() as client:
            client.unload("reloaded")
            client.load("reloaded")
        process.communicate(timeout=60)
    content = json.loads((tmp_path / "r.json").read_text())
    assert (process.returncode, content["server"]) == (1, None)
    assert any("began anew" in failure for failure in content["failures"])
    assert content["results"]["errors"]


def started(before: set[str]) -> set[str]:
    """Wait for the conductor and the engine of a command that was started after ``before``."""
    deadline = time.monotonic() + 60
    while len(found := set(engines()) - before) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def wait_for_end(before: set[str]) -> None:
    deadline = time.monotonic() + 60
    while set(engines()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_load_generator_that_dies_ends_the_run_with_a_report(triton, tmp_path):
    """What was measured is reported, marked as failed, and no engine goes on."""
    before, served = set(engines()), requests_served(triton, "linear")
    with start(tmp_path, "linear", triton.grpc_url, "--duration", "60s") as process:
        conductor = next(line for line in started(before) if "_conductor" in line)
        wait_for_load(triton, "linear", served)
        os.kill(int(conductor.partition(":")[0]), signal.SIGKILL)
        process.communicate(timeout=60)
    content = json.loads((tmp_path / "r.json").read_text())
    assert (process.returncode, content["verdict"]) == (1, "failed")
    assert "the load generator ended before the run was over" in content["failures"][0]
    wait_for_end(before)


def test_an_engine_does_not_outlive_its_command(triton, tmp_path):
    """Killed with -9, the command leaves no process behind that goes on sending."""
    before = set(engines())
    with start(tmp_path, "linear", triton.grpc_url, "--duration", "60s") as process:
        started(before)
        process.kill()
    wait_for_end(before)
    assert files(tmp_path) == []
