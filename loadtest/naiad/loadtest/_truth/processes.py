"""The server's processes, where it runs on this machine: CPU time, memory and threads."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import psutil

from naiad.loadtest._data.codec import endpoint_of

__all__ = ["ServerProcesses", "Used", "find_server"]

_FORWARDERS: Final = frozenset({"docker-proxy", "kubectl", "rootlessport", "slirp4netns", "ssh", "sshd"})
"""What listens for a server that is elsewhere: what it uses is not what the server uses."""
_LOOK_AGAIN: Final = 5  # reads; looking for children reads all processes of the machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """What the processes have used so far, and use now."""

    cpu_s: float
    rss_bytes: int
    num_threads: int


class ServerProcesses:
    """A process and everything it started, such as the stubs of Python models."""

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._known: dict[int, psutil.Process] = {root.pid: root}
        self._cpu_s: dict[int, float] = {}  # also of those that have ended
        self._reads = 0

    @property
    def pids(self) -> set[int]:
        """The processes that were seen."""
        return set(self._known)

    @property
    def environment(self) -> dict[str, str]:
        """The environment that the first of them was started with; empty where it may not be read."""
        try:
            return dict(self._root.environ())
        except (psutil.Error, OSError):
            return {}

    def read(self) -> Used | None:
        """Return what they use; ``None`` when all of them have ended."""
        if self._reads % _LOOK_AGAIN == 0:
            self._look()
        self._reads += 1
        rss_bytes, num_threads = 0, 0
        for pid, process in list(self._known.items()):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    if process.status() == psutil.STATUS_ZOMBIE:
                        del self._known[pid]
                    rss_bytes += process.memory_info().rss
                    num_threads += process.num_threads()
            except psutil.Error:  # it ended: what it used stays in the sum
                self._known.pop(pid, None)
                continue
            self._cpu_s[pid] = times.user + times.system
        if not self._known:
            return None
        return Used(cpu_s=sum(self._cpu_s.values()), rss_bytes=rss_bytes, num_threads=num_threads)

    def _look(self) -> None:
        with suppress(psutil.Error):
            for process in self._root.children(recursive=True):
                self._known.setdefault(process.pid, process)


def find_server(url: str, pid: int | None = None) -> ServerProcesses | None:
    """Return the process that listens on the port of ``url`` on this machine, or that with ``pid``, if there is one."""
    if pid is None:
        pid = _listener(url)
    try:
        process = None if pid is None else psutil.Process(pid)
        return None if process is None or process.name() in _FORWARDERS else ServerProcesses(process)
    except psutil.Error:
        return None


def _listener(url: str) -> int | None:
    host, _, port = endpoint_of(url).target.rpartition(":")
    host = host.strip("[]")
    if not port.isdigit() or not _is_here(host):
        return None
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == int(port) and connection.pid:
            return int(connection.pid)
    return None


def _is_here(host: str) -> bool:
    """Whether ``host`` is an address of this machine."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    if any(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found):
        return True
    own = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    return bool(found & own)
