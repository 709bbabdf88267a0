"""The containers as Compose itself resolves them: what they may do, who reaches them, and what they are told."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from deploy_helpers import ROOT, program, run
from naiad.deploy import Canary, Limits, Pool, Service, Shadow, Triton, load_service
from naiad.deploy._files import write_all
from naiad.deploy.compose import compose_place, render_compose
from naiad.deploy.render import render

CPU = ("docker-compose.yml", "deploy/compose.cpu.yml")
CHECKERS = {"triton": "curl", "gateway": "bash", "prometheus": "wget", "alertmanager": "wget", "grafana": "wget"}
"""What asks for the health of a container: each is in the image."""
UNCHECKED = {"collector", "tools"}
"""The one has a single program, which asks nobody; the other ends by itself."""
WRITABLE_VOLUMES = {"prometheus", "traces", "fetched"}

VARIANTS = {
    "default": Service(),
    "committed": load_service(ROOT / "deploy" / "service.toml"),
    "three replicas with two GPUs each": Service(
        triton=Triton(gpus_per_replica=2), pools=(Pool(name="main", num_replicas=3),)
    ),
    "canary on S3, shadow, explicit control": Service(
        triton=Triton(model_control="explicit", exit_timeout_s=90, shared_memory_mb=256),
        pools=(
            Pool(name="main", num_replicas=2),
            Pool(name="next", repository="s3://models/next"),
            Pool(name="copy", repository="../other_models"),
        ),
        canary=Canary(pool="next", weight_percent=5),
        shadow=Shadow(pool="copy"),
    ),
    "client certificates, long answers": Service(
        name="vision", client_certificates="required", limits=Limits(response_timeout_s=300)
    ),
    "without TLS": Service(tls=False),
}


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A Compose file with its variables and overrides put in."""

    service: Service
    content: Mapping[str, Any]

    @property
    def containers(self) -> dict[str, dict[str, Any]]:
        return dict(self.content["services"])

    @property
    def replicas(self) -> dict[str, dict[str, Any]]:
        return {name: fields for name, fields in self.containers.items() if name.startswith("triton-")}


def resolve(directory: Path, *files: str, **environment: str) -> dict[str, Any]:
    """What Compose makes of these files, all profiles included."""
    chosen = [argument for file in files or CPU[:1] for argument in ("-f", file)]
    compose = [program("docker-compose"), "--project-directory", ".", *chosen, "--profile", "*"]
    run([*compose, "config", "--quiet"], directory=directory, environment=environment)
    done = run([*compose, "config", "--format", "json"], directory=directory, environment=environment)
    return dict(json.loads(done))


def write(files: Mapping[str, str], directory: Path) -> Path:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of each variant, in directories whose names have spaces."""
    return {
        name: write(render_compose(service), tmp_path_factory.mktemp("a project") / "with spaces")
        for name, service in VARIANTS.items()
    }


@pytest.fixture(scope="module", params=[(name, files) for name in VARIANTS for files in (CPU[:1], CPU)], ids=str)
def resolved(request: pytest.FixtureRequest, rendered: dict[str, Path]) -> Resolved:
    """Each variant, with and without the override for machines without GPUs."""
    name, files = request.param
    return Resolved(service=VARIANTS[name], content=resolve(rendered[name], *files))


def seconds(duration: str) -> int:
    """A duration of Compose: 1m30s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


def size(value: str | int) -> int:
    return int(value)


def test_only_the_gateway_is_reached_from_outside(resolved: Resolved) -> None:
    """The gateway's one port is published, everywhere only with TLS; Grafana's on this host only; nothing else."""
    published = {
        (name, port["target"], port["host_ip"])
        for name, fields in resolved.containers.items()
        for port in fields.get("ports", [])
    }
    address = "0.0.0.0" if resolved.service.tls else "127.0.0.1"
    assert published == {("gateway", 8443, address), ("grafana", 3000, "127.0.0.1")}


