"""Inspects a deployment, from outside and as far as it can from inside, and says what is unsafe and how to fix it.

It changes nothing: it reads, and asks for models that cannot exist. Facts first, judgement second: what was seen is
held against plain functions, so that every check can be tried both ways without a server.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from naiad.deploy._audit.finding import Finding as Finding
from naiad.deploy._audit.finding import Severity as Severity
from naiad.deploy._audit.finding import unknown
from naiad.deploy._audit.judge_compose import judge_compose
from naiad.deploy._audit.judge_processes import judge_process
from naiad.deploy._audit.judge_server import judge_server
from naiad.deploy._audit.judge_service import judge_service
from naiad.deploy._audit.judge_transport import judge_transport
from naiad.deploy._audit.processes import find_processes, inspect_process
from naiad.deploy._audit.reports import to_json as to_json
from naiad.deploy._audit.reports import to_junit as to_junit
from naiad.deploy._audit.reports import to_sarif as to_sarif
from naiad.deploy._audit.survey import survey
from naiad.deploy._audit.target import USUAL_PORTS as USUAL_PORTS
from naiad.deploy._audit.target import Target, is_this_machine, parse_target

__all__ = ["USUAL_PORTS", "Finding", "Severity", "audit", "to_json", "to_junit", "to_sarif", "worst"]


def audit(
    url: str | None = None,
    *,
    secret: str | None = None,
    root_certificates: Path | None = None,
    certificate_chain: Path | None = None,
    private_key: Path | None = None,
    server_name: str | None = None,
    ports: Iterable[int] = USUAL_PORTS,
    timeout_s: float = 5.0,
    large_request_mb: float = 65.0,
    pids: Iterable[int] = (),
    compose: Iterable[Path] = (),
    service: Path | None = None,
    secrets: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Finding, ...]:
    """Look at all that is given; the worst comes first.

    * `url`: a running gateway or Triton, `grpc[s]://` or `http[s]://`. Where it runs on this machine, its processes
      are looked at, too.
    * `secret`: an API key of the gateway, or the secret of Triton's restricted APIs. It is not shown to a server whose
      certificate is not believed, nor over a network without TLS.
    * `root_certificates`, `certificate_chain`, `private_key`, `server_name`: as `naiad.client.TLS` has them.
    * `ports`: other ports of the host that should be closed.
    * `large_request_mb`: size in MiB of a request that should be refused; 0 sends none.
    * `pids`: processes of Triton's on this machine, where they are not found by the address.
    * `compose`: compose files, each laid over those before it.
    * `service`, `secrets`: the description of the service, and the directory of its secrets.

    Raises: `InvalidTarget` where nothing of Triton's is there; `InvalidService`, `InvalidKeys` where a file is wrong.
    """
    findings: list[Finding] = []
    if url is not None:
        target = parse_target(url)
        target = replace(
            target,
            secret=secret or target.secret,
            root_certificates=root_certificates,
            client_certificate=certificate_chain,
            client_key=private_key,
            server_name=server_name,
            ports=tuple(ports),
            timeout_s=timeout_s,
            large_request_mb=large_request_mb,
        )
        seen = survey(target, progress)
        findings += [*judge_transport(seen), *judge_server(seen)]
        progress("processes")
        findings += _local(target, tuple(pids))
    elif pids:
        findings += _named(tuple(pids))
    if files := tuple(compose):
        findings += judge_compose(*files)
    if service is not None:
        findings += judge_service(service, secrets)
    return tuple(sorted(findings, key=lambda finding: (finding.severity.rank, finding.id, finding.where)))


def worst(findings: Iterable[Finding]) -> Severity:
    """The worst severity among findings; OK where there is none."""
    return min((finding.severity for finding in findings), key=lambda severity: severity.rank, default=Severity.OK)


def _local(target: Target, pids: tuple[int, ...]) -> Iterator[Finding]:
    if pids:
        yield from _named(pids)
        return
    if not is_this_machine(target.host):
        yield unknown("process-user", target.host, "its processes are on another machine; run the audit there, too")
        return
    processes = find_processes(target)
    if not processes:
        yield unknown("process-user", target.host, "no tritonserver found behind this port that this user may look at")
    for facts in processes:
        yield from judge_process(facts)


def _named(pids: tuple[int, ...]) -> Iterator[Finding]:
    for pid in pids:
        facts = inspect_process(pid)
        if facts is None:
            yield unknown("process-user", f"process {pid}", "it has ended, or belongs to somebody else")
        else:
            yield from judge_process(facts)
