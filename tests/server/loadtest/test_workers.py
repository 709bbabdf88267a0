"""A run over several workers, through Locust's master and workers on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtest_helpers import NAIAD
from naiad.loadtest import Connection, EngineFailed, LoadTest, Rate, Traffic, Users, run
from naiad.loadtest._locust.master import LocustMaster


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def workers(port: int, *arguments: tuple[str, ...]) -> Iterator[list[subprocess.Popen[str]]]:
    """Start a worker for each tuple of arguments; they end with their master."""
    command = [*NAIAD, "loadtest", "--worker", "--master-port", str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*command, *more], **pipes) for more in arguments]
    try:
        yield started
        for process in started:
            process.communicate(timeout=60)
    finally:
        for process in started:
            process.kill()
            process.communicate()


def served(triton) -> int:
    with triton.client() as client:
        return sum(model.success.count for model in client.statistics("linear"))


def plan(triton, load, **fields) -> LoadTest:
    connection = Connection(url=triton.grpc_url, headers=fields.pop("headers", {}))
    defaults = {"duration_s": 1.0, "warmup_s": 0.0}
    return LoadTest(traffic=Traffic(model="linear"), load=load, connection=connection, **{**defaults, **fields})


def test_two_workers_send_one_load(triton):
    """What both counted together is what the server counted."""
    port, before = free_port(), served(triton)
    test = plan(triton, Rate(per_s=300))
    with workers(port, (), ()) as started, LocustMaster(test, num_workers=2, port=port) as master:
        report = run(master.test, generator=master, calibration=False)
        assert master.clock_error_s == 0  # one machine has one clock
    assert report.measurement.latencies.count == served(triton) - before > 0
    assert report.incidents == []
    assert report.to_json()["results"]["generator"]["engines"] == 2
    assert [process.returncode for process in started] == [0, 0]


def test_a_worker_that_dies_ends_the_run_with_a_report(triton):
    """Its share of the load is not sent any more: the report says so, and has what was measured."""
    port = free_port()
    with (
        workers(port, (), ()) as started,
        LocustMaster(plan(triton, Users(users=4), duration_s=60.0), num_workers=2, port=port) as master,
    ):
        before = served(triton)
        killer = threading.Thread(target=kill_when_loaded, args=(triton, before, started[0]))
        killer.start()
        report = run(master.test, generator=master, calibration=False)
        killer.join()
    assert report.verdict == "failed"
    assert any("worker" in incident and "is gone" in incident for incident in report.incidents)
    assert report.measurement.latencies.count > 100


def kill_when_loaded(triton, before: int, process: subprocess.Popen[str]) -> None:
    """Kill a worker's Locust, as a machine that loses its power would."""
    deadline = time.monotonic() + 60
    while served(triton) < before + 300 and time.monotonic() < deadline:
        time.sleep(0.05)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == process.pid:
                os.kill(int(path.parent.name), signal.SIGKILL)
        except OSError:
            continue


def test_secrets_stay_with_those_who_have_them(triton, monkeypatch):
    """The master sends names of headers only: a worker without the value says which one it lacks."""
    port = free_port()
    monkeypatch.setenv("WORKER_TOKEN", "t0p")
    test = plan(triton, Users(users=2), headers={"authorization": "t0p"})
    header = ("--header", "authorization=env:WORKER_TOKEN")
    with workers(port, header), LocustMaster(test, num_workers=1, port=port) as master:
        assert run(master.test, generator=master, calibration=False).measurement.latencies.count > 0
    with (
        workers(port, ()),
        LocustMaster(test, num_workers=1, port=port) as master,
        pytest.raises(EngineFailed, match="--header authorization=env:VARIABLE"),
    ):
        run(master.test, generator=master, calibration=False)


def test_workers_that_do_not_come_are_waited_for_no_longer_than_said(triton):
    """The message says how many came, and where they were expected."""
    port = free_port()
    with (
        LocustMaster(plan(triton, Users(users=2)), num_workers=2, port=port) as master,
        pytest.raises(EngineFailed, match=f"expected 2 workers at 127.0.0.1:{port}, found 0"),
    ):
        master.wait_for_workers(timeout_s=0.2)


def test_a_port_in_use_is_named(triton):
    """As soon as it is known."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with (
            LocustMaster(plan(triton, Users(users=2)), num_workers=1, port=port) as master,
            pytest.raises(EngineFailed, match=str(port)),
        ):
            master.wait_for_workers()


def test_the_command_conducts_workers(triton, tmp_path):
    """``--master`` and ``--worker``: one report, as of a run on one machine, with all users."""
    port = free_port()
    command = [*NAIAD, "loadtest", "linear", "--url", triton.grpc_url, "--users", "5", "--duration", "1s"]
    command += ["--warmup", "0s", "--master", "--expect-workers", "2", "--master-port", str(port), "--json"]
    with workers(port, (), ()) as started:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
    results = json.loads(done.stdout)["results"]
    assert results["users"] == 5
    assert results["counted"]["client"] == results["counted"]["server"] > 0
    assert [process.returncode for process in started] == [0, 0]
