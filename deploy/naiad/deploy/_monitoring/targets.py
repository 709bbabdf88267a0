"""Where the monitoring finds what it watches, and how often it looks: what the service's description leaves out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from naiad.deploy._monitoring.text import duration
from naiad.deploy.place import Endpoint, Place

COLLECTOR_PORT = 8888
"""Where the collector answers GET /metrics about itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How often the monitoring looks and tells; the default is for a service, a faster one for trying it out."""

    scrape_s: float = 15.0
    """Seconds between two looks at a server's metrics."""
    evaluate_s: float = 15.0
    """Seconds between two evaluations of the rules."""
    patience: float = 1.0
    """Factor on the time that an alert's condition must hold before the alert fires."""
    group_wait_s: float = 15.0
    """Seconds that a first alert waits for others which belong to it."""
    group_interval_s: float = 120.0
    """Seconds until an alert that joins a group which was told already is told."""
    repeat_interval_s: float = 4 * 3600.0
    """Seconds until an alert that still fires is told again."""

    def hold(self, seconds: float) -> str:
        """The `for:` of an alert whose condition should hold so long."""
        return duration(seconds * self.patience)


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Addresses (host:port) and paths, as the monitoring's own programs see them."""

    endpoints: Mapping[str, tuple[Endpoint, ...]]
    """The replicas of each pool; those without a name in a pool's tuple are not watched."""
    gateway: str = "gateway:9901"
    """Where the gateway answers GET /metrics."""
    prometheus: str = "localhost:9090"
    alertmanager: str = "alertmanager:9093"
    collector: str | None = None
    """Where the OpenTelemetry collector answers GET /metrics; None without one."""
    prometheus_url: str = "http://prometheus:9090"
    """Prometheus, as Grafana reaches it."""
    dashboards_dir: str = "/etc/grafana/dashboards"
    """The rendered `grafana/dashboards`, as Grafana sees it."""
    webhook_url: str | None = None
    """Where alerts are posted; None for the URL in the file `webhook_file`."""
    webhook_file: str = "/run/secrets/alert-webhook"
    """A file with the URL, as Alertmanager sees it: the URL of a chat or a pager is a secret."""
    runbooks: str = "docs/operators.md"
    """The page with what to do at each alert."""
    pace: Pace = field(default_factory=Pace)

    @classmethod
    def in_containers(cls, place: Place) -> Self:
        """Where the containers of `docker-compose.yml` find each other: by their names."""
        collector = f"{place.collector[0]}:{COLLECTOR_PORT}" if place.collector else None
        return cls(endpoints=place.endpoints, gateway=f"gateway:{place.metrics_port}", collector=collector)
