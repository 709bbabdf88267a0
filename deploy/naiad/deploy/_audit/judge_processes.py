"""Judges how a server runs on this machine."""

from collections.abc import Iterator
from typing import Final

from naiad.deploy._audit.arguments import judge_arguments
from naiad.deploy._audit.finding import GUIDE, Finding, Severity, ok
from naiad.deploy._audit.processes import ProcessFacts

_CONTAINERS: Final = "https://cheatsheetseries.owasp.org/cheatsheets/Docker_Security_Cheat_Sheet.html"


def judge_process(facts: ProcessFacts) -> Iterator[Finding]:
    """All findings about one process."""
    where = f"process {facts.pid}"
    yield _user(facts, where)
    yield _binding(facts, where)
    yield _privileges(facts, where)
    yield _repositories(facts, where)
    yield _core_dumps(facts, where)
    yield from judge_arguments(facts.arguments, where, embedded=facts.embedded)


def _user(facts: ProcessFacts, where: str) -> Finding:
    if facts.uid != 0:
        return ok("process-user", where, f"it runs as user {facts.uid}")
    return Finding(
        id="process-user",
        severity=Severity.MEDIUM if facts.embedded else Severity.HIGH,
        where=where,
        found="it runs as root",
        why="whoever breaks into the server has the machine, or the container with every right in it",
        fix='run it as another user: `user: "1000:1000"` in docker-compose.yml, --user 1000 with docker run',
        source=GUIDE,
    )


def _binding(facts: ProcessFacts, where: str) -> Finding:
    if not facts.listens_beyond:
        network = "in a network of its own" if facts.contained else "for this machine only"
        return ok("process-addresses", where, f"it listens {network}")
    return Finding(
        id="process-addresses",
        severity=Severity.HIGH,
        where=where,
        found=f"it listens for everybody: {', '.join(facts.listens_beyond)}",
        why="Triton has no TLS for HTTP and metrics, no identities, and no limits",
        fix="--http-address, --grpc-address and --metrics-address=127.0.0.1, with the gateway beside it; or a "
        "container on an internal network",
        source=GUIDE,
    )


def _privileges(facts: ProcessFacts, where: str) -> Finding:
    lacks = []
    if facts.capabilities:
        lacks.append(f"it has {facts.capabilities.bit_count()} capabilities of the kernel")
    if not facts.no_new_privileges:
        lacks.append("it may gain privileges (no_new_privs is off)")
    if not facts.seccomp:
        lacks.append("no seccomp filter")
    if not lacks:
        return ok("process-privileges", where, "no capabilities, no new privileges, a seccomp filter")
    strong = bool(facts.capabilities) and not facts.embedded
    return Finding(
        id="process-privileges",
        severity=Severity.MEDIUM if strong else Severity.LOW,
        where=where,
        found="; ".join(lacks),
        why="each is a way out of a server that was broken into",
        fix="cap_drop: [ALL] and security_opt: [no-new-privileges:true] in docker-compose.yml; containers have "
        "seccomp by default",
        source=_CONTAINERS,
    )


def _repositories(facts: ProcessFacts, where: str) -> Finding:
    check = "process-repository"
    others = [repository.path for repository in facts.repositories if repository.others]
    own = [repository.path for repository in facts.repositories if repository.writable]
    if others:
        return Finding(
            id=check,
            severity=Severity.HIGH,
            where=where,
            found=f"others than its owner may write the repository {', '.join(others)}",
            why="a model is a program: whoever writes it runs code in the server",
            fix=f"chmod go-w {' '.join(others)}",
            source=GUIDE,
        )
    if own and not facts.embedded:
        return Finding(
            id=check,
            severity=Severity.MEDIUM,
            where=where,
            found=f"the server may write its own repository {', '.join(own)}",
            why="whoever breaks in can leave a model behind that runs after every restart",
            fix="mount it read-only (`:ro`), or own it by another user",
            source=GUIDE,
        )
    return ok(check, where, "nobody but its owner may write the repository")


def _core_dumps(facts: ProcessFacts, where: str) -> Finding:
    if not facts.core_dumps:
        return ok("process-core-dumps", where, "no core dumps")
    return Finding(
        id="process-core-dumps",
        severity=Severity.LOW,
        where=where,
        found="core dumps are on",
        why="a crash writes inputs, weights and secrets to the disk",
        fix="ulimits: {core: 0} in docker-compose.yml, ulimit -c 0 elsewhere",
        source="https://man7.org/linux/man-pages/man5/core.5.html",
    )
