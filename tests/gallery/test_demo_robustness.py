"""`naiad demo` that is ended in the middle: nothing of it is left running, and its repository is good to go on with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from naiad.client import Client
from naiad.export import Repository

NAME = "linear_regression"
INTERRUPTED = (130, -signal.SIGINT)
"""A shell says 130 of both. Python dies of the signal where it met code that is run from text, such as dataclasses'."""
_WAIT_S = 150.0


class Started:
    """A run of `naiad demo`.

    Its processes are known by a mark in their environment, and as its children: Triton's environment is its own.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._mark, self._children = uuid.uuid4().hex, set[psutil.Process]()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "naiad.cli", "demo", NAME, *("--repository", "model repository"), *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell that runs the tests in the background has Ctrl-C ignored, for all that they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env={**os.environ, "NAIAD_TEST_MARK": self._mark},
        )
        self.lines: list[str] = []
        self.printed: list[str] = []
        self._threads = [
            threading.Thread(target=lines.extend, args=(stream,))
            for lines, stream in ((self.lines, self.process.stderr), (self.printed, self.process.stdout))
        ]
        for thread in self._threads:
            thread.start()

    def pids(self) -> dict[int, str]:
        """The processes of this run that live, with their command lines."""
        with suppress(psutil.Error):
            self._children.update(psutil.Process(self.process.pid).children(recursive=True))
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it ended meanwhile, or belongs to somebody else
                if process in self._children or process.environ().get("NAIAD_TEST_MARK") == self._mark:
                    found[process.pid] = " ".join(process.cmdline())
        return {pid: line for pid, line in found.items() if line}  # without those that only wait to be reaped

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not holds():
            assert self.process.poll() is None, "".join(self.lines)
            assert time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.02)

    def wait_for(self, moment: str) -> None:
        """Return within a step of the way: it exports, Triton starts, the load is prepared, or it is on."""
        if moment == "export":
            self.wait_until(lambda: any("✓ fit" in line for line in self.lines))
        elif moment == "start":
            self.wait_until(lambda: any("/tritonserver " in line for line in self.pids().values()))
        else:
            self.wait_until(lambda: any("naiad.loadtest._engine.process" in line for line in self.pids().values()))
        if moment == "load":
            (url,) = re.findall(r"gRPC (grpc://\S+)", "".join(self.lines))
            with Client(url) as client:
                self.wait_until(lambda: client.statistics(NAME)[0].success.count > 1000)

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(_WAIT_S)
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code

    def left(self) -> list[str]:
        """What of it still runs after a while."""
        deadline = time.monotonic() + 30
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.1)
        return list(self.pids().values())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def run(*arguments: str) -> Started:
        started.append(Started(tmp_path, *arguments))
        return started[-1]

    yield run
    for each in started:
        for pid in each.pids():
            os.kill(pid, signal.SIGKILL)
        each.end()


def check_repository(folder: Path) -> None:
    """Every version that is there is whole, and nothing half-made lies among them."""
    repository = Repository(folder / "model repository")
    for model in repository.models():
        for number in repository.versions(model):
            assert repository.verify(model, number).ok
    path = folder / "model repository"
    assert {entry.name for entry in path.iterdir() if not entry.name.startswith(".")} <= {NAME, "journal.jsonl"}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("moment", ["export", "start", "prepare", "load"])
@pytest.mark.parametrize("who", ["terminal", "process"])
def test_ctrl_c_leaves_no_process_and_a_valid_repository(start, tmp_path, moment, who):
    """Ctrl-C in a terminal reaches every process of the run, `kill -INT` only the first one: both end all of it."""
    run = start("--duration", "60")
    run.wait_for(moment)
    if who == "terminal":
        os.killpg(run.process.pid, signal.SIGINT)
    else:
        run.process.send_signal(signal.SIGINT)
    assert run.end() in INTERRUPTED, "".join(run.lines)
    assert run.left() == []
    assert "Traceback" not in "".join(run.lines)
    assert (tmp_path / "runs/demo" / NAME / "report.html").exists() == (moment == "load")
    check_repository(tmp_path)


@pytest.mark.timeout(600)
def test_a_killed_demo_leaves_nothing_and_the_next_one_goes_the_whole_way(start, tmp_path):
    """kill -9 under load: Triton and what sends are gone, versions are whole, and a second run publishes the next."""
    run = start("--duration", "60")
    run.wait_for("load")
    assert any("/tritonserver " in line for line in run.pids().values())
    run.process.kill()
    assert run.end() == -signal.SIGKILL
    assert run.left() == []
    check_repository(tmp_path)
    again = start("--duration", "1", "--json")
    assert again.end() == 0, "".join(again.lines)
    assert json.loads("".join(again.printed))["passed"]
    assert again.left() == []
    check_repository(tmp_path)
    assert Repository(tmp_path / "model repository").served(NAME) == (2,)
