"""`naiad top` on the real Triton."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from naiad.cli._load import Load, Sight
from naiad.cli.top import _columns, _fitting
from naiad.client import Client
from naiad.server import EmbeddedTriton, _ports
from repository_helpers import affine, write_model

TOP = [sys.executable, "-m", "naiad.cli", "top"]
ROWS = 2
HEADING = ["model", "version", "state", "req/s", "fail/s"]
AWAY = "127.0.0.1:9"


def top(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TOP, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A `naiad top` that goes on; it must end cleanly when it is interrupted."""
    command = [*TOP, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
            assert (process.returncode, errors) == (0, "")
        finally:
            process.kill()


def first_with(process: subprocess.Popen[str], wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first JSON line that is wanted."""
    assert process.stdout is not None
    for line in process.stdout:
        sight = json.loads(line)
        if wanted(sight):
            return sight
    raise AssertionError("it ended before that")


def of(sight: dict[str, Any], model: str) -> list[dict[str, Any]]:
    return [load for load in sight["models"] if load["model"] == model]


@pytest.fixture
def load(url: str) -> Iterator[None]:
    """Four callers of version 2 of "scale", two rows a request, for a minute at most."""
    stop = threading.Event()
    end = time.monotonic() + 60

    def call() -> None:
        while not stop.is_set() and time.monotonic() < end:
            triton.infer("scale", {"x": np.ones((ROWS, 3), np.float32)}, version=2)

    with Client(url) as triton:
        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        try:
            yield
        finally:
            stop.set()
            for caller in callers:
                caller.join()


@pytest.mark.usefixtures("load")
def test_one_interval_for_programs(url, address):
    """The busiest version comes first, with figures that belong together; the others were idle."""
    done = top("--url", url, "--once", "--json", "--interval", "0.5")
    assert (done.returncode, done.stderr) == (0, "")
    sight = json.loads(done.stdout)
    assert sight["servers"] == [f"grpc://{address}"]
    assert sight["away"] == {}
    busiest = sight["models"][0]
    assert (busiest["model"], busiest["version"], busiest["state"]) == ("scale", "2", "READY")
    assert busiest["requests_per_s"] > 1
    assert busiest["rows_per_s"] / busiest["requests_per_s"] == pytest.approx(ROWS, rel=0.2)
    assert busiest["failures_per_s"] == 0
    assert ROWS <= busiest["mean_batch"] <= 8
    assert busiest["compute_us"] > 0
    assert busiest["running"] == pytest.approx(busiest["requests_per_s"] * busiest["compute_us"] / 1e6, rel=0.01)
    assert abs(busiest["last_request"] - time.time()) < 60
    (idle,) = (entry for entry in of(sight, "scale") if entry["version"] == "1")
    assert (idle["requests_per_s"], idle["queue_us"]) == (0, None)


@pytest.mark.usefixtures("load")
def test_intervals_are_printed_below_each_other_where_nobody_looks(url):
    """A heading and the versions that did something, each time, until Ctrl-C."""
    with running("--url", url, "--interval", "0.3") as process:
        assert process.stdout is not None
        assert process.stdout.readline().split()[1:6] == HEADING
        for _ in range(2):  # versions that others asked may be there as well, below the one that is under load
            row = process.stdout.readline()
            assert row.split()[1:4] == ["scale", "2", "READY"]
            assert float(row.split()[4].replace(",", "")) > 1
            for line in process.stdout:
                if line.split()[1:6] == HEADING:
                    break


def test_an_idle_server_is_said_to_be_idle(url):
    """One line, not nothing."""
    done = top("--url", url, "--once", "--interval", "0.2")
    assert done.returncode == 0
    assert re.fullmatch(r"\S+  no requests, \d+ versions served\n", done.stdout)


def test_models_come_and_go_and_begin_anew(url):
    """Unloaded: not there; loaded: there with its state; its counters began at 0 again, but no rate is below it."""
    x = {"x": np.ones((1, 3), np.float32)}
    with Client(url) as triton, running("--url", url, "--json", "--interval", "0.2") as process:
        for _ in range(5):
            triton.infer("spare", x)
        first_with(process, lambda sight: of(sight, "spare"))
        triton.unload("spare")
        first_with(process, lambda sight: not of(sight, "spare"))
        triton.load("spare")
        triton.infer("spare", x)
        again = first_with(process, lambda sight: any(entry["last_request"] for entry in of(sight, "spare")))
        assert [entry["state"] for entry in of(again, "spare")] == ["READY"]
        assert all(entry["requests_per_s"] >= 0 for entry in again["models"])


def test_a_model_that_does_not_load_is_shown_with_the_reason(tmp_path):
    """While others are served."""
    for name, model in (("scale", affine()), ("broken", b"junk")):
        write_model(tmp_path, name, model, inputs={"x": "FP32[3]"}, outputs={"y": "FP32[3]"}, max_batch_size=8)
    with EmbeddedTriton(tmp_path, exit_on_load_error=False) as server:
        sight = json.loads(top("--url", server.admin_url, "--once", "--json", "--interval", "0.2").stdout)
        server.announce()  # as `naiad serve` does: the secret is found by the address
        lines = top("--url", server.grpc_url, "--once", "--interval", "0.2").stdout.splitlines()
    assert [entry["state"] for entry in of(sight, "scale")] == ["READY"]
    (broken,) = of(sight, "broken")
    assert (broken["state"], broken["requests_per_s"]) == ("UNAVAILABLE", None)
    assert "valid ONNX model" in broken["reason"]
    assert [line.split()[1:4] for line in lines[1:]] == [["broken", "1", "UNAVAILABLE"]]


def test_without_the_secret_what_is_served_is_shown(address):
    """The index of the repository is an administrator's, the statistics are everybody's."""
    done = top("--url", f"grpc://{address}", "--once", "--json", "--interval", "0.2")
    assert done.returncode == 0
    assert {entry["version"] for entry in of(json.loads(done.stdout), "scale")} == {"1", "2"}


def test_a_server_may_come_and_go(tmp_path):
    """It says that it is away, and goes on by itself."""
    write_model(
        tmp_path / "repository", "scale", affine(), inputs={"x": "FP32[3]"}, outputs={"y": "FP32[3]"}, max_batch_size=8
    )
    (port,) = _ports.choose([0])
    server = f"grpc://127.0.0.1:{port}"
    with running("--url", server, "--json", "--interval", "0.2") as process:
        away = first_with(process, lambda sight: sight["away"])
        assert "no Triton server answers" in away["away"][server]
        assert away["models"] == []
        with EmbeddedTriton(tmp_path / "repository", grpc_port=port):
            seen = first_with(process, lambda sight: of(sight, "scale"))
            assert seen["away"] == {}
        first_with(process, lambda sight: sight["away"])


def test_of_several_servers_one_may_be_away(url, address):
    """The other's models are shown with their server; `--once` then ends with exit code 1."""
    done = top("--url", f"{url},{AWAY}", "--once", "--json", "--interval", "0.2")
    sight = json.loads(done.stdout)
    assert (done.returncode, list(sight["away"])) == (1, [f"grpc://{AWAY}"])
    assert {entry["server"] for entry in sight["models"]} == {f"grpc://{address}"}
    lines = top("--url", f"{url},grpc://{AWAY}", "--once", "--interval", "0.2").stdout.splitlines()
    assert lines[-1].endswith("or give the address of one that runs")
    assert f"grpc://{AWAY}" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--interval", "0"], "0.1"), (["--url", "http://localhost:8000"], "scheme 'http'"), (["--url", ","], "host")],
)
def test_wrong_use_is_one_message(arguments, message):
    """Exit code 2, no traceback."""
    done = top(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


class Terminal:
    """A `naiad top` in a terminal of a size."""

    def __init__(self, columns: int, lines: int, *arguments: object) -> None:
        self.screen = ""
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES"}}
        command = [*TOP, *map(str, arguments)]
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm"}
        )
        os.close(theirs)

    def until(self, pattern: str) -> str:
        """Read until that was on the screen."""
        deadline = time.monotonic() + 60
        while not re.search(pattern, self.screen):
            assert time.monotonic() < deadline, self.screen
            assert self._read(), self.screen
        return self.screen

    def interrupt(self) -> int:
        """What Ctrl-C does; return the exit code."""
        self._process.send_signal(signal.SIGINT)
        while self._read():
            pass
        os.close(self._fd)
        return self._process.wait(timeout=30)

    def _read(self) -> bool:
        """Whether there is more to come; colours and cursor movements are left out."""
        if not select.select([self._fd], [], [], 60)[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the terminal's way to say that the program ended
            return False
        self.screen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        return bool(data)


@pytest.mark.usefixtures("load")
def test_the_table_is_live_in_a_terminal(url):
    """It is there at once, figures come with the second reading, Ctrl-C ends it without an error."""
    terminal = Terminal(140, 30, "--url", url, "--interval", "0.3")
    terminal.until(r"every 0\.3 s")
    terminal.until(r"model +version +state +req/s +fail/s +rows/s +batch +waiting +running +queue +compute +last")
    terminal.until(r"scale +2 +READY +[\d,.]+ +0 +[\d,.]+ +\d\.\d .* µs .* s\b")
    assert terminal.interrupt() == 0
    assert "Traceback" not in terminal.screen
    assert "Abort" not in terminal.screen


@pytest.mark.usefixtures("load")
def test_a_narrow_and_low_terminal_has_what_matters(url):
    """Columns are left out, not broken; of the models those with the least to do."""
    terminal = Terminal(40, 6, "--url", url, "--interval", "0.3")
    terminal.until(r"scale +2 +[\d,.]+ +0\b")
    terminal.until(r"… and \d+ more with less to do")
    assert terminal.interrupt() == 0
    assert max(map(len, re.split(r"[\r\n]+", terminal.screen))) <= 40


@pytest.mark.parametrize("width", range(20, 140, 7))
def test_columns_fit_every_width(width):
    """As many as there is room for, model and requests always."""
    load = Load(server="grpc://gpu1:8001", model="digits", version="12", state="READY", reason="", requests_per_s=12345)
    sight = Sight(time=0.0, loads=(load,), away={}, servers=("grpc://gpu1:8001", "grpc://gpu2:8001"))
    columns = _fitting(_columns(sight), sight.loads, width)
    taken = sum(max(len(column.title), len(column.text(load))) + 2 for column in columns) - 2
    assert taken <= max(width, 20)
    assert [column.title for column in columns if column.title in {"model", "req/s"}] == ["model", "req/s"]
