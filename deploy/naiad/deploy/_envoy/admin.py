"""Envoy's administration, over its UNIX socket."""

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

_TIMEOUT_S: Final = 5.0


class AdminUnreachable(Exception):
    """Envoy did not answer, or not with success."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """One address of one cluster, as Envoy sees it."""

    cluster: str
    address: str
    port: int
    healthy: bool
    """Answers its health checks and was not ejected; says nothing about being drained."""
    draining: bool
    num_active: int
    """Requests that it is working on."""
    num_requests: int
    num_errors: int


class Admin:
    """Asks one Envoy; used by several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_ready(self) -> bool:
        """Whether it has all of its configuration and serves."""
        try:
            return self._ask("GET", "/ready")[0] == HTTPStatus.OK
        except AdminUnreachable:
            return False

    def stats(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose names match the regular expression. Raises `AdminUnreachable`."""
        found = self._json("/stats", {"format": "json", "filter": pattern})
        return {stat["name"]: stat["value"] for stat in found["stats"] if isinstance(stat.get("value"), int)}

    def hosts(self) -> tuple[Host, ...]:
        """Every address of every cluster. Raises `AdminUnreachable`."""
        clusters = self._json("/clusters", {"format": "json"}).get("cluster_statuses", ())
        return tuple(_host(cluster["name"], host) for cluster in clusters for host in cluster.get("host_statuses", ()))

    def certificate_days(self) -> int | None:
        """Days until the first of the server's own certificates expires; None without TLS."""
        pairs = self._json("/certs", {}).get("certificates", ())
        days = [int(item["days_until_expiration"]) for pair in pairs for item in pair.get("cert_chain", ())]
        return min(days, default=None)

    def post(self, path: str) -> None:
        """Ask for something to be done. Raises `AdminUnreachable`."""
        self._answer("POST", path)

    def _json(self, path: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._answer("GET", f"{path}?{urlencode(parameters)}"))
        except ValueError as exc:
            raise AdminUnreachable(f"{path}: {exc}") from exc
        return found

    def _answer(self, method: str, path: str) -> bytes:
        status, body = self._ask(method, path)
        if status != HTTPStatus.OK:
            raise AdminUnreachable(f"{path}: {status} {body[:200].decode(errors='replace')}")
        return body

    def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        connection = _Connection(self._path)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as exc:
            raise AdminUnreachable(f"{path}: {exc}") from exc
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    # Not through httpx: its transport leaves a socket open where it cannot connect, as while Envoy starts.
    def __init__(self, path: Path) -> None:
        super().__init__("envoy", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._path))


def _host(cluster: str, told: Mapping[str, Any]) -> Host:
    address = told.get("address", {}).get("socket_address", {})
    stats = {stat["name"]: int(stat.get("value", 0)) for stat in told.get("stats", ())}
    health = told.get("health_status", {})
    status = health.get("eds_health_status", "HEALTHY")
    return Host(
        cluster=cluster,
        address=address.get("address", ""),
        port=int(address.get("port_value", 0)),
        healthy=not any(flag.startswith("failed_") and value for flag, value in health.items()),
        draining=status == "DRAINING",
        num_active=stats.get("rq_active", 0),
        num_requests=stats.get("rq_total", 0),
        num_errors=stats.get("rq_error", 0),
    )
