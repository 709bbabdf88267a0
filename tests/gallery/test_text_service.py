"""The text classifier as a service: who is answered, what is written down, what is watched; and what is left of it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from launcher_helpers import eventually, write_model
from naiad.cli.demo.metrics import parse_metrics, quantile, total
from naiad.cli.demo.monitoring import Prometheus, measure, prometheus
from naiad.cli.demo.service import RunningService, serve_behind_gateway
from naiad.cli.demo.stage import Stage
from naiad.client import TLS, AccessDenied, ClientError, InferenceFailed, Retry
from naiad.deploy.errors import InvalidService
from naiad.export import Repository
from watched_service import FLAKY

CALLER = "support-desk"
DESCRIPTION = """
name = "watched"
[[identities]]
name = "caller"
rights = { infer = ["steady", "flaky"] }
[[identities]]
name = "stranger"
rights = { infer = ["another"] }
"""
X = {"x": np.zeros((1, 2), np.float32)}
RAISES = {"x": np.ones((1, 2), np.float32)}


def test_only_a_caller_with_a_key_and_the_right_is_answered(demo_of):
    """By gRPC and by HTTP, in the words of each."""
    calls = {each["caller"]: (each["gRPC"], each["HTTP"]) for each in demo_of("text_classifier").found["calls"]}
    assert calls == {
        "without a key": ("UNAUTHENTICATED", "401"),
        "with a key that has no right to it": ("PERMISSION_DENIED", "403"),
        "with the right key": ("OK", "200"),
    }


def requests_of(access_log: Path) -> list[dict[str, Any]]:
    """Its lines, without those of connections that never became a request, as on a busy machine some do not."""
    lines = [json.loads(line) for line in access_log.read_text().splitlines()]
    return [line for line in lines if "path" in line]


def test_the_access_log_says_who_asked_for_what_and_what_became_of_it(demo_of):
    """A line for each call, found by the request id that the caller gave."""
    run = demo_of("text_classifier")
    fields = ("identity", "model", "denied", "status")
    assert [tuple(each[name] for name in fields) for each in run.found["audit"]] == [
        (None, None, "no-credential", 401),
        ("image-search", "text_classifier", "no-right", 403),
        (CALLER, "text_classifier", None, 200),
    ]
    log = run.report / "access.jsonl"
    lines = requests_of(log)
    by_id = {line["request_id"]: line for line in lines if line["protocol"] == "HTTP/1.1"}
    assert all(by_id[each["request_id"]]["status"] == each["status"] for each in run.found["audit"])
    assert log.stat().st_mode & 0o077 == 0
    assert "naiad_" not in log.read_text()  # as keys begin


def test_the_load_test_goes_through_the_gateway_with_the_key(demo_of):
    """Every request of it is the caller's in the access log."""
    run = demo_of("text_classifier")
    assert run.found["gateway"]["throughput_per_s"] > 0
    assert 0 < run.found["gateway"]["latency_us"]["p50"] <= run.found["gateway"]["latency_us"]["p99"]
    report = json.loads((run.report / "gateway.json").read_text())["results"]
    assert report["failed"] == 0
    lines = requests_of(run.report / "access.jsonl")
    loaded = [line for line in lines if line["user_agent"].startswith("naiad-loadtest")]
    assert len([line for line in loaded if line["path"].endswith("/ModelInfer")]) >= report["completed"]
    assert {line["identity"] for line in loaded} == {CALLER}


