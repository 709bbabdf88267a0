"""Judges what the server let callers do."""

import re
from typing import Final

from naiad.deploy._audit import requests
from naiad.deploy._audit.answer import Probe, Reach
from naiad.deploy._audit.finding import GUIDE, Finding, Severity, ok, unknown
from naiad.deploy._audit.releases import (
    KNOWN_UNTIL,
    SAFE_RELEASE,
    VERSIONS,
    open_bulletins,
    parse_version,
    release_of,
)
from naiad.deploy._audit.survey import Survey

_CRITICAL_SCORE: Final = 9.0
_TELLS: Final = re.compile(
    r"(?<![\w/.])/(?:home|opt|root|tmp|usr|var|mnt|data|models|workspace)/[\w./-]+|triton_python_backend_shm\w*"
    r"|Traceback|\.(?:cc|py):\d+|upstream connect error"
)
_MEMORY: Final = (requests.SYSTEM_MEMORY, requests.CUDA_MEMORY)
_SETTINGS: Final = (requests.TRACE, requests.LOG)
_READING: Final = (requests.INDEX, requests.STATISTICS)


def judge_server(seen: Survey) -> list[Finding]:
    """All findings about what the server does for whom."""
    return [
        judge_version(seen.version, seen.target.address, loopback=seen.target.loopback),
        _model_control(seen),
        _shared_memory(seen),
        _settings(seen),
        _reading(seen),
        _identity(seen),
        _wrong_key(seen),
        _large(seen),
        _errors(seen),
        _health(seen),
    ]


def judge_version(version: str | None, where: str, *, loopback: bool = False) -> Finding:
    """Hold a version of Triton against the bulletins."""
    parsed = parse_version(version or "")
    if parsed is None:
        return unknown("version", where, "the server does not tell its version; a credential that may observe would")
    return judge_release(release_of(parsed), f"Triton {version}", where, loopback=loopback)


def judge_release(release: str | None, name: str, where: str, *, loopback: bool = False) -> Finding:
    """Hold a release against the bulletins."""
    called = f"{name} (release {release})" if release else f"{name} (older than 24.07)"
    lacking = open_bulletins(release)
    if not lacking:
        return ok("version", where, f"{called} has every fix of NVIDIA's bulletins until {KNOWN_UNTIL}")
    worst = lacking[0]
    severity = Severity.CRITICAL if worst.score >= _CRITICAL_SCORE else Severity.HIGH
    if loopback:  # whoever could use the hole is on this machine already
        severity = Severity.MEDIUM
    return Finding(
        id="version",
        severity=severity,
        where=where,
        found=f"{called} lacks the fixes of {len(lacking)} security bulletin{'s' * (len(lacking) > 1)}; the worst is "
        f"{worst.worst} (CVSS {worst.score}, fixed in {worst.fixed_in}): {worst.what}",
        why="what was fixed is published, and so are programs that use it"
        + ("; only users of this machine can reach it" if loopback else ""),
        fix=f"upgrade to {SAFE_RELEASE} (Triton {'.'.join(map(str, VERSIONS[SAFE_RELEASE]))}) or newer; until then let "
        "nobody but the gateway reach it",
        source=worst.url,
    )


def _open(seen: Survey, apis: tuple[str, ...]) -> list[Probe]:
    every = (*seen.probes, *seen.beside)
    return [probe for probe in every if probe.api in apis and probe.anonymous.reach is Reach.OPEN]


def _listed(probes: list[Probe]) -> str:
    return "; ".join(dict.fromkeys(f"{probe.api} over {probe.over}" for probe in probes))


def _model_control(seen: Survey) -> Finding:
    where, check = seen.target.address, "model-control"
    if opened := _open(seen, (requests.LOAD, requests.UNLOAD)):
        return Finding(
            id=check,
            severity=Severity.CRITICAL,
            where=where,
            found=f"anybody may load and unload models ({_listed(opened)})",
            why="loading takes files from the request: whoever can load a model runs code as the server",
            fix="start Triton with --model-control-mode=none, or restrict model-repository "
            "(--grpc-restricted-protocol and --http-restricted-api) and put the gateway in front",
            source=GUIDE,
        )
    load = seen.probe(requests.LOAD)
    reach = load.best.reach if load else Reach.SILENT
    if reach is Reach.OPEN:
        return ok(check, where, "models can be loaded with this credential, and not without")
    if reach is Reach.SILENT:
        return unknown(check, where, f"the server did not answer ({load.best.said if load else 'nothing'})")
    return ok(check, where, "models cannot be loaded" if reach is Reach.ABSENT else "loading models is refused")


def _shared_memory(seen: Survey) -> Finding:
    where, check = seen.target.address, "shared-memory"
    if opened := _open(seen, _MEMORY):
        return Finding(
            id=check,
            severity=Severity.HIGH,
            where=where,
            found=f"anybody may use the shared-memory APIs ({_listed(opened)})",
            why="registering Triton's own regions was a step of the remote-code chain of 2025 (CVE-2025-23320); they "
            "also show which regions others use",
            fix="restrict shared-memory in --grpc-restricted-protocol and --http-restricted-api",
            source="https://github.com/NVIDIA/product-security/tree/main/2025/5687",
        )
    return ok(check, where, "the shared-memory APIs are refused without a credential")


