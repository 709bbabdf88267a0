"""Alertmanager's configuration: who hears of an alert, together with which others, and what keeps it quiet."""

from typing import Any

from naiad.deploy._monitoring.targets import Targets
from naiad.deploy._monitoring.text import duration


def configuration(targets: Targets) -> dict[str, Any]:
    """The content of `alertmanager.yml`; one receiver, to which an operator adds others."""
    pace = targets.pace
    return {
        "route": {
            "receiver": "operators",
            "group_by": ["service", "alertname", "pool", "model"],
            "group_wait": duration(pace.group_wait_s),
            "group_interval": duration(pace.group_interval_s),
            "repeat_interval": duration(pace.repeat_interval_s),
        },
        "receivers": [{"name": "operators", "webhook_configs": [{**_webhook(targets), "send_resolved": True}]}],
        "inhibit_rules": [
            _quiets("GatewayDown", ["NoReplicas", "ReplicaNotReady", "MonitoringDown"], []),
            _quiets("NoReplicas", ["ReplicaDown", "ReplicaNotReady", "ReplicaUnstable", "QueueLong"], ["pool"]),
            _quiets("ReplicaDown", ["ReplicaNotReady", "QueueLong"], ["pool"]),
            _quiets("ReplicaDown", ["ReplicaUnstable", "StubDead", "BackendFails", "Stuck"], ["replica"]),
            _quiets("StubDead", ["BackendFails"], ["replica", "model"]),
            _louder(["alertname", "model", "certificate"]),
        ],
    }


def _webhook(targets: Targets) -> dict[str, str]:
    return {"url": targets.webhook_url} if targets.webhook_url else {"url_file": targets.webhook_file}


def _quiets(source: str, quieted: list[str], same: list[str]) -> dict[str, Any]:
    """Alerts that another explains: they are not told while it fires with the same labels."""
    rule = {
        "source_matchers": [f'alertname="{source}"'],
        "target_matchers": [f'alertname=~"{"|".join(quieted)}"'],
    }
    return {**rule, "equal": ["service", *same]}


def _louder(same: list[str]) -> dict[str, Any]:
    """The critical form of an alert quiets its own warning."""
    return {
        "source_matchers": ['severity="critical"'],
        "target_matchers": ['severity="warning"'],
        "equal": ["service", *same],
    }