def test_monitoring_has_latency_errors_and_resources_of_the_model(demo_of):
    """By the shipped rules in a real Prometheus, where an alert of theirs fires."""
    found = demo_of("text_classifier").found
    values = found["monitoring"]
    assert values["prometheus"], "put prometheus on the PATH: tests/deploy/install_tools.sh, or make test-gallery"
    assert 0 < values["latency_p50_ms"] <= values["latency_p99_ms"]
    assert values["failed_percent"] == 0
    assert values["computing_of_the_slowest_step_ms"] > 0
    assert values["processors_percent"] > 0
    assert values["memory_of_the_machine_mib"] > values["memory_of_the_gateway_mib"] > 0
    assert found["alert_fired"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A small stage: a model that answers, and one that raises for what is above zero."""
    folder = tmp_path_factory.mktemp("a service")
    repository = write_model(folder / "repository", "steady")
    write_model(repository, "flaky", source=FLAKY)
    return Stage("watched", repository=Repository(repository), folder=folder, duration_s=1, options={})


@pytest.fixture(scope="module")
def service(stage: Stage) -> Iterator[RunningService]:
    """It, served; replicas that die stay dead."""
    with serve_behind_gateway(stage, description=DESCRIPTION, supervise=False) as running:
        yield running


@pytest.fixture(scope="module")
def watching(stage: Stage, service: RunningService) -> Iterator[Prometheus]:
    """It, watched."""
    with prometheus(stage, service) as running:
        assert running is not None, "put prometheus on the PATH: tests/deploy/install_tools.sh, or make test-gallery"
        yield running


def test_a_caller_needs_the_right_certificate_of_the_gateway(service: RunningService):
    """The authority made for this run vouches for it; nobody else does."""
    with service.client("caller") as client:
        client.infer("steady", X)
    with (
        service.client("caller", tls=TLS(), retry=Retry(attempts=1), timeout=5.0) as client,
        pytest.raises(ClientError),
    ):
        client.infer("steady", X)
    with service.client("stranger") as client, pytest.raises(AccessDenied):
        client.infer("steady", X)


def test_without_prometheus_the_metrics_say_the_same(stage: Stage, service: RunningService, monkeypatch):
    """That it is missing is said; the figures come from the gateway and from Triton."""
    with service.client("caller") as client:
        for _ in range(20):
            client.infer("steady", X)
    monkeypatch.setenv("PATH", "/nowhere")
    with prometheus(stage, service) as running:
        assert running is None
    assert any("prometheus is not on the PATH" in warning for warning in stage.summary.warnings)
    measure(stage, service, "steady", None, num_requests=20)
    assert stage.summary.failures == []
    found = stage.summary.figures["monitoring"]
    assert 0 < found["latency_p50_ms"] <= found["latency_p99_ms"]
    assert found["failed_percent"] == 0
    assert not found["prometheus"]


def test_errors_of_a_model_are_told(service: RunningService, watching: Prometheus):
    """A model that raises: its error ratio has a value, and the shipped alert about it fires."""
    with service.client("caller", retry=Retry(attempts=1)) as client:
        client.infer("flaky", X)
        with pytest.raises(InferenceFailed):
            client.infer("flaky", RAISES)
        failed = 'envoy_naiad_requests{model="flaky",grpc_code="13"}'
        assert watching.wait_for(failed, timeout_s=30)  # a counter that is there can grow
        for _ in range(40):
            with pytest.raises(InferenceFailed):
                client.infer("flaky", RAISES)
    assert watching.wait_for('model:naiad_error_ratio:rate5m{model="flaky"} > 0.05', timeout_s=30)
    firing = 'ALERTS{alertname="ErrorRate",alertstate="firing",model="flaky"}'
    assert watching.wait_for(firing, timeout_s=60)


def test_a_replica_that_is_gone_is_told_and_the_other_answers(service: RunningService, watching: Prometheus):
    """The alert has its name; no caller notices."""
    assert not watching.query('ALERTS{alertname="ReplicaDown"}')
    service.kill("main-1")
    firing = 'ALERTS{alertname="ReplicaDown",alertstate="firing",replica="main-1"}'
    with service.client("caller") as client:
        while not watching.wait_for(firing, timeout_s=0):
            client.infer("steady", X)
    assert "ReplicaDown" in watching.firing()


def test_a_description_that_is_wrong_starts_nothing(stage: Stage):
    """And leaves no directory."""
    before = set(Path("/tmp").glob("naiad-*"))
    with pytest.raises(InvalidService), serve_behind_gateway(stage, description="tls = 7"):
        pass
    assert not _ours(set(Path("/tmp").glob("naiad-*")) - before)


SCRIPT = """
    import sys, time
    from pathlib import Path
    from naiad.cli.demo.monitoring import prometheus
    from naiad.cli.demo.service import serve_behind_gateway
    from naiad.cli.demo.stage import Stage
    from naiad.export import Repository

    repository, description = sys.argv[1:]
    stage = Stage("x", repository=Repository(repository), folder=Path(repository).parent, duration_s=1, options={})
    with serve_behind_gateway(stage, "steady", description=description) as service, prometheus(stage, service):
        replicas = [str(server.log_path.parent) for server in service.replicas.values()]
        print(service.directory, service.stack.gateway.log_path.parent, service.stack.directory, *replicas, flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_when_it_is_ended(stage: Stage, number: signal.Signals):
    """No key, no process, no directory: after Ctrl-C, after a polite end, and after none at all."""
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(stage.repository.path), DESCRIPTION]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            directories = [Path(name) for name in process.stdout.readline().split()]
            assert len(directories) == 5
            assert all(directory.is_dir() for directory in directories)
            assert (directories[0] / "secrets" / "api-keys").is_file()
            children = psutil.Process(process.pid).children(recursive=True)
            names = {child.name() for child in children}
            assert {"prometheus", "envoy", "tritonserver"} <= names, names
            process.send_signal(number)
        except BaseException:
            process.kill()  # or the end of `with` waits for it, and what failed is not said
            raise
    eventually(lambda: not any(directory.exists() for directory in directories), "all directories are gone")
    eventually(lambda: not any(_runs(child) for child in children), "all processes are gone")


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _ours(directories: set[Path]) -> set[Path]:
    """Those of this process: others of this machine run tests, too."""
    pid = os.getpid()
    return {
        directory
        for directory in directories
        if (owner := directory / "owner.json").exists() and json.loads(owner.read_text())["pid"] == pid
    }


def test_metrics_are_read_as_prometheus_writes_them():
    """Labels with quotes and braces, numbers of every kind; what is none is left out."""
    samples = parse_metrics('# HELP a b\na{x="q\\"{}",y="2"} 1\na{x="z"} 2e3 1700000000\nb NaN\n\nnonsense\n')
    assert [(each.name, each.labels) for each in samples] == [
        ("a", {"x": 'q\\"{}', "y": "2"}),
        ("a", {"x": "z"}),
        ("b", {}),
    ]
    assert total(samples, "a") == 2001
    assert total(samples, "a", x="z") == 2000


@pytest.mark.parametrize(("share", "expected"), [(0.25, 0.5), (0.5, 1.0), (0.6, 2.6), (0.99, 5.0)])
def test_a_quantile_is_interpolated_within_its_bucket(share: float, expected: float):
    """As Prometheus documents `histogram_quantile`; above all bounds it is the highest."""
    text = 'h_bucket{le="1"} 10\nh_bucket{le="5"} 15\nh_bucket{le="+Inf"} 20\n'
    assert quantile(parse_metrics(text), "h", share) == pytest.approx(expected)


def test_a_histogram_without_observations_has_no_quantile():
    """As before the first request."""
    assert quantile(parse_metrics('h_bucket{le="1"} 0\nh_bucket{le="+Inf"} 0\n'), "h", 0.5) is None


def test_a_prometheus_that_does_not_start_is_done_without(stage: Stage, service: RunningService, tmp_path, monkeypatch):
    """What it said is among the notes, and the service is measured all the same."""
    broken = tmp_path / "prometheus"
    broken.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with prometheus(stage, service) as running:
        assert running is None
    assert "ended with 7: no such flag" in stage.summary.warnings[-1]
