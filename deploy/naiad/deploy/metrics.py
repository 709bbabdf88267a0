"""What a gateway elsewhere tells of its pools, by its metrics: all that it shows to others."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import httpx

from naiad.deploy.errors import GatewayError

__all__ = ["PoolStatus", "read_pools"]

_TIMEOUT_S: Final = 5.0
_LINE: Final = re.compile(
    r"envoy_cluster_(membership_total|membership_healthy|upstream_rq_active|upstream_rq_total)"
    r'\{[^}]*envoy_cluster_name="([^"]+)-(grpc|http)"[^}]*\} (\d+)'
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStatus:
    """One pool, as the gateway sees it; HTTP and gRPC together."""

    name: str
    num_replicas: int
    num_healthy: int
    """Replicas that answer both kinds of health checks."""
    num_in_flight: int
    num_requests: int
    """Since the gateway's start."""

    @property
    def ok(self) -> bool:
        """Whether every replica answers."""
        return self.num_replicas > 0 and self.num_healthy >= self.num_replicas


def read_pools(url: str) -> tuple[PoolStatus, ...]:
    """Return the pools of the gateway whose metrics are at ``url`` (`http://host:9901`, with `/metrics` or without).

    Raises:
        GatewayError: nothing answers there, or it is no gateway.
    """
    address = f"{url.rstrip('/').removesuffix('/metrics')}/metrics"
    try:
        text = httpx.get(address, timeout=_TIMEOUT_S).raise_for_status().text
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise GatewayError(f"expected a gateway's metrics at {address}: {exc}") from exc
    found: defaultdict[str, defaultdict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for match in _LINE.finditer(text):
        measure, pool, protocol, value = match.groups()
        found[pool][measure][protocol] = int(value)
    if not found:
        raise GatewayError(f"expected a gateway's metrics at {address}, found none of a pool: is it another program's?")
    return tuple(_pool(name, measures) for name, measures in found.items())


def _pool(name: str, measures: defaultdict[str, dict[str, int]]) -> PoolStatus:
    return PoolStatus(
        name=name,
        num_replicas=max(measures["membership_total"].values(), default=0),
        num_healthy=min(measures["membership_healthy"].values(), default=0),
        num_in_flight=sum(measures["upstream_rq_active"].values()),
        num_requests=sum(measures["upstream_rq_total"].values()),
    )
