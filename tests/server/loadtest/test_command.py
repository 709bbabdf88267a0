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
from naiad.loadtest import Baseline, LoadTest, Machine, Traffic, Users
from naiad.loadtest.baseline import describe_load, describe_models
from naiad.server import EmbeddedTriton

SHORT = ("--users", 4, "--duration", "500ms", "--warmup", "0s")
MEASURED = (0, 4)
"""Exit codes of a run that took place: on a busy machine the load generator may have been the limit."""


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_run_prints_the_figures_and_writes_the_reports(naiad, triton, tmp_path):
    """The summary on stdout, nothing on stderr, and the three files."""
    written = ("--html", "r.html", "--json-report", "r.json", "--csv", "r.csv")
    done = naiad("linear", "--url", triton.grpc_url, *SHORT, *written, "--slo", "p50<10s")
    assert done.returncode in MEASURED, done.stderr
    assert done.stderr == ""
    for part in ("throughput", "p99.9", "queue", "compute", "p50<10s", "wrote r.html"):
        assert part in done.stdout
    written = files(tmp_path)
    assert written[-2:] == ["r.html", "r.json"]
    assert len(written) > 2
    assert all(name.startswith("r") and name.endswith(".csv") for name in written[:-2])
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["reproduce"]["command"].startswith("naiad loadtest linear --url")
    assert content["results"]["counted"]["client"] == content["results"]["counted"]["server"] > 0


def test_json_is_one_document_on_stdout(naiad, triton, tmp_path):
    """For programs; nothing is written that was not asked for."""
    done = naiad("linear", "--url", triton.grpc_url, *SHORT, "--json")
    assert json.loads(done.stdout)["results"]["completed"] > 0
    assert files(tmp_path) == []


def test_a_missed_objective_and_a_regression_have_exit_codes_of_their_own(naiad, triton, tmp_path):
    """2 and 1; the report says which, and no baseline is saved from a run that did not pass."""
    where = ("--url", triton.grpc_url, *SHORT)
    missed = naiad("linear", *where, "--slo", "p50<1us", "--save-baseline", "n.json")
    assert missed.returncode in (2, 4), missed.stdout
    assert "objective missed" in missed.stdout or missed.returncode == 4
    slower = naiad("linear", *where, "--baseline", _impossible(tmp_path), "--json-report", "r.json")
    assert slower.returncode in (1, 4), slower.stdout
    assert any(item["regressed"] for item in json.loads((tmp_path / "r.json").read_text())["comparisons"])
    assert files(tmp_path) == ["b.json", "r.json"]


def _impossible(folder: Path) -> Path:
    """Write a baseline that no server reaches."""
    test = LoadTest(traffic=Traffic(model="linear"), load=Users(users=4), duration_s=0.5, warmup_s=0.0)
    metrics = {"throughput": 1e9, "p50": 0.001, "p90": 0.001, "p99": 0.001}
    models, load = describe_models(test), describe_load(test)
    Baseline(models=models, load=load, machine=Machine.this(), metrics=metrics).write(folder / "b.json")
    return folder / "b.json"


def test_a_baseline_that_was_saved_is_compared_with(naiad, triton, tmp_path):
    """A run that passes leaves one; the next run of the same test is held against it."""
    where = ("--url", triton.grpc_url, *SHORT)
    first = naiad("linear", *where, "--save-baseline", "b.json")
    if first.returncode == 4:
        pytest.skip("the machine is too busy for a run that passes")
    assert first.returncode == 0, first.stdout
    again = naiad("linear", *where, "--baseline", "b.json", "--margin", 100_000, "--json")
    compared = json.loads(again.stdout)["comparisons"]
    assert {"throughput", "p50", "p99"} <= {item["metric"] for item in compared}
    assert not any(item["regressed"] for item in compared)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "SCENARIO.toml|MODEL"),
        (("linear", "--users", "many"), "--users"),
        (("linear", "--baseline", "missing.json"), "--save-baseline"),
        (("linear", "--html", "missing/r.html"), "does not exist"),
        (("nothing",), "nothing"),
        (("wrong.toml",), "wrong.toml:2: load.uesrs"),
        (("--worker", "linear"), "told by its master"),
    ],
)
def test_bad_input_is_one_clear_message_and_writes_nothing(naiad, triton, tmp_path, arguments, message):
    """No traceback, exit code 5, which no verdict has, and no file."""
    (tmp_path / "wrong.toml").write_text('[load]\nuesrs = 4\n[[models]]\nmodel = "linear"\n')
    done = naiad(*arguments, "--url", triton.grpc_url, "--json-report", "r.json")
    assert done.returncode == 5
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files(tmp_path) == ["wrong.toml"]


