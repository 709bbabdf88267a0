"""Configurations tried on the real Triton."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from loadtest_helpers import NAIAD, write_repository
from naiad.client import Client
from naiad.export import Repository
from naiad.loadtest import ConfigurationRefused, Connection, LoadTest, ServerBench, Slo, Traffic, Users, find_max, sweep
from naiad.server import EmbeddedTriton

SETTINGS = {"instance_group": [{"count": 2}], "dynamic_batching": {"max_queue_delay_microseconds": "500"}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("tune") / "models", "linear")


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(models) as triton:
        yield triton


@pytest.fixture(scope="module")
def load(server: EmbeddedTriton) -> LoadTest:
    connection = Connection(url=server.grpc_url)
    return LoadTest(traffic=Traffic(model="linear"), connection=connection, load=Users(users=4), warmup_s=0.25)


def config(models: Path) -> dict[str, Any]:
    return json_format.MessageToDict(Repository(models).config("linear"), preserving_proto_field_name=True)


def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [*NAIAD, "tune", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def delay_us(client: Client) -> int:
    found = json_format.MessageToDict(client.model_config("linear"), preserving_proto_field_name=True)  # type: ignore[arg-type]
    return int(found["dynamic_batching"].get("max_queue_delay_microseconds", 0))


def test_a_candidate_is_an_override_and_the_files_stay(server: EmbeddedTriton, models: Path, load: LoadTest) -> None:
    """The server runs the settings, answers with them, and goes back to its files at the end."""
    before = (models / "linear" / "config.pbtxt").read_bytes()
    with server.client() as client:
        with ServerBench(load, config(models), server.client) as bench:
            bench.apply(SETTINGS)
            assert delay_us(client) == 500
            report = bench.measure(replace(load, duration_s=0.5))
            assert report.measurement.completed > 0
            assert not report.measurement.errors
        assert delay_us(client) == 0
    assert (models / "linear" / "config.pbtxt").read_bytes() == before


def test_a_configuration_that_does_not_load_is_refused_and_the_old_one_serves(
    server: EmbeddedTriton, models: Path, load: LoadTest
) -> None:
    """The reason is the server's."""
    with ServerBench(load, config(models), server.client) as bench:
        with pytest.raises(ConfigurationRefused, match="failed to load"):
            bench.apply({"dynamic_batching": {"preferred_batch_size": [1000]}})
        assert bench.measure(replace(load, duration_s=0.5)).measurement.completed > 0


def test_sweep_and_search_run_on_a_real_server(load: LoadTest) -> None:
    """One engine group for all runs; every point has what the server says of its own time."""
    short = replace(load, duration_s=0.5)
    swept = sweep(short, "users=1,4")
    assert [point.value for point in swept.points] == [1, 4]
    assert all(point.throughput_per_s > 0 and point.compute_us is not None for point in swept.points)
    capacity = find_max(short, Slo.parse("p90<30ms"), low=300, high=400, repeats=3, budget_s=8)
    assert capacity.points
    assert all(300 <= point.rate_per_s <= 400 for point in capacity.points)
    assert all(point.point.requests > 0 for point in capacity.points)
    assert "p90<30ms" in capacity.text


def test_the_command_tunes_and_writes_what_it_confirmed(tmp_path: Path) -> None:
    """What it says it wrote is in config.pbtxt and the journal; what was not confirmed is not."""
    models = write_repository(tmp_path / "models", "linear")
    before = (models / "linear" / "config.pbtxt").read_bytes()
    options = ["--repository", models, "--trials", 2, "--window", "250ms", "--pairs", 6, "--users", 4, "--json"]
    done = run("linear", "--slo", "p99<1s", *options, "--resume", tmp_path / "study.db", "--html", tmp_path / "t.html")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["trials"]) == 2
    assert found["current"]["goodput_per_s"] > 0
    assert (tmp_path / "t.html").read_text().startswith("<!DOCTYPE html>")
    journal = [entry for entry in Repository(models).history("linear") if entry.action == "configure"]
    assert found["written"] == bool(journal) == ((models / "linear" / "config.pbtxt").read_bytes() != before)
    assert found["written"] == (found["winner"] is not None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["linear"], "expected an objective"),
        (["linear", "--slo", "p99<"], "p99"),
        (["nobody", "--slo", "p99<1s"], "there is no model 'nobody'"),
        (["linear", "--slo", "p99<1s", "--budget", "soon"], "expected a time like"),
        (["linear", "--slo", "p99<1s", "--against", "you"], "current or triton"),
    ],
)
def test_wrong_use_is_said_before_a_server_starts(models: Path, arguments: list[str], words: str) -> None:
    """One sentence, and an exit code that is not success."""
    done = run(*arguments, "--repository", models)
    assert done.returncode in (1, 2)
    assert words in " ".join(done.stderr.replace("│", " ").split())
