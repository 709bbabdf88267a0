"""Envoy's administration, over its UNIX socket."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

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

    def __init__(self, socket: Path) -> None:
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://envoy", timeout=_TIMEOUT_S
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def is_ready(self) -> bool:
        """Whether it has all of its configuration and serves."""
        try:
            return self._client.get("/ready").status_code == httpx.codes.OK
        except httpx.HTTPError:
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

    def refusals(self) -> dict[str, str]:
        """Names of resources whose last update was refused, with Envoy's reasons. Raises `AdminUnreachable`."""
        return dict(_errors(self._json("/config_dump", {"include_eds": ""})))

    def post(self, path: str) -> None:
        """Ask for something to be done. Raises `AdminUnreachable`."""
        try:
            self._client.post(path).raise_for_status()
        except httpx.HTTPError as exc:
            raise AdminUnreachable(f"{path}: {exc}") from exc

    def _json(self, path: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        try:
            answer = self._client.get(path, params=parameters).raise_for_status()
            found: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as exc:
            raise AdminUnreachable(f"{path}: {exc}") from exc
        return found


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


def _errors(node: Any, name: str = "") -> list[tuple[str, str]]:
    """Every `error_state` in a dump, with the name of what it belongs to."""
    found: list[tuple[str, str]] = []
    if isinstance(node, list):
        for item in node:
            found += _errors(item, name)
    elif isinstance(node, dict):
        name = str(node.get("name", name))
        error = node.get("error_state")
        if isinstance(error, dict):
            found.append((name, re.sub(r"\s+", " ", str(error.get("details", "")))))
        for key, item in node.items():
            if key != "error_state" and isinstance(item, dict | list):
                found += _errors(item, name)
    return found
