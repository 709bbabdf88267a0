"""What the gateway's container runs, taken out of the rendered file and run here with the real Envoy."""

import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from container_helpers import KEY, SERVICE, check, container, finished, free_ports, started
from deploy_helpers import endpoint
from launcher_helpers import ask, eventually
from naiad.client import Client
from naiad.client.errors import ClientError
from naiad.deploy import Place
from naiad.deploy._compose import gateway as gateway_container
from naiad.deploy._envoy.binary import find_envoy
from naiad.deploy._files import write_all
from naiad.deploy._gateway import render_gateway
from naiad.deploy.compose import compose_place
from naiad.server import EmbeddedTriton


@dataclass(frozen=True, kw_only=True)
class Running:
    """The gateway's runner with the real Envoy, and how to reach them."""

    process: subprocess.Popen[bytes]
    place: Place
    log: Path
    fields: dict[str, Any]

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.place.port}"

    @property
    def healthy(self) -> bool:
        return check(self.fields, compose_place(SERVICE).metrics_port, self.place.metrics_port) == 0

    @property
    def envoy(self) -> psutil.Process:
        (child,) = (each for each in psutil.Process(self.process.pid).children() if "envoy" in each.name())
        return child

    def active(self) -> int:
        """Requests in flight, as Prometheus would read them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.place.metrics_port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.startswith("envoy_cluster_upstream_rq_active{") and "-grpc" in line]
        return sum(int(line.rpartition(" ")[2]) for line in found)


@contextmanager
def gateway(
    project: Path, directory: Path, servers: Sequence[EmbeddedTriton], *, drain_s: int | None = None
) -> Iterator[Running]:
    """The gateway's container as processes here: its runner, its command, its rendered configuration."""
    fields = container(project, "gateway")
    port, metrics_port = free_ports(2)
    place = replace(
        compose_place(SERVICE),
        config_dir=str(directory / "gateway"),
        secrets_dir=str(directory / "secrets"),
        endpoints={"main": tuple(endpoint(f"main-{index}", server) for index, server in enumerate(servers))},
        host="127.0.0.1",
        port=port,
        metrics_host="127.0.0.1",
        metrics_port=metrics_port,
        admin=str(directory / "admin.sock"),
        collector=None,
    )
    (directory / "secrets").mkdir()
    (directory / "secrets" / "api-keys").write_text("")
    (directory / "secrets" / "triton-admin-key").write_text(KEY)
    write_all(directory / "gateway", render_gateway(SERVICE, place))
    moved = {
        "/naiad/run_gateway.sh": str(project / gateway_container.RUNNER),
        compose_place(SERVICE).admin: place.admin,
        "envoy": str(find_envoy()),
        "/etc/naiad/gateway/envoy.yaml": str(directory / "gateway" / "envoy.yaml"),
    }
    parts = [*fields["entrypoint"], *fields["command"]]
    assert moved.keys() <= set(parts)
    command = [moved.get(part, part) for part in parts]
    if drain_s is not None:
        command[3] = str(drain_s)
    log = directory / "gateway.log"
    with started([*command, "--concurrency", "1"], log) as process:
        running = Running(process=process, place=place, log=log, fields=fields)
        eventually(lambda: process.poll() is not None or running.healthy, "the gateway is healthy")
        assert process.poll() is None, log.read_text()
        yield running


def test_the_gateway_lets_requests_in_flight_finish(
    project: Path, tmp_path: Path, tritons: tuple[EmbeddedTriton, EmbeddedTriton]
) -> None:
    """Asked to end it is unhealthy at once, finishes what runs, takes nothing more, and ends well."""
    answers: list[float] = []
    with gateway(project, tmp_path, tritons) as running:
        with Client(running.url) as client:
            eventually(lambda: client.ready(), "the gateway reaches a replica")
            slow = threading.Thread(target=lambda: answers.append(float(ask(client, "identity", 8.0).max())))
            slow.start()
            eventually(lambda: running.active() == 1, "the request runs")
            running.process.terminate()
            eventually(lambda: not running.healthy, "the gateway is unhealthy")
            assert not answers, "it was unhealthy only after the last answer"
            assert running.process.poll() is None
            slow.join(60)
        assert answers == [8.0]
        assert running.process.wait(60) == 0
        assert "ending with 0 requests in flight" in running.log.read_text()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.place.port), timeout=10)


def test_the_gateway_does_not_wait_for_ever(
    project: Path, tmp_path: Path, tritons: tuple[EmbeddedTriton, EmbeddedTriton]
) -> None:
    """What has not finished when its time is up is cut off, before the engine would kill everything."""
    errors: list[BaseException] = []
    with gateway(project, tmp_path, tritons, drain_s=1) as running, Client(running.url, timeout=60) as client:
        eventually(lambda: client.ready(), "the gateway reaches a replica")

        def call() -> None:
            try:
                ask(client, "identity", 10.0)
            except ClientError as error:
                errors.append(error)

        slow = threading.Thread(target=call)
        slow.start()
        eventually(lambda: running.active() == 1, "the request runs")
        running.process.terminate()
        assert running.process.wait(60) == 0
        slow.join(60)
    assert errors
    assert "ending with 1 requests in flight" in running.log.read_text()


def test_a_gateway_that_dies_ends_its_container(
    project: Path, tmp_path: Path, tritons: tuple[EmbeddedTriton, EmbeddedTriton]
) -> None:
    """The engine starts it again."""
    with gateway(project, tmp_path, tritons) as running:
        running.envoy.kill()
        assert running.process.wait(30) == 128 + signal.SIGKILL


def test_a_gateway_that_does_not_start_ends_its_container(project: Path, tmp_path: Path) -> None:
    """With Envoy's own words in the log."""
    runs = [str(project / gateway_container.RUNNER), str(tmp_path / "admin"), "1"]
    done = finished(["bash", *runs, str(find_envoy()), "--config-path", "/no/such/file", "--disable-hot-restart"])
    assert done.returncode == 1
    assert "/no/such/file" in done.stderr
