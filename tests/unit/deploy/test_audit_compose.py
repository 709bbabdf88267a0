"""Compose files, judged."""

from pathlib import Path

import pytest
import yaml

from naiad.deploy._audit.finding import Severity
from naiad.deploy._audit.judge_compose import judge_compose
from naiad.deploy.errors import InvalidTarget

ROOT = Path(__file__).parents[3]
TRITON = {
    "image": "nvcr.io/nvidia/tritonserver:26.07-py3",
    "command": ["tritonserver", "--model-repository=/models", "--disable-auto-complete-config",
                "--grpc-max-response-pool-size=64"],
    "user": "1000:1000",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "pids_limit": 4096,
    "volumes": ["./model_repository:/models:ro"],
    "healthcheck": {"test": ["CMD", "true"]},
    "stop_grace_period": "40s",
}  # fmt: skip
ENVOY = {key: TRITON[key] for key in ("read_only", "cap_drop", "security_opt", "pids_limit", "healthcheck")} | {
    "image": "envoyproxy/envoy:v1.36.2",
    "user": "101",
    "ports": ["8443:8443"],
}


def write(folder: Path, triton: dict | None = None, gateway: dict | None = None) -> Path:
    path = folder / "docker-compose.yml"
    services = {"triton": TRITON | (triton or {}), "gateway": ENVOY | (gateway or {})}
    path.write_text(yaml.safe_dump({"services": services}))
    return path


def found(path: Path) -> dict[str, Severity]:
    return {f"{f.where.rpartition(' ')[2]} {f.id}": f.severity for f in judge_compose(path) if f.severity != "ok"}


def test_a_safe_file_has_no_findings(tmp_path):
    """Confined, pinned, read-only, behind the gateway."""
    assert found(write(tmp_path)) == {}


@pytest.mark.parametrize(
    ("change", "check", "severity"),
    [
        ({"image": "nvcr.io/nvidia/tritonserver:24.10-py3"}, "version", Severity.CRITICAL),
        ({"image": "tritonserver:latest"}, "container-image", Severity.MEDIUM),
        ({"image": "nvcr.io/nvidia/tritonserver"}, "container-image", Severity.MEDIUM),
        ({"user": "root"}, "container-user", Severity.HIGH),
        ({"user": None}, "container-user", Severity.HIGH),
        ({"read_only": False}, "container-confinement", Severity.MEDIUM),
        ({"cap_drop": []}, "container-confinement", Severity.MEDIUM),
        ({"cap_drop": None}, "container-confinement", Severity.MEDIUM),
        ({"security_opt": ["no-new-privileges:false"]}, "container-confinement", Severity.MEDIUM),
        ({"pids_limit": None}, "container-confinement", Severity.MEDIUM),
        ({"privileged": True}, "container-powers", Severity.CRITICAL),
        ({"network_mode": "host"}, "container-powers", Severity.HIGH),
        ({"ipc": "host"}, "container-powers", Severity.HIGH),
        ({"volumes": ["/var/run/docker.sock:/s", "./m:/models:ro"]}, "container-powers", Severity.CRITICAL),
        ({"ports": ["8001:8001"]}, "container-ports", Severity.CRITICAL),
        ({"ports": [{"target": 8001, "published": 8001}]}, "container-ports", Severity.CRITICAL),
        ({"ports": [8001]}, "container-ports", Severity.CRITICAL),
        ({"volumes": ["./model_repository:/models"]}, "container-repository", Severity.HIGH),
        ({"volumes": [{"type": "bind", "source": "./m", "target": "/models"}]}, "container-repository", Severity.HIGH),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "abc"}}, "container-secrets", Severity.HIGH),
        ({"environment": ["API_KEY=abc"]}, "container-secrets", Severity.HIGH),
        ({"healthcheck": {"disable": True}}, "container-health", Severity.LOW),
        ({"stop_grace_period": "30s"}, "container-grace", Severity.LOW),
        ({"command": [*TRITON["command"], "--model-control-mode=poll"]}, "process-control-mode", Severity.HIGH),
        ({"command": " ".join(TRITON["command"]) + " --allow-sagemaker=true"}, "process-endpoints", Severity.HIGH),
    ],
)
def test_each_weakness_of_triton_is_found(tmp_path, change, check, severity):
    """And nothing else with it."""
    assert found(write(tmp_path, triton=change)) == {f"triton {check}": severity}


