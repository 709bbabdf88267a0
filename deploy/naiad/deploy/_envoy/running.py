"""Finds the gateways that run here: each notes in its private directory what others may want to know."""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from naiad.deploy._envoy.admin import Admin, AdminUnreachable
from naiad.deploy._envoy.private import sockets
from naiad.deploy._envoy.status import GatewayStatus, read_status
from naiad.deploy._files import write_all
from naiad.deploy.errors import GatewayError
from naiad.deploy.place import Endpoint

_STATE: Final = "state.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningGateway:
    """A gateway of this user on this machine."""

    grpc_url: str
    metrics_url: str
    pid: int
    """The process that owns it, not Envoy's own."""
    admin: Path
    """The UNIX socket of Envoy's administration."""
    endpoints: Mapping[str, tuple[Endpoint, ...]]

    def status(self) -> GatewayStatus:
        """What it tells about itself. Raises `GatewayError` when it does not answer."""
        try:
            return read_status(Admin(self.admin), self.endpoints)
        except AdminUnreachable as exc:
            raise GatewayError(f"The gateway at {self.grpc_url} does not answer: {exc}. Is it starting?") from exc


def note(directory: Path, *, grpc_url: str, metrics_url: str, endpoints: Mapping[str, tuple[Endpoint, ...]]) -> None:
    """Write down what `running_gateways` of other processes tells."""
    members = {pool: [asdict(endpoint) for endpoint in found] for pool, found in endpoints.items()}
    state = {"grpc_url": grpc_url, "metrics_url": metrics_url, "pid": os.getpid(), "endpoints": members}
    write_all(directory, {_STATE: json.dumps(state)})


def running_gateways() -> tuple[RunningGateway, ...]:
    """The gateways of this user that run on this machine."""
    found = []
    for socket in sockets():
        # Another process may be removing it.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.append(_read(socket))
    return tuple(found)


def _read(socket: Path) -> RunningGateway:
    state = json.loads((socket.parent / _STATE).read_text())
    endpoints = {pool: tuple(Endpoint(**each) for each in members) for pool, members in state["endpoints"].items()}
    return RunningGateway(**state | {"admin": socket, "endpoints": endpoints})
