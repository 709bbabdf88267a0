"""What a running gateway tells about itself."""

import contextlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from naiad.deploy._envoy.admin import Admin, Host
from naiad.deploy.place import Endpoint

_TOTALS: Final = r"^http\.[^.]+\.(downstream_rq_total|downstream_rq_active|downstream_cx_active)$"
_REFUSED: Final = r"^naiad\.refused_requests$"
_OWN: Final = ("http.admin.", "http.metrics.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaStatus:
    """One replica, as the gateway sees it; HTTP and gRPC together."""

    name: str
    pool: str
    healthy: bool
    """Answers the gateway's health checks."""
    admitted: bool
    """Gets requests; False while it is drained."""
    num_in_flight: int
    num_requests: int
    num_errors: int
    """Requests without an answer from it; they may have been answered by another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayStatus:
    """A gateway at one moment; counts are since Envoy's last start."""

    replicas: tuple[ReplicaStatus, ...]
    num_requests: int
    num_in_flight: int
    num_connections: int
    num_refused: int
    """Requests that never reached a replica: no right, too many, too large."""
    certificate_days: int | None
    """Days until the gateway's certificate expires; None without TLS."""
    restarts: int = 0

    @property
    def ok(self) -> bool:
        """Whether every replica that is admitted answers, and one is."""
        admitted = [replica for replica in self.replicas if replica.admitted]
        return bool(admitted) and all(replica.healthy for replica in admitted)


def read_status(admin: Admin, pools: Mapping[str, Sequence[Endpoint]], restarts: int = 0) -> GatewayStatus:
    """Ask a running Envoy. Raises `AdminUnreachable`."""
    hosts = admin.hosts()
    totals = admin.stats(_TOTALS)
    return GatewayStatus(
        replicas=tuple(_replica(pool, endpoint, hosts) for pool in pools for endpoint in pools[pool]),
        num_requests=_sum(totals, "downstream_rq_total"),
        num_in_flight=_sum(totals, "downstream_rq_active"),
        num_connections=_sum(totals, "downstream_cx_active"),
        num_refused=sum(admin.stats(_REFUSED).values()),
        certificate_days=admin.certificate_days(),
        restarts=restarts,
    )


def in_flight(admin: Admin) -> int:
    """Requests of callers that the gateway is working on. Raises `AdminUnreachable`."""
    return _sum(admin.stats(_TOTALS), "downstream_rq_active")


def hosts_of(endpoint: Endpoint, hosts: Sequence[Host]) -> list[Host]:
    """What Envoy says of one replica: an entry for each protocol and cluster."""
    ports = (endpoint.grpc_port, endpoint.http_port)
    return [host for host in hosts if host.port in ports and _is_at(endpoint.host, host.address)]


def _replica(pool: str, endpoint: Endpoint, hosts: Sequence[Host]) -> ReplicaStatus:
    seen = hosts_of(endpoint, hosts)
    return ReplicaStatus(
        name=endpoint.name,
        pool=pool,
        healthy=bool(seen) and all(host.healthy for host in seen),
        admitted=endpoint.admitted,
        num_in_flight=sum(host.num_active for host in seen),
        num_requests=sum(host.num_requests for host in seen),
        num_errors=sum(host.num_errors for host in seen),
    )


def _is_at(host: str, address: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) == ipaddress.ip_address(address)
    return True  # a name: its port has to tell


def _sum(stats: Mapping[str, int], suffix: str) -> int:
    return sum(value for name, value in stats.items() if name.endswith(f".{suffix}") and not name.startswith(_OWN))