def test_no_container_may_more_than_it_needs(resolved: Resolved) -> None:
    """No capability, no new privileges, no root user, no writable root, nothing of the host shared."""
    for name, fields in resolved.containers.items():
        assert fields["cap_drop"] == ["ALL"], name
        assert fields["security_opt"] == ["no-new-privileges:true"], name
        assert fields["read_only"] is True, name
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", fields["user"]), name
        forbidden = {"cap_add", "privileged", "network_mode", "pid", "ipc", "devices", "userns_mode", "extra_hosts"}
        assert not forbidden & fields.keys(), name


def test_nothing_of_the_host_can_be_written(resolved: Resolved) -> None:
    """Every file and directory of the host is mounted to be read; only volumes of their own are written to."""
    for name, fields in resolved.containers.items():
        for mount in fields.get("volumes", []):
            if mount["type"] == "bind":
                assert mount["read_only"] is True, (name, mount)
                assert "docker.sock" not in mount["source"]
                assert mount["bind"].get("create_host_path") is not True, "a missing directory must be an error"
            else:
                assert mount["type"] == "volume", (name, mount)
                assert mount["source"].partition("-")[0] in WRITABLE_VOLUMES, (name, mount)


def test_every_container_is_bounded(resolved: Resolved) -> None:
    """Memory, processes, temporary files and logs each have an upper limit."""
    for name, fields in resolved.containers.items():
        assert 64 << 20 <= size(fields["mem_limit"]) <= 64 << 30, name
        assert 64 <= fields["pids_limit"] <= 8192, name
        assert fields["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert all("size=" in entry and "nosuid" in entry for entry in fields.get("tmpfs", [])), name


def test_images_are_pinned_to_a_release(resolved: Resolved) -> None:
    """No image is the newest one of the day."""
    for name, fields in resolved.containers.items():
        pinned = re.search(r":v?\d+\.\d+(\.\d+)?(-py3)?$", fields["image"])
        assert pinned or fields["build"]["dockerfile"] == "deploy/Dockerfile", name


def test_the_image_of_the_gateway_is_of_the_release_that_the_tests_run(resolved: Resolved, envoy: Path) -> None:
    """Envoy in the container and Envoy in these tests differ in fixes only."""
    tested = re.search(r"/(\d+\.\d+)\.\d+/", run([envoy, "--version"]))
    assert tested is not None
    assert re.fullmatch(rf"envoyproxy/envoy:v{tested[1]}\.\d+", resolved.containers["gateway"]["image"])


def test_requests_in_flight_have_time_to_finish(resolved: Resolved) -> None:
    """A replica is killed later than its own time-out, the gateway later than the longest answer."""
    for fields in resolved.replicas.values():
        assert seconds(fields["stop_grace_period"]) > resolved.service.triton.exit_timeout_s
        assert f"--exit-timeout-secs={resolved.service.triton.exit_timeout_s}" in fields["command"]
    gateway = resolved.containers["gateway"]
    waits = {name: wait["condition"] for name, wait in gateway["depends_on"].items()}
    assert waits == dict.fromkeys(resolved.replicas, "service_started"), "Compose stops what depends on others first"
    assert not any(wait.get("restart") for wait in gateway["depends_on"].values())
    drain_s = int(gateway["entrypoint"][-1])
    assert seconds(gateway["stop_grace_period"]) > drain_s > resolved.service.limits.response_timeout_s


def test_secrets_are_files_and_nothing_else(resolved: Resolved) -> None:
    """No secret is in the environment or in a command line; each is a file of the secrets directory."""
    for name, fields in resolved.containers.items():
        for variable, value in fields.get("environment", {}).items():
            secret = re.search(r"KEY|PASSWORD|SECRET|TOKEN|CREDENTIAL", variable)
            assert not secret or value.startswith("/run/secrets/"), (name, variable)
        line = [argument for argument in fields.get("command") or [] if "admin-key=" in argument]
        assert all(argument.endswith("admin-key={key}") for argument in line), name
    for name, secret in resolved.content["secrets"].items():
        assert secret["file"].endswith(f"deploy/secrets/{name}")


def test_replicas_are_reached_by_the_gateway_and_the_monitoring_only(resolved: Resolved) -> None:
    """They are on a network without a way out, and on one to their storage only where that is far away."""
    networks = resolved.content["networks"]
    assert networks["inference"]["internal"] is True
    assert networks["monitoring"]["internal"] is True
    members = {name for name, fields in resolved.containers.items() if "inference" in fields["networks"]}
    assert members == {*resolved.replicas, "gateway", "prometheus", "collector", "tools"}
    for pool in resolved.service.pools:
        expected = {"inference", "storage"} if "://" in (pool.repository or "") else {"inference"}
        for index in range(pool.num_replicas):
            assert resolved.replicas[f"triton-{pool.name}-{index}"]["networks"].keys() == expected


def test_every_address_of_the_gateway_is_a_container(resolved: Resolved) -> None:
    """The gateway finds every replica, and the collector, by names on its own networks."""
    place = compose_place(resolved.service)
    names = {endpoint.host for endpoints in place.endpoints.values() for endpoint in endpoints}
    assert names == resolved.replicas.keys()
    assert place.collector is not None
    assert "inference" in resolved.containers[place.collector[0]]["networks"]


def test_triton_is_told_to_be_strict(resolved: Resolved) -> None:
    """Ready means every model is; what cannot be loaded ends it; who manages models and memory needs the key."""
    explicit = resolved.service.triton.model_control == "explicit"
    for fields in resolved.replicas.values():
        assert {
            "--strict-readiness=true",
            "--exit-on-error=true",
            "--disable-auto-complete-config",
            f"--model-control-mode={resolved.service.triton.model_control}",
            "--grpc-restricted-protocol=model-repository,shared-memory,trace,logging:admin-key={key}",
            "--http-restricted-api=model-repository,shared-memory,trace,logging:admin-key={key}",
        } <= set(fields["command"])
        assert any(argument.startswith("--grpc-max-response-pool-size=") for argument in fields["command"])
        assert ("--load-model=*" in fields["command"]) is explicit
        assert fields["secrets"][0]["source"] == "triton-admin-key"
        assert size(fields["shm_size"]) >= 256 << 20


def test_each_health_is_asked_by_a_program_of_the_image(resolved: Resolved) -> None:
    """A start that takes long is no failure, and every check has a time-out."""
    for name, fields in resolved.containers.items():
        if name in UNCHECKED:
            assert "healthcheck" not in fields, name
            continue
        check = fields["healthcheck"]
        assert check["test"][:2] == ["CMD", CHECKERS[name.partition("-")[0]]], name
        assert seconds(check["start_period"]) >= 30, name
        assert seconds(check["timeout"]) < seconds(check["interval"]), name


def test_a_repository_far_away_is_fetched_with_a_file_of_credentials(rendered: dict[str, Path]) -> None:
    """The canary's replica gets them, a volume on disk for what it fetches, and no other repository."""
    content = resolve(rendered["canary on S3, shadow, explicit control"])
    fields = content["services"]["triton-next-0"]
    assert "--model-repository=s3://models/next" in fields["command"]
    assert fields["environment"]["TRITON_CLOUD_CREDENTIAL_PATH"] == "/run/secrets/cloud-credentials"
    assert {mount["target"] for mount in fields["volumes"]} == {"/naiad/run_triton.py", "/tmp"}
    assert "tmpfs" not in fields


def test_a_path_of_a_pool_lies_beside_the_description(rendered: dict[str, Path]) -> None:
    """The description is in deploy, Compose's paths begin above it."""
    name = "canary on S3, shadow, explicit control"
    fields = resolve(rendered[name])["services"]["triton-copy-0"]
    (models,) = (mount["source"] for mount in fields["volumes"] if mount["target"] == "/models")
    assert Path(models) == rendered[name] / "other_models"


def test_replicas_with_gpus_of_their_own_share_none(rendered: dict[str, Path]) -> None:
    """Two each, dealt out in order."""
    services = resolve(rendered["three replicas with two GPUs each"])["services"]
    devices = [
        services[f"triton-main-{index}"]["deploy"]["resources"]["reservations"]["devices"][0] for index in range(3)
    ]
    assert [device["device_ids"] for device in devices] == [["0", "1"], ["2", "3"], ["4", "5"]]


def test_without_gpus_nothing_is_reserved_and_everything_is_smaller(rendered: dict[str, Path]) -> None:
    """The override takes the GPUs away, and leaves the rest as it is."""
    for name, directory in rendered.items():
        whole, small = (resolve(directory, *files)["services"] for files in (CPU[:1], CPU))
        assert whole.keys() == small.keys()
        for container, fields in small.items():
            assert not fields.get("deploy", {}).get("resources"), (name, container)
            assert size(fields["mem_limit"]) <= size(whole[container]["mem_limit"])
            if container.startswith("triton-"):
                assert fields["command"] == [*whole[container]["command"], "--allow-gpu-metrics=false"]


def test_the_host_decides_where_things_lie(rendered: dict[str, Path], tmp_path: Path) -> None:
    """Repository, secrets, user, port and address come from the environment."""
    content = resolve(
        rendered["default"],
        NAIAD_MODEL_REPOSITORY=str(tmp_path / "models"),
        NAIAD_SECRETS=str(tmp_path / "secrets"),
        NAIAD_UID="4711",
        NAIAD_GRPC_PORT="9443",
        NAIAD_ADDRESS="192.0.2.1",
        NAIAD_GPU_COUNT="2",
    )
    replica, gateway = content["services"]["triton-main-0"], content["services"]["gateway"]
    assert str(tmp_path / "models") in [mount["source"] for mount in replica["volumes"]]
    assert str(tmp_path / "secrets") in [mount["source"] for mount in gateway["volumes"]]
    assert content["secrets"]["triton-admin-key"]["file"] == str(tmp_path / "secrets" / "triton-admin-key")
    assert replica["user"] == gateway["user"] == "4711:1000"
    assert [(port["host_ip"], port["published"]) for port in gateway["ports"]] == [("192.0.2.1", "9443")]
    assert replica["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 2


def test_what_containers_mount_is_rendered(tmp_path: Path) -> None:
    """Every file and directory of the project that a container reads is one that `naiad deploy render` writes."""
    service = VARIANTS["committed"]
    directory = write(render(service), tmp_path / "project")
    for name, fields in resolve(directory)["services"].items():
        for mount in fields.get("volumes", []):
            source = Path(mount["source"])
            if mount["type"] == "bind" and source.name not in ("secrets", "model_repository"):
                assert source.exists(), (name, mount["source"])


def test_what_is_rendered_can_be_read_by_the_users_of_the_containers(tmp_path: Path) -> None:
    """They are others than the one who renders, whose umask may be a strict one."""
    before = os.umask(0o077)
    try:
        write_all(tmp_path / "project", render(VARIANTS["committed"]))
    finally:
        os.umask(before)
    for path in (tmp_path / "project").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_the_committed_files_are_those_of_the_description() -> None:
    """Nobody has edited what is rendered."""
    for name, text in render_compose(VARIANTS["committed"]).items():
        assert (ROOT / name).read_text() == text, f"{name} differs: run `naiad deploy render`"


def test_the_same_service_gives_the_same_files() -> None:
    """No date, no order of chance."""
    service = VARIANTS["committed"]
    assert render_compose(service) == render_compose(replace(service))
    assert os.linesep == "\n" or all("\r" not in text for text in render_compose(service).values())