def test_a_server_that_is_not_there_is_an_error_that_says_what_to_do(naiad):
    """Nobody listens on port 1."""
    nobody = naiad("linear", "--url", "grpc://127.0.0.1:1")
    assert nobody.returncode == 5
    assert "naiad serve" in nobody.stderr


def test_a_sweep_prints_its_curve_and_writes_one_report(naiad, triton, tmp_path):
    """One row for each load, and what follows from them."""
    where = ("--url", triton.grpc_url, "--duration", "500ms", "--warmup", "0s")
    done = naiad("linear", *where, "--sweep", "users=1..4", "--json-report", "r.json")
    assert done.returncode in MEASURED, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows[1:4]] == ["1", "2", "4"]
    assert len(json.loads((tmp_path / "r.json").read_text())["sweep"]["points"]) == 3


def start(tmp_path: Path, model: str, url: str, *arguments: str) -> subprocess.Popen[str]:
    command = [*NAIAD, "loadtest", model, "--url", url, "--rate", "400", "--warmup", "0s", "--json-report", "r.json"]
    command += arguments
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def requests_served(server: EmbeddedTriton, model: str) -> int:
    with server.client() as client:
        return sum(version.success.count for version in client.statistics(model))


def wait_for_load(server: EmbeddedTriton, model: str, before: int = 0) -> None:
    """Return when so many requests were answered that they took most of a second to arrive."""
    deadline = time.monotonic() + 60
    while requests_served(server, model) < before + 300:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_reports_what_was_measured(triton, tmp_path):
    """A minute was asked for; after Ctrl-C the report has what there is, and says that it was interrupted."""
    before = requests_served(triton, "linear")
    with start(tmp_path, "linear", triton.grpc_url, "--duration", "60s") as process:
        wait_for_load(triton, "linear", before)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    content = json.loads((tmp_path / "r.json").read_text())
    assert (process.returncode, errors) == (130, "")
    assert content["interrupted"]
    assert content["results"]["completed"] > 100
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
    assert (process.returncode, content["verdict"]) == (5, "failed")
    assert any("stopped answering" in failure for failure in content["failures"])
    assert content["results"]["completed"] > 100
    assert content["results"]["errors"]["ServerUnavailable"]["count"] > 0
    assert (tmp_path / "r.html").exists()
    assert "failed:" in output
    assert "next:" not in output


def children(pid: int) -> set[int]:
    """The processes that a process started, and those that they did."""
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found |= {int(path.parent.name)} | children(int(path.parent.name))
    return found


def engines_of(pid: int) -> set[int]:
    """The engine processes of a command."""
    return {child for child in children(pid) if b"_engine.process" in Path(f"/proc/{child}/cmdline").read_bytes()}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end(pids: set[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_engine_that_dies_ends_the_run_with_a_report(triton, tmp_path):
    """What was measured is reported, marked as failed; its last requests, which it never told of, are not others'."""
    served = requests_served(triton, "linear")
    with start(tmp_path, "linear", triton.grpc_url, "--duration", "60s") as process:
        wait_for_load(triton, "linear", served)
        (engine,) = engines_of(process.pid)
        os.kill(engine, signal.SIGKILL)
        process.communicate(timeout=60)
    content = json.loads((tmp_path / "r.json").read_text())
    assert (process.returncode, content["verdict"]) == (5, "failed")
    assert any("signal 9" in failure for failure in content["failures"])
    assert content["results"]["counted"] is None
    assert "foreign_load" not in {doubt["kind"] for doubt in content["doubts"]}


def test_a_command_that_is_killed_leaves_no_engine_behind(triton, tmp_path):
    """Without anybody to report to, the load ends."""
    served = requests_served(triton, "linear")
    with start(tmp_path, "linear", triton.grpc_url, "--duration", "60s") as process:
        wait_for_load(triton, "linear", served)
        left = children(process.pid)
        assert left
        process.kill()
        process.communicate(timeout=60)
    wait_for_end(left)
    assert files(tmp_path) == []
