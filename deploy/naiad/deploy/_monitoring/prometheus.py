"""Prometheus's own configuration: what it asks, how often, and who hears of alerts."""

from typing import Any

from naiad.deploy._monitoring.targets import Targets
from naiad.deploy._monitoring.text import duration, metrics_address
from naiad.deploy.service import Service

RULE_FILES = ("rules/recording.yml", "rules/alerts.yml")
"""Names of the rules' files; Prometheus looks for them beside its configuration."""


def configuration(service: Service, targets: Targets) -> dict[str, Any]:
    """The content of `prometheus.yml`."""
    pace = targets.pace
    return {
        "global": {
            "scrape_interval": duration(pace.scrape_s),
            "scrape_timeout": duration(min(10.0, pace.scrape_s)),
            "evaluation_interval": duration(pace.evaluate_s),
            "external_labels": {"service": service.name},
        },
        "rule_files": list(RULE_FILES),
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [targets.alertmanager]}]}]},
        "scrape_configs": _jobs(targets),
    }


def _jobs(targets: Targets) -> list[dict[str, Any]]:
    jobs = [
        {"job_name": "triton", "static_configs": _replicas(targets)},
        _job("gateway", targets.gateway),
        _job("prometheus", targets.prometheus),
        _job("alertmanager", targets.alertmanager),
    ]
    return [*jobs, _job("collector", targets.collector)] if targets.collector else jobs


def _replicas(targets: Targets) -> list[dict[str, Any]]:
    """One entry per replica, as each has labels of its own."""
    return [
        {"targets": [metrics_address(endpoint)], "labels": {"pool": pool, "replica": endpoint.name}}
        for pool, endpoints in targets.endpoints.items()
        for endpoint in endpoints
    ]


def _job(name: str, address: str) -> dict[str, Any]:
    return {"job_name": name, "static_configs": [{"targets": [address]}]}
