"""Where a rendering of a service runs: addresses, ports and paths, which the description leaves out."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """One replica, as the gateway reaches it."""

    name: str
    """Unique in the service, as `main-0`; the label `replica` of its metrics."""
    host: str
    """An IP address, or a name that is looked up."""
    grpc_port: int = 8001
    http_port: int = 8000
    metrics_port: int = 8002
    admitted: bool = True
    """False takes it out of the balancing: requests in flight finish, new ones go elsewhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the gateway runs, and what it finds there."""

    config_dir: str
    """The directory with the rendered files, as the gateway sees it."""
    secrets_dir: str
    """The directory with `api-keys`, `tls.crt`, `tls.key`, `clients.crt`, `clients.crl`, `jwks/<issuer>.json` and
    `triton-admin-key`, as the gateway sees it. What the service does not need may be missing."""
    endpoints: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    """The replicas of each pool."""
    host: str = "0.0.0.0"  # noqa: S104 - in a container; the local form says loopback
    port: int = 8443
    """gRPC and HTTP share it."""
    metrics_host: str = "0.0.0.0"  # noqa: S104
    metrics_port: int = 9901
    """Answers GET /metrics (Prometheus) and /ready only."""
    admin: str = "/tmp/envoy-admin.sock"  # noqa: S108
    """Path of the UNIX socket of Envoy's administration."""
    access_log: str = "/dev/stdout"
    collector: tuple[str, int] | None = None
    """Host and port of an OpenTelemetry collector (OTLP over gRPC)."""
