"""Grafana's files: where its data comes from, and the dashboards, which it finds at its start."""

import json
from typing import Any

from naiad.deploy._monitoring.dashboards.gateway import gateway
from naiad.deploy._monitoring.dashboards.gpu import gpu
from naiad.deploy._monitoring.dashboards.model import model
from naiad.deploy._monitoring.dashboards.overview import overview
from naiad.deploy._monitoring.targets import Targets
from naiad.deploy._monitoring.text import duration
from naiad.deploy.service import Service

DASHBOARDS = {"overview": overview, "model": model, "gateway": gateway, "gpu": gpu}


def datasources(targets: Targets) -> dict[str, Any]:
    """The content of `grafana/provisioning/datasources/prometheus.yml`."""
    source = {
        "name": "Prometheus",
        "uid": "prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": targets.prometheus_url,
        "isDefault": True,
        "editable": False,
        # Grafana's $__rate_interval is four of these or more: rates then never miss a sample.
        "jsonData": {"timeInterval": duration(targets.pace.scrape_s), "httpMethod": "POST"},
    }
    return {"apiVersion": 1, "datasources": [source]}


def providers(service: Service, targets: Targets) -> dict[str, Any]:
    """The content of `grafana/provisioning/dashboards/naiad.yml`."""
    provider = {
        "name": "naiad",
        "folder": service.name,
        "type": "file",
        "disableDeletion": True,
        "allowUiUpdates": False,
        "updateIntervalSeconds": 30,
        "options": {"path": targets.dashboards_dir},
    }
    return {"apiVersion": 1, "providers": [provider]}


def dashboards(service: Service) -> dict[str, str]:
    """Return the text of each dashboard, by file name."""
    return {
        f"grafana/dashboards/{name}.json": json.dumps(make(service), indent=1, ensure_ascii=False) + "\n"
        for name, make in DASHBOARDS.items()
    }