@pytest.mark.parametrize(
    "change",
    [
        {"ports": ["127.0.0.1:8001:8001"]},
        {"ports": [{"target": 8001, "published": 8001, "host_ip": "127.0.0.1"}]},
        {"volumes": [{"type": "bind", "source": "./m", "target": "/models", "read_only": True}]},
        {"volumes": ["${REPOSITORY:-./model_repository}:/models:ro,z", "cache:/cache"]},
        {"environment": {"AWS_SECRET_ACCESS_KEY": "${AWS_SECRET_ACCESS_KEY}", "KEY_FILE": "/run/secrets/key"}},
        {"environment": {"GF_SECURITY_ADMIN_PASSWORD__FILE": "/run/secrets/grafana"}},
        {"image": "tritonserver@sha256:" + "0" * 64},
        {"image": "nvcr.io/nvidia/tritonserver:${RELEASE:-26.07}-py3"},
        {"stop_grace_period": "1m"},
        {"pids_limit": None, "deploy": {"resources": {"limits": {"pids": 100}}}},
    ],
)
def test_what_is_safe_in_another_way_is_not_found(tmp_path, change):
    """Ports for this machine only, read-only in the long form, secrets from outside, digests, variables' defaults."""
    assert found(write(tmp_path, triton=change)) == {}


def test_the_gateway_may_publish_its_port_and_no_other(tmp_path):
    """Its administration is none that others should reach."""
    assert found(write(tmp_path, gateway={"ports": ["8443:8443", "9901:9901"]})) == {
        "gateway container-ports": Severity.MEDIUM
    }


@pytest.mark.parametrize("files", [["docker-compose.yml"], ["docker-compose.yml", "deploy/compose.cpu.yml"]])
def test_of_our_own_files_there_is_nothing_to_say_but_what_they_say_themselves(files):
    """The collector's image has nothing that could look after it."""
    findings = [f for f in judge_compose(*(ROOT / name for name in files)) if f.severity != "ok"]
    assert [(f.id, f.where) for f in findings] == [("container-health", "docker-compose.yml: collector")]


def test_what_is_built_here_or_runs_on_request_needs_no_pin_and_no_health_check(tmp_path):
    """As the tools of docker-compose.yml."""
    tools = {"image": "tools", "build": ".", "healthcheck": None, "restart": "no", "ports": []}
    assert found(write(tmp_path, gateway=tools)) == {}


def test_files_are_laid_over_each_other(tmp_path):
    """Lists of ports grow, commands are replaced, `!override` replaces anything."""
    base, over = write(tmp_path), tmp_path / "over.yml"
    over.write_text("services: {triton: {ports: ['8001:8001'], cap_drop: !override []}, gateway: }\n")
    findings = {f"{f.where} {f.id}" for f in judge_compose(base, over) if f.severity != "ok"}
    where = "docker-compose.yml: triton"
    assert findings == {f"{where} container-ports", f"{where} container-confinement"}


def test_overrides_with_composes_own_tags_are_read(tmp_path):
    """`!reset` and `!override` are no YAML that is safe to load otherwise."""
    path = tmp_path / "override.yml"
    path.write_text(
        "services:\n  triton:\n    deploy: !reset null\n    cap_drop: !override [ALL]\n"
        "    environment: !override {A: b}\n    user: !override '1000'\n"
    )
    assert "triton container-user" not in found(path)


@pytest.mark.parametrize("text", ["[1, 2]", "a: b", "services: []", "{", "\ud800", "!!python/object:os.system {}"])
def test_no_compose_file_is_said_to_be_none(tmp_path, text):
    """Whatever it is; nothing in it is run."""
    path = tmp_path / "x.yml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(InvalidTarget, match="expected a compose file"):
        list(judge_compose(path))


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    """With its path."""
    with pytest.raises(InvalidTarget, match=r"nothing\.yml"):
        list(judge_compose(tmp_path / "nothing.yml"))
