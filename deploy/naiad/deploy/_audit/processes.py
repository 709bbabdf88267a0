"""Looks at the processes of a deployment on this machine, as far as this user may."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from naiad.deploy._audit.arguments import Arguments
from naiad.deploy._audit.target import Target
from naiad.deploy.exposure import is_loopback

_TRITON: Final = "tritonserver"
_PORT: Final = re.compile(r"port_value: (\d{1,5})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository:
    """A directory with models, as the server sees it."""

    path: str
    writable: bool
    """By the server itself."""
    others: bool
    """By users other than its owner."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessFacts:
    """What the kernel tells about a server."""

    pid: int
    uid: int
    arguments: Arguments
    capabilities: int
    """The effective ones, as the mask of capabilities(7)."""
    no_new_privileges: bool
    seccomp: bool
    core_dumps: bool
    contained: bool
    """Whether it has a network of its own, as in a container."""
    listens_beyond: tuple[str, ...]
    """Addresses that others than this machine can reach; of a container's network those do not count."""
    repositories: tuple[Repository, ...]

    @property
    def embedded(self) -> bool:
        """Whether Naiad's launcher started it."""
        return any("shm-region-prefix-name=naiad_" in value for value in self.arguments.all("--backend-config"))


def find_processes(target: Target) -> tuple[ProcessFacts, ...]:
    """The servers behind a port of this machine: who listens there, or whom that process talks to."""
    facts = (_facts(pid) for pid in sorted(_pids(target.port)))
    return tuple(fact for fact in facts if fact is not None)


def inspect_process(pid: int) -> ProcessFacts | None:
    """Look at one server; None where this user may not, or it has ended."""
    return _facts(pid)


def _pids(port: int) -> set[int]:
    connections = _connections()
    listening = [(pid, at) for pid, at in connections if at.status == psutil.CONN_LISTEN]
    here = {pid for pid, at in listening if at.laddr.port == port}
    servers = {pid for pid in here if _name(pid) == _TRITON}
    if servers:
        return servers
    behind = {at.raddr.port for pid, at in connections if pid in here and at.raddr}
    behind |= {port for pid in here for port in _configured(pid)}
    local = {pid for pid, at in listening if at.laddr.port in behind and _name(pid) == _TRITON}
    return local or (set() if _known(here) else _contained_servers())


def _configured(pid: int) -> set[int]:
    """The ports that the files of Naiad's gateway name: without traffic it need not be connected to them."""
    try:
        words = psutil.Process(pid).cmdline()
        folder = Path(words[words.index("-c") + 1]).parent
        texts = [path.read_text() for path in folder.glob("endpoints-*.yaml")]
    except (psutil.Error, ValueError, IndexError, OSError):
        return set()
    return {int(port) for text in texts for port in _PORT.findall(text)}


def _known(listeners: set[int]) -> bool:
    """Whether a listener is somebody else than the container engine's proxy."""
    return any(_name(pid) not in {"docker-proxy", "rootlessport"} for pid in listeners)


def _contained_servers() -> set[int]:
    found = [process.pid for process in psutil.process_iter(["name"]) if process.info["name"] == _TRITON]
    return {pid for pid in found if _is_contained(pid)}


def _connections() -> list[tuple[int, Any]]:
    try:
        return [(at.pid, at) for at in psutil.net_connections("tcp") if at.pid is not None]
    except psutil.AccessDenied:
        return []


def _name(pid: int) -> str:
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return ""


def _is_contained(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    except OSError:
        return False


def _facts(pid: int) -> ProcessFacts | None:
    try:
        status = _status(pid)
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        limits = Path(f"/proc/{pid}/limits").read_text()
    except (OSError, ValueError):
        return None
    arguments = Arguments(command[:-1])
    contained = _is_contained(pid)
    return ProcessFacts(
        pid=pid,
        uid=int(status["Uid"].split()[1]),
        arguments=arguments,
        capabilities=int(status["CapEff"], 16),
        no_new_privileges=status.get("NoNewPrivs") == "1",
        seccomp=status.get("Seccomp", "0") != "0",
        core_dumps=_has_core_dumps(limits),
        contained=contained,
        listens_beyond=() if contained else _beyond(pid),
        repositories=tuple(filter(None, (_repository(pid, path, status) for path in arguments.repositories))),
    )


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _has_core_dumps(limits: str) -> bool:
    line = next((line for line in limits.splitlines() if line.startswith("Max core file size")), "")
    fields = line.removeprefix("Max core file size").split()
    return bool(fields) and fields[0] != "0"


def _beyond(pid: int) -> tuple[str, ...]:
    return tuple(
        sorted(
            f"{connection.laddr.ip}:{connection.laddr.port}"
            for owner, connection in _connections()
            if owner == pid and connection.status == psutil.CONN_LISTEN and not is_loopback(connection.laddr.ip)
        )
    )


def _repository(pid: int, path: str, status: dict[str, str]) -> Repository | None:
    """Look at a directory through the eyes of the process; None for a bucket, or where this user may not look."""
    if "://" in path or not path.startswith("/"):
        return None
    inside = Path(f"/proc/{pid}/root{path}")
    try:
        mode = inside.stat()
        read_only = bool(os.statvfs(inside).f_flag & os.ST_RDONLY)
    except OSError:
        return None
    uid, gids = int(status["Uid"].split()[1]), {int(status["Gid"].split()[1]), *map(int, status["Groups"].split())}
    may = uid == 0 or (
        bool(mode.st_mode & 0o200)
        if uid == mode.st_uid
        else bool(mode.st_mode & 0o020)
        if mode.st_gid in gids
        else bool(mode.st_mode & 0o002)
    )
    return Repository(path=path, writable=may and not read_only, others=bool(mode.st_mode & 0o022))
