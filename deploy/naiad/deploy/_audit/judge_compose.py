"""Judges a compose file: what containers may do, and what of them others reach."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from naiad.deploy._audit.arguments import judge_arguments
from naiad.deploy._audit.compose import ComposeService, load_compose
from naiad.deploy._audit.finding import GUIDE, Finding, Severity, ok
from naiad.deploy._audit.judge_server import judge_release
from naiad.deploy._audit.releases import release_of_image

_CONTAINERS: Final = "https://cheatsheetseries.owasp.org/cheatsheets/Docker_Security_Cheat_Sheet.html"
_PORTS: Final = "https://docs.docker.com/engine/network/packet-filtering-firewalls/"
_SECRETS: Final = "https://docs.docker.com/compose/how-tos/use-secrets/"
_SECRET_NAME: Final = re.compile(
    r"(PASSWORD|SECRET|TOKEN|ACCESS_KEY|API_?KEY|PRIVATE_KEY)(?!_?FILE|__FILE)", re.IGNORECASE
)
_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_FLOATING: Final = frozenset({"", "latest", "main", "stable", "edge", "nightly"})


def judge_compose(*paths: Path) -> Iterator[Finding]:
    """All findings about compose files that are laid over each other. Raises: `InvalidTarget` if one is none."""
    for service in load_compose(*paths):
        where = f"{paths[0].name}: {service.name}"
        for judge in _EVERY:
            yield judge(service, where)
        if service.is_triton:
            yield from _judge_triton(service, where)


def _judge_triton(service: ComposeService, where: str) -> Iterator[Finding]:
    release = release_of_image(service.image)
    if release is not None:
        yield judge_release(release, "the image", where)
    yield _repository(service, where)
    yield _grace(service, where)
    if service.command:
        yield from judge_arguments(service.arguments, where)


def _confinement(service: ComposeService, where: str) -> Finding:
    raw = service.raw
    lacks = []
    if "ALL" not in {capability.upper() for capability in service.listed("cap_drop")}:
        lacks.append("cap_drop: [ALL]")
    if not any(
        option.startswith("no-new-privileges") and "false" not in option for option in service.listed("security_opt")
    ):
        lacks.append("security_opt: [no-new-privileges:true]")
    if raw.get("read_only") is not True:
        lacks.append("read_only: true")
    if not raw.get("pids_limit") and not _deep(raw, "deploy", "resources", "limits", "pids"):
        lacks.append("pids_limit")
    if not lacks:
        return ok("container-confinement", where, "no capabilities, no new privileges, a read-only root, a pids limit")
    return Finding(
        id="container-confinement",
        severity=Severity.MEDIUM,
        where=where,
        found=f"without {', '.join(lacks)}",
        why="each is a way out of a server that was broken into",
        fix=f"add {', '.join(lacks)}",
        source=_CONTAINERS,
    )


def _powers(service: ComposeService, where: str) -> Finding:
    raw = service.raw
    powers = ["privileged"] if raw.get("privileged") is True else []
    powers += [f"{key}: host" for key in ("network_mode", "pid", "ipc", "userns_mode") if raw.get(key) == "host"]
    powers += [volume.source for volume in service.volumes if volume.source.endswith("docker.sock")]
    powers += [f"cap_add: {name}" for name in service.listed("cap_add") if name.upper() in {"ALL", "SYS_ADMIN"}]
    powers += [option for option in service.listed("security_opt") if "unconfined" in option]
    if not powers:
        return ok("container-powers", where, "it has no powers over the machine")
    return Finding(
        id="container-powers",
        severity=Severity.CRITICAL if powers[0] == "privileged" or "docker.sock" in str(powers) else Severity.HIGH,
        where=where,
        found=f"it has powers over the machine: {', '.join(powers)}",
        why="whoever breaks into the container has the machine",
        fix="take them out; `shm_size` is enough for shared memory, and an internal network for the gateway",
        source=_CONTAINERS,
    )


def _user(service: ComposeService, where: str) -> Finding:
    user = str(service.raw.get("user") or "").partition(":")[0]
    if user and user not in {"0", "root"}:
        return ok("container-user", where, f"it runs as user {user}")
    return Finding(
        id="container-user",
        severity=Severity.HIGH if service.is_triton else Severity.MEDIUM,
        where=where,
        found="it runs as root" if user else "it does not say as whom it runs, which is root in Triton's image",
        why="root in a container is root on the machine, but for what the engine takes away",
        fix='user: "1000:1000"',
        source=GUIDE,
    )


def _pinning(service: ComposeService, where: str) -> Finding:
    image = service.image
    if not image or service.raw.get("build"):
        return ok("container-image", where, "it is built here")
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if digest or tag not in _FLOATING:
        return ok("container-image", where, f"the image is pinned ({image})")
    return Finding(
        id="container-image",
        severity=Severity.MEDIUM,
        where=where,
        found=f"the image is not pinned ({image})",
        why="what runs tomorrow is not what was tested today, and nobody decided so",
        fix="name a release, or a digest (`image@sha256:…`)",
        source=_CONTAINERS,
    )


def _publishing(service: ComposeService, where: str) -> Finding:
    published = service.published
    if not published:
        return ok("container-ports", where, "no port of it is open to others")
    if service.is_gateway and len(published) == 1:
        return ok("container-ports", where, f"the gateway's port is published ({published[0]})")
    return Finding(
        id="container-ports",
        severity=Severity.CRITICAL if service.is_triton else Severity.MEDIUM,
        where=where,
        found=f"ports are open to everybody: {', '.join(published)}",
        why="engines publish ports past the machine's firewall; behind these is neither TLS nor identity",
        fix="publish the gateway's port only; `127.0.0.1:` in front keeps others for this machine",
        source=_PORTS,
    )


def _secrets(service: ComposeService, where: str) -> Finding:
    shown = [name for name, value in service.environment.items() if _SECRET_NAME.search(name) and _is_literal(value)]
    if not shown:
        return ok("container-secrets", where, "no secret is written into its environment")
    return Finding(
        id="container-secrets",
        severity=Severity.HIGH,
        where=where,
        found=f"secrets are written into its environment: {', '.join(shown)}",
        why="whoever reads this file, or `docker inspect`, has them",
        fix="give them as files (`secrets:`), from a directory that git ignores",
        source=_SECRETS,
    )


def _health(service: ComposeService, where: str) -> Finding:
    check = service.raw.get("healthcheck")
    if str(service.raw.get("restart")) == "no" or service.raw.get("profiles"):
        return ok("container-health", where, "it runs on request, and ends")
    if check and not (isinstance(check, dict) and check.get("disable")):
        return ok("container-health", where, "it has a health check")
    return Finding(
        id="container-health",
        severity=Severity.LOW,
        where=where,
        found="it has no health check",
        why="nobody notices that it hangs",
        fix="add `healthcheck`",
        source="https://docs.docker.com/reference/compose-file/services/#healthcheck",
    )


def _repository(service: ComposeService, where: str) -> Finding:
    paths = tuple(path.rstrip("/") for path in service.arguments.repositories)
    mounts = [volume for volume in service.volumes if volume.target.rstrip("/") in paths]
    writable = [volume.target for volume in mounts if not volume.read_only]
    if not writable:
        return ok("container-repository", where, "the repository is read-only for the server")
    return Finding(
        id="container-repository",
        severity=Severity.HIGH,
        where=where,
        found=f"the server may write the repository {', '.join(writable)}",
        why="whoever breaks in can leave a model behind that runs after every restart",
        fix="mount it with `:ro`",
        source=GUIDE,
    )


def _grace(service: ComposeService, where: str) -> Finding:
    grace, needed = _seconds(service.raw.get("stop_grace_period", "10s")), service.arguments.exit_timeout_s
    if grace > needed:
        return ok("container-grace", where, f"it has {grace} s to end, more than the {needed} s that it takes at most")
    return Finding(
        id="container-grace",
        severity=Severity.LOW,
        where=where,
        found=f"it is killed after {grace} s, though it lets requests finish for {needed} s",
        why="requests in flight are lost at every restart",
        fix=f"stop_grace_period: {needed + 10}s",
        source="https://docs.docker.com/reference/compose-file/services/#stop_grace_period",
    )


_EVERY: Final[Sequence[Callable[[ComposeService, str], Finding]]] = (
    _confinement,
    _powers,
    _user,
    _pinning,
    _publishing,
    _secrets,
    _health,
)


def _is_literal(value: str) -> bool:
    return bool(value) and "$" not in value and not value.startswith("/run/secrets")


def _deep(raw: object, *keys: str) -> object:
    for key in keys:
        raw = raw.get(key) if isinstance(raw, dict) else None
    return raw


def _seconds(duration: object) -> int:
    match = _DURATION.fullmatch(str(duration))
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 10)
    return hours * 3600 + minutes * 60 + seconds
