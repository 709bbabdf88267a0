"""What watches a service, rendered from its description: Prometheus, Alertmanager, Grafana, a trace collector."""

from typing import Any

from naiad.deploy._gateway._document import document
from naiad.deploy._monitoring import alertmanager, collector, grafana, prometheus, recording
from naiad.deploy._monitoring.alert import Alert as Alert
from naiad.deploy._monitoring.gateway_alerts import gateway_alerts
from naiad.deploy._monitoring.objectives import objective_alerts
from naiad.deploy._monitoring.own_alerts import own_alerts
from naiad.deploy._monitoring.replica_alerts import replica_alerts
from naiad.deploy._monitoring.targets import Pace as Pace
from naiad.deploy._monitoring.targets import Targets as Targets
from naiad.deploy.service import Service


def render_monitoring(service: Service, targets: Targets) -> dict[str, str]:
    """Return the text of each file, by its path below the monitoring's directory.

    `prometheus.yml` looks for `rules/` beside itself; Grafana finds `grafana/provisioning` where its own is, and
    `grafana/dashboards` at `targets.dashboards_dir`.
    """
    return {
        "prometheus.yml": document(prometheus.configuration(service, targets)),
        "rules/recording.yml": document({"groups": recording.groups(service, targets.pace)}),
        "rules/alerts.yml": document({"groups": _alert_groups(service, targets)}),
        "alertmanager.yml": document(alertmanager.configuration(targets)),
        "collector.yml": document(collector.configuration()),
        "grafana/provisioning/datasources/prometheus.yml": document(grafana.datasources(targets)),
        "grafana/provisioning/dashboards/naiad.yml": document(grafana.providers(service, targets)),
        **grafana.dashboards(service),
    }


def alerts(service: Service) -> dict[str, tuple[Alert, ...]]:
    """Every alert of a service, by the name of its group."""
    return {
        "naiad-objectives": objective_alerts(service),
        "naiad-replicas": replica_alerts(service),
        "naiad-gateway-alerts": gateway_alerts(service),
        "naiad-monitoring": own_alerts(),
    }


def _alert_groups(service: Service, targets: Targets) -> list[dict[str, Any]]:
    return [
        {"name": name, "rules": [alert.rule(targets) for alert in members]} for name, members in alerts(service).items()
    ]
