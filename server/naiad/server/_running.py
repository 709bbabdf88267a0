"""Lets other commands of the same user find a running server and its secret, by its address."""

import contextlib
import json
import os
import secrets
import urllib.parse
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from naiad.server._cache import cache_directories, cache_directory
from naiad.server._source import parse

_FOLDER: Final = "running"
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningServer:
    """An embedded Triton of this user on this machine."""

    grpc_address: str
    """Host and port."""
    http_url: str
    metrics_url: str
    admin_secret: str = field(repr=False)
    repository: Path | str
    """A directory, or the URL of a bucket."""
    pid: int
    """The process that owns it, not Triton's own."""
    tls: bool = False
    """Whether callers must use TLS."""
    replicas: tuple[str, ...] = ()
    """Host and port of each Triton where several serve behind the address; their statistics are read there."""
    replica_secret: str = field(default="", repr=False)
    """The replicas' own secret for model control."""
    control: str = ""
    """UNIX socket on which the owner takes orders; "" where it takes none."""


def announce(server: RunningServer) -> Path:
    """Write down a server for `find_running`; readable by this user only. The owner removes the file."""
    folder = cache_directory() / _FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{server.pid}-{secrets.token_hex(4)}.json"
    staged = path.with_suffix(".staged")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as file:
        json.dump(asdict(server) | {"repository": str(server.repository), "started": _started(server.pid)}, file)
    staged.replace(path)
    return path


def find_running(
    address: str | None = None, repository: str | os.PathLike[str] | None = None
) -> tuple[RunningServer, ...]:
    """The announced servers (`naiad serve`) of this user that are still alive.

    * `address`: only the one that listens there: `host:port`, or a URL with the port of its gRPC, HTTP or metrics.
    * `repository`: only those that serve this directory or bucket.
    """
    found = [server for folder in cache_directories() for server in _in_folder(folder / _FOLDER)]
    if address is not None:
        found = [server for server in found if _listens(server, address)]
    if repository is not None:
        wanted = _resolved(parse(repository))
        found = [server for server in found if _resolved(server.repository) == wanted]
    return tuple(found)


def _in_folder(folder: Path) -> list[RunningServer]:
    servers = []
    for path in sorted(folder.glob("*.json")):
        # Another process may be removing it; a file of another user is nobody we should hand our trust to.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if path.stat().st_uid != os.getuid():
                continue
            values = json.loads(path.read_text())
            if _started(values["pid"]) != values.pop("started"):
                path.unlink()
                continue
            typed = {"repository": parse(values["repository"]), "replicas": tuple(values.get("replicas", ()))}
            servers.append(RunningServer(**values | typed))
    return servers


def _listens(server: RunningServer, address: str) -> bool:
    host, port = _host_and_port(address)
    ours = {_host_and_port(url)[1] for url in (server.grpc_address, server.http_url, server.metrics_url)}
    return host in _LOCAL and port in ours


def _resolved(repository: Path | str) -> Path | str:
    return repository.expanduser().resolve() if isinstance(repository, Path) else repository.rstrip("/")


def _host_and_port(address: str) -> tuple[str | None, int | None]:
    host, port = None, None
    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    return host, port


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks: its number alone may be another one's by now."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