def _settings(seen: Survey) -> Finding:
    where, check = seen.target.address, "trace-and-log"
    if opened := _open(seen, _SETTINGS):
        return Finding(
            id=check,
            severity=Severity.HIGH,
            where=where,
            found=f"anybody may read and change trace and log settings ({_listed(opened)})",
            why="traces and logs go to files that a caller names, and tensors can be traced; it has corrupted files of "
            "the system (CVE-2024-0087, CVE-2024-0100)",
            fix="restrict trace and logging in --grpc-restricted-protocol and --http-restricted-api",
            source="https://github.com/NVIDIA/product-security/tree/main/2024/5535",
        )
    return ok(check, where, "trace and log settings are refused without a credential")


def _reading(seen: Survey) -> Finding:
    where, check = seen.target.address, "observing"
    if opened := _open(seen, _READING):
        return Finding(
            id=check,
            severity=Severity.LOW if seen.target.loopback else Severity.MEDIUM,
            where=where,
            found=f"anybody may see which models there are and how much they are used ({_listed(opened)})",
            why="names, versions and traffic of models are often worth hiding, and help an attacker choose",
            fix="let identities observe in deploy/service.toml; without a gateway restrict model-repository and "
            "statistics",
            source=GUIDE,
        )
    return ok(check, where, "the repository's index and statistics are refused without a credential")


def _identity(seen: Survey) -> Finding:
    where, check = seen.target.address, "identity"
    if seen.tls is not None and seen.tls.wants_client_certificate:
        return ok(check, where, "callers need a client certificate")
    infer = _open(seen, (requests.INFER,))
    if not infer and not seen.open_models:
        probe = seen.probe(requests.INFER)
        if probe is None or probe.anonymous.reach is Reach.SILENT:
            return unknown(check, where, "the server did not answer to an inference request")
        return ok(check, where, "inferences are refused without a credential")
    models = ", ".join(seen.open_models)
    return Finding(
        id=check,
        severity=Severity.LOW if seen.target.loopback else Severity.HIGH,
        where=where,
        found=f"anybody may ask for inferences ({models or _listed(infer)})",
        why="nobody knows who asked what, and one caller can take all of the capacity",
        fix="put the gateway in front, with identities and limits in deploy/service.toml, and without [anonymous]",
        source=GUIDE,
    )


def _wrong_key(seen: Survey) -> Finding:
    where, check = seen.target.address, "unknown-key"
    if seen.wrong_key is None:
        return unknown(check, where, "no key is needed here")
    if seen.wrong_key.reach is Reach.OPEN:
        return Finding(
            id=check,
            severity=Severity.CRITICAL,
            where=where,
            found="a key that nobody has is accepted, while none is refused",
            why="whatever looks like a key opens everything",
            fix="look into how the gateway compares keys",
        )
    return ok(check, where, f"a key that nobody has is refused ({seen.wrong_key.status})")


def _large(seen: Survey) -> Finding:
    where, check = seen.target.address, "request-size"
    size = f"a request of {seen.target.large_request_mb:g} MiB"
    if seen.large is None:
        return unknown(check, where, "no large request was sent")
    if seen.large.reach is Reach.REFUSED:
        return ok(check, where, f"{size} is refused ({seen.large.status})")
    if seen.large.reach is Reach.SILENT:
        return unknown(check, where, f"{size} got no answer ({seen.large.said})")
    return Finding(
        id=check,
        severity=Severity.LOW if seen.target.loopback else Severity.MEDIUM,
        where=where,
        found=f"{size} is read to its end ({seen.large.status})",
        why="a few callers with large requests can take the server's memory",
        fix="set limits.request_mb in deploy/service.toml as small as your inputs allow; without a gateway "
        "--http-max-input-size (25.08 is the first release with it)",
        source="https://github.com/NVIDIA/product-security/tree/main/2025/5734",
    )


def _errors(seen: Survey) -> Finding:
    where, check = seen.target.address, "error-messages"
    texts = [probe.anonymous.text for probe in seen.probes if probe.anonymous.status not in {"OK", "200"}]
    told = [match[0] for text in texts if (match := _TELLS.search(text))]
    if told:
        return Finding(
            id=check,
            severity=Severity.LOW,
            where=where,
            found=f"errors tell of the inside: {', '.join(dict.fromkeys(told))}",
            why="paths and names of the inside are half of many attacks (CVE-2025-23320 began with one)",
            fix="put the gateway in front; lower --log-verbose",
            source="https://github.com/NVIDIA/product-security/tree/main/2025/5687",
        )
    return ok(check, where, "errors tell nothing of the inside")


def _health(seen: Survey) -> Finding:
    where, check = seen.target.address, "health"
    ready = seen.probe(requests.READY)
    if ready is None or ready.best.reach is Reach.REFUSED:
        return ok(check, where, "health is for callers with a credential")
    body = ready.best.body
    if ready.best.reach is Reach.OPEN and (ready.best.status == "200" or getattr(body, "ready", False)):
        return ok(check, where, "the server is ready")
    return Finding(
        id=check,
        severity=Severity.MEDIUM,
        where=where,
        found=f"the server is not ready ({ready.best.said})",
        why="a model did not load, or the server is starting or ending",
        fix="look into its log, and at `naiad models lint`",
    )
