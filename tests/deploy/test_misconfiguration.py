"""Linters and scanners of others look at what we deploy, by their rules and not by ours."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy_helpers import ROOT, program, run
from naiad.deploy import load_service
from naiad.deploy.render import render

ACCEPTED = {
    "KSV020": "uid 1000 is the one that NVIDIA's image has made for Triton; it owns the secrets' files",
    "KSV021": "as KSV020, for the group",
    "KSV011": "a limit on processors would slow requests down; Compose's share by weight protects the rest",
    "KSV015": "Compose reserves no processors",
    "KSV016": "Compose reserves no memory",
}
"""Rules that we do not follow, each with its reason."""
TRANSLATED = ("KSV001", "KSV003", "KSV012", "KSV013", "KSV014", "KSV018")
"""Rules which the scanner must have tried on every container, so that a translation that says nothing is noticed."""
LOOSENED: dict[str, tuple[dict[str, Any], str]] = {
    "writable": ({"read_only": False}, "KSV014"),
    "root": ({"user": "0:0"}, "KSV012"),
    "capable": ({"cap_drop": []}, "KSV003"),
    "administrator": ({"cap_add": ["SYS_ADMIN"]}, "KSV005"),
    "climber": ({"security_opt": []}, "KSV001"),
    "privileged": ({"privileged": True}, "KSV017"),
    "neighbour": ({"network_mode": "host"}, "KSV009"),
    "newest": ({"image": "nvcr.io/nvidia/tritonserver:latest"}, "KSV013"),
}
"""Containers that may more than ours, and the rule that each breaks."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one rule says of one file."""

    file: str
    rule: str
    kept: bool
    message: str


def scan(directory: Path, cache: Path) -> list[Finding]:
    """What Trivy says of the files of a directory, rules that are kept included; nothing is fetched."""
    options = ["--skip-check-update", "--include-non-failures", "--cache-dir", cache, "--format", "json", "--quiet"]
    found = json.loads(run([program("trivy"), "config", *options, directory], timeout_s=170))
    return [
        Finding(file=result["Target"], rule=each["ID"], kept=each["Status"] == "PASS", message=each["Message"])
        for result in found.get("Results", [])
        for each in result.get("Misconfigurations", [])
    ]


def broken(findings: list[Finding]) -> list[Finding]:
    """Rules that are not kept, without those that we do not follow."""
    return [finding for finding in findings if not finding.kept and finding.rule not in ACCEPTED]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trivy")


def pod(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A container of a Compose file in the words of Kubernetes, for which scanners have rules.

    Only what the file says is translated: what it leaves out is left out here, too. Compose has no word for the
    profile of system calls; Docker's own is in force unless `security_opt` takes it away, which is checked.
    """
    user, _, group = re.sub(r"\$\{\w+:-(\d+)\}", r"\1", fields["user"]).partition(":")
    options = fields.get("security_opt", [])
    security = {
        "allowPrivilegeEscalation": "no-new-privileges:true" not in options,
        "capabilities": {"drop": fields.get("cap_drop", []), "add": fields.get("cap_add", [])},
        "privileged": fields.get("privileged", False),
        "readOnlyRootFilesystem": fields.get("read_only", False),
        "runAsUser": int(user),
        "runAsGroup": int(group),
        "runAsNonRoot": int(user) > 0,
        "seccompProfile": {"type": "Unconfined" if "seccomp:unconfined" in options else "RuntimeDefault"},
    }
    container = {
        "name": name,
        "image": fields["image"],
        "securityContext": security,
        "resources": {"limits": {"memory": re.sub(r"\$\{\w+:-(\w+)\}", r"\1", fields["mem_limit"])}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "naiad"},
        "spec": {
            "containers": [container],
            "automountServiceAccountToken": False,
            "hostNetwork": fields.get("network_mode") == "host",
            "hostPID": fields.get("pid") == "host",
            "hostIPC": fields.get("ipc") == "host",
            "securityContext": {"runAsNonRoot": int(user) > 0, "seccompProfile": security["seccompProfile"]},
        },
    }


def containers() -> dict[str, dict[str, Any]]:
    content = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return dict(content["services"])


def translated(directory: Path, fields: Mapping[str, Mapping[str, Any]]) -> Path:
    directory.mkdir()
    for name, each in fields.items():
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(pod(name, each)))
    return directory


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    """Not even what it only suggests."""
    run([program("hadolint"), "--failure-threshold", "ignore", "deploy/Dockerfile"])


def test_the_scanner_finds_nothing_in_the_dockerfile(tmp_path: Path, cache: Path) -> None:
    """Every rule for Dockerfiles is kept."""
    shutil.copy(ROOT / "deploy" / "Dockerfile", tmp_path / "Dockerfile")
    findings = scan(tmp_path, cache)
    assert len(findings) > 20
    assert [finding for finding in findings if not finding.kept] == []


def test_the_scanner_finds_nothing_in_the_containers(tmp_path: Path, cache: Path) -> None:
    """Each container, translated for the rules of the scanner, keeps all but those that we say why we do not."""
    services = {name: fields for name, fields in containers().items() if name != "tools"}
    findings = scan(translated(tmp_path / "pods", services), cache)
    for rule in TRANSLATED:
        assert len([finding for finding in findings if finding.rule == rule and finding.kept]) == len(services), rule
    assert broken(findings) == []
    assert {finding.rule for finding in findings if not finding.kept} == ACCEPTED.keys()


def test_the_scanner_would_find_it(tmp_path: Path, cache: Path) -> None:
    """Containers that may more than ours are reported: the scan can fail."""
    replica = containers()["triton-main-0"]
    loosened = {name: {**replica, **change} for name, (change, _) in LOOSENED.items()}
    found = {(finding.file, finding.rule) for finding in broken(scan(translated(tmp_path / "pods", loosened), cache))}
    assert {(f"{name}.yaml", rule) for name, (_, rule) in LOOSENED.items()} <= found


def test_no_secret_lies_in_what_is_rendered(tmp_path: Path, cache: Path) -> None:
    """The scanner's rules for keys and passwords find none in any rendered file, and find one that is put there."""
    for name, text in render(load_service(ROOT / "deploy" / "service.toml")).items():
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_text(text)
    assert secrets(tmp_path / "files", cache) == []
    (tmp_path / "files" / "leak.yaml").write_text(f"token: ghp_{'aB3' * 12}\n")
    assert secrets(tmp_path / "files", cache) == ["leak.yaml"]


def secrets(directory: Path, cache: Path) -> list[str]:
    options = ["--scanners", "secret", "--offline-scan", "--cache-dir", cache, "--format", "json", "--quiet"]
    found = json.loads(run([program("trivy"), "filesystem", *options, directory], timeout_s=170))
    return [result["Target"] for result in found.get("Results", []) if result.get("Secrets")]
