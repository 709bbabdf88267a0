"""``locust -f …``: Locust's own command line, workers and web UI with our engine, and with our client."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

LOCUSTFILE = Path(__file__).resolve().parents[3] / "loadtest" / "locustfile.py"
LOAD = ("--headless", "--users", "4", "--spawn-rate", "4")
ENOUGH = 300
CALLERS = """
import numpy as np
from locust import constant, task
from naiad.loadtest import ClientUser


class Caller(ClientUser):
    wait_time = constant(0)

    def on_start(self):
        self.linear = self.client.model("linear")

    @task
    def call(self):
        self.linear(x=np.ones((1, 8), np.float32))
"""


def command(*arguments: object, file: Path = LOCUSTFILE) -> list[str]:
    return [sys.executable, "-m", "locust", "-f", str(file), *map(str, arguments)]


def locust(cwd: Path, *arguments: object, file: Path = LOCUSTFILE) -> subprocess.CompletedProcess[str]:
    line = command(*arguments, file=file)
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=90, check=False)


def loaded(triton, cwd: Path, *arguments: object, file: Path = LOCUSTFILE) -> subprocess.CompletedProcess[str]:
    """Run Locust until the server has answered some hundred requests, and end it as a user would."""
    before, line = served(triton), command(*LOAD, *arguments, "--host", triton.grpc_url, file=file)
    with subprocess.Popen(line, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: process.poll() is not None or served(triton) >= before + ENOUGH)
        time.sleep(1)  # reports count in quarter seconds
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(line, process.returncode, output, errors)


def served(triton) -> int:
    with triton.client() as client:
        return sum(model.success.count for model in client.statistics("linear"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_locust_counts_what_the_server_counts_and_the_report_is_written(triton, tmp_path):
    """Each request under the model's name, times to the microsecond, and the same report as of ``naiad loadtest``."""
    before = served(triton)
    reports = ("--naiad-html", "r.html", "--naiad-json", "r.json", "--naiad-slo", "p50<10s errors<1%")
    done = loaded(triton, tmp_path, "--model", "linear", "--json", *reports)
    (entry,) = json.loads(done.stdout)
    assert (entry["name"], entry["num_failures"]) == ("linear", 0)
    assert entry["num_requests"] == served(triton) - before > 0
    assert any(float(time_ms) % 1 for time_ms in entry["response_times"])
    content = json.loads((tmp_path / "r.json").read_text())
    assert [slo["met"] for slo in content["slos"]] == [True, True]
    assert content["results"]["counted"]["client"] == content["results"]["counted"]["server"] == entry["num_requests"]
    assert (done.returncode == 0) == (content["verdict"] == "passed"), done.stderr
    assert (tmp_path / "r.html").read_text().lower().startswith("<!doctype html>")


def test_an_objective_that_is_missed_ends_locust_with_exit_code_1(triton, tmp_path):
    """Its reason is in the log."""
    done = loaded(triton, tmp_path, "--model", "linear", "--naiad-slo", "p50<1us")
    assert done.returncode == 1
    assert "objective missed: p50<1us" in done.stderr or "invalid:" in done.stderr, done.stderr


def test_workers_of_locust_share_the_load_and_the_report_is_whole(triton, tmp_path):
    """The master's report has every request that the server counted."""
    port, before = free_port(), served(triton)
    line = command("--worker", "--master-port", port)
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    workers = [subprocess.Popen(line, cwd=tmp_path, **pipes) for _ in range(2)]
    try:
        master = ("--master", "--expect-workers", 2, "--master-bind-port", port, "--naiad-json", "r.json")
        done = loaded(triton, tmp_path, "--model", "linear", "--rate-per-user", 50, *master)
        assert [worker.wait(60) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    content = json.loads((tmp_path / "r.json").read_text())
    counted = content["results"]["counted"]
    assert counted["client"] == counted["server"] == served(triton) - before > 0, done.stderr
    assert content["results"]["generator"]["engines"] == 2
    assert content["test"]["load"]["per_s"] == 200  # four users, fifty each


def test_the_web_ui_starts_stops_and_links_to_the_report(triton, tmp_path):
    """Started and stopped over HTTP, as a browser does."""
    port = free_port()
    line = command("--web-port", port, "--web-host", "127.0.0.1", "--host", triton.grpc_url, "--model", "linear")
    process = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        page = wait_for(lambda: get(port, "/"))
        assert "/naiad-report" in page
        assert get(port, "/naiad-report") is None
        form = f"user_count=4&spawn_rate=4&host={triton.grpc_url}"
        assert json.loads(get(port, "/swarm", form) or "{}")["success"]
        wait_for(lambda: json.loads(get(port, "/stats/requests") or "{}").get("total_rps"))
        assert json.loads(get(port, "/stop", "now=1") or "{}")["success"]
        assert "linear" in wait_for(lambda: get(port, "/naiad-report"))
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors


def get(port: int, path: str, form: str | None = None) -> str | None:
    """Return a page; nothing where there is none (yet)."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", form and form.encode(), timeout=30) as answer:
            return answer.read().decode()
    except OSError:
        return None


def wait_for(found):
    """Ask until there is something."""
    deadline = time.monotonic() + 60
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return value


def test_users_who_call_the_client_are_counted_and_say_what_they_cost(triton, tmp_path):
    """Locust ends in order, calls are under the model's name, and the log says how much was the generator's own."""
    file = tmp_path / "callers.py"
    file.write_text(CALLERS)
    before = served(triton)
    done = loaded(triton, tmp_path, "--json", file=file)
    entries = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert done.returncode == 0, done.stderr
    assert entries["linear"]["num_failures"] == 0
    assert 0 <= served(triton) - before - entries["linear"]["num_requests"] <= 4  # stopped in the middle of a call
    assert entries["linear: ModelMetadata"]["num_requests"] == 4
    assert "the load generator itself used" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--model", "nothing"), "nothing"),
        ((), "expected the name of a model"),
        (("--model", "linear", "--naiad-slo", "p50<fast"), "expected an objective"),
        (("--model", "linear", "--naiad-html", "missing/r.html"), "does not exist"),
    ],
)
def test_a_run_that_cannot_be_ends_locust_with_its_reason(triton, tmp_path, arguments, reason):
    """Exit code 1 and one reason, instead of a run without requests."""
    done = locust(tmp_path, *LOAD, "--host", triton.grpc_url, *arguments, "--run-time", "60s")
    assert done.returncode == 1
    assert reason in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
