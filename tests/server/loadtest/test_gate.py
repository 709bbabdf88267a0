"""``naiad gate`` on real servers: one that is slower, one against itself, what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loadtest_helpers import NAIAD
from naiad.loadtest import Connection, GateOptions, LoadTest, Subject, Traffic, Users, compare
from programmed_server import MODEL, Holds, ProgrammedServer

HOLDS = Holds(median_ms=10, low_ms=8, high_ms=13, tail_share=0)
PAIRS = ("--pairs", "6", "--max-pairs", "6", "--keep-noise")
SHORT = (*PAIRS, "--window", "500ms", "--settle", "50ms", "--warmup", "250ms")
Gate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def server():
    with ProgrammedServer(HOLDS, seed=1) as running:
        yield running


@pytest.fixture(scope="module")
def slow_server():
    with ProgrammedServer(HOLDS, seed=2, slow=6) as running:
        yield running


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Run the command in an empty folder."""

    def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [*NAIAD, "gate", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)

    return call


def test_a_much_slower_server_is_a_regression_in_every_output(gate, server, slow_server, tmp_path):
    """Six times the latency, by a scenario: exit code 1, and JSON, JUnit, Markdown, page and history agree."""
    (tmp_path / "gate.toml").write_text(
        f'[server]\nurl = "{server.url}"\n[load]\nusers = 4\n[[models]]\nmodel = "{MODEL}"\n'
        f'[candidate]\nurl = "{slow_server.url}"\n'
    )
    outputs = ("--junit", "gate.xml", "--markdown", "gate.md", "--html", "gate.html", "--history", "history.jsonl")
    done = gate("gate.toml", "--metrics", "p50", *SHORT, "--seed", 3, *outputs, "--json")
    assert done.returncode == 1, done.stderr
    content = json.loads(done.stdout)
    assert content["verdict"] == "regression"
    assert content["metrics"][0]["ratio"] > 2
    assert content["num_pairs"] == 6
    assert slow_server.url in content["candidate"]["name"]
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot().find("testsuite")
    assert int(suite.get("failures")) == 2  # the verdict, and the metric
    assert "regression" in (tmp_path / "gate.md").read_text().splitlines()[0]
    assert "regression" in (tmp_path / "gate.html").read_text()
    assert "gate of 0.5 s" in (tmp_path / "history.jsonl").read_text()


def test_a_server_against_itself_passes(server):
    """No regression beyond a margin that no noise reaches; each side is prepared before each of its runs."""
    test = LoadTest(traffic=Traffic(model=MODEL), load=Users(users=4), connection=Connection(url=server.url))
    calls: list[str] = []
    sides = [Subject(name=name, test=test, prepare=lambda name=name: calls.append(name)) for name in ("a", "b")]
    options = GateOptions(
        metrics=("p50",),
        margin=5.0,
        pairs=6,
        max_pairs=6,
        window_s=0.25,
        settle_s=0.05,
        warmup_s=0.25,
        noise=None,
        seed=1,
    )
    result = compare(sides[0], sides[1], options)
    assert result.verdict == "no regression", result.text
    assert {"p90", "p99", "throughput", "compute"} <= set(result.pairs[0].baseline.values)
    assert calls.count("a") == calls.count("b") == 1 + len(result.pairs)


def test_the_false_alarm_rate_is_measured(gate, server):
    """One comparison of a server with itself: its rate, with the interval that so few allow."""
    done = gate(server.url, "--model", MODEL, "--users", 4, "--metrics", "p50:500", *SHORT, "--a-a", 1, "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["comparisons"] == 1
    assert content["interval"] == pytest.approx([0.0, 0.975])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grpc://127.0.0.1:1"], "CANDIDATE"),
        (["version:1", "version:2", "--model", "m", "--margin", "0"], "margin"),
        (["version:1", "version:2", "--model", "m", "--window", "fast"], "fast"),
        (["grpc://127.0.0.1:1", "grpc://127.0.0.1:2", "--model", "m"], "127.0.0.1:1"),
    ],
)
def test_wrong_use_and_no_server_end_with_5(gate, arguments, message):
    """What was never measured must not look like a verdict: exit code 5, and the reason on stderr."""
    done = gate(*arguments)
    assert done.returncode == 5, done.stdout
    assert message in "".join(done.stderr.split("\n"))
    assert not done.stdout
