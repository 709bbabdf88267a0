"""The monitoring against the real thing: three Tritons, the gateway, Prometheus and Alertmanager, under load.

What needs an NVIDIA GPU is named in `NEEDS_GPU`, and only looked at for being asked for by the documented names.
"""

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from monitoring_stack import wait_until
from naiad.client import ClientError
from naiad.deploy._monitoring.names import GPU
from naiad.deploy.certificates import install_server_certificate, make_server_certificate
from naiad.deploy.monitoring import render_monitoring
from watched_service import SERVICE, TARGETS, Watched, watched_service

NEEDS_GPU = GPU
"""Triton has these metrics on a machine with NVIDIA GPUs only: their names are those of its documentation."""
RENDERED = render_monitoring(SERVICE, TARGETS)
DASHBOARDS = {Path(name).stem: json.loads(text) for name, text in RENDERED.items() if name.endswith(".json")}
PANELS = {
    f"{board}: {panel['title']}": [target["expr"] for target in panel["targets"]]
    for board, content in DASHBOARDS.items()
    for panel in content["panels"]
    if panel["type"] != "row"
}
RULES = [
    rule
    for name in ("rules/recording.yml", "rules/alerts.yml")
    for group in yaml.safe_load(RENDERED[name])["groups"]
    for rule in group["rules"]
]
RECORDS = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
ALERTS = {
    f"{rule['alert']} {rule['labels'].get('window', rule['labels']['severity'])}": rule["expr"]
    for rule in RULES
    if "alert" in rule
}
VARIABLES = {
    f"{board}: {variable['name']}": variable["query"]["query"]
    for board, content in DASHBOARDS.items()
    for variable in content["templating"]["list"]
    if variable["type"] == "query"
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The service, running until the module's last test; tests come in the order in which they break it."""
    with watched_service(tmp_path_factory.mktemp("watched")) as service:
        looks = 'count_over_time(up{job="gateway"}[5m]) > 8'
        wait_until(lambda: service.prometheus.query(looks), "Prometheus to have looked a few times")
        yield service


@pytest.mark.parametrize("name", RECORDS)
def test_recording_rule_has_data(name: str, watched: Watched) -> None:
    """Prometheus keeps a number for it."""
    wait_until(lambda: watched.prometheus.query(name), f"data of {name}", within_s=15)


@pytest.mark.parametrize("name", PANELS)
def test_panel_has_data(name: str, watched: Watched) -> None:
    """Each query of the panel has numbers, with every choice of the variables at once, and with one."""
    if any(metric in expression for metric in NEEDS_GPU for expression in PANELS[name]):
        pytest.skip("its metrics exist on machines with NVIDIA GPUs only")
    for expression in PANELS[name]:
        for choice in (".*", _CHOICES):
            asked = _with_choice(expression, choice)
            found = wait_until(lambda asked=asked: watched.prometheus.values(asked), f"data of {asked}", within_s=15)
            assert any(not np.isnan(value) for value in found), asked


@pytest.mark.parametrize("name", VARIABLES)
def test_variable_has_values(name: str, watched: Watched) -> None:
    """The choice at the top of the dashboard is not empty."""
    metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", VARIABLES[name]).groups()  # type: ignore[union-attr]
    assert watched.prometheus.ask(f"label/{label}/values", **{"match[]": metric})


@pytest.mark.parametrize("name", ALERTS)
def test_everything_an_alert_asks_for_exists(name: str, watched: Watched) -> None:
    """Each selection of series in its condition has some: an alert about a misspelt metric would never fire."""
    for selector in _selectors(ALERTS[name]):
        if any(selector.startswith(metric) for metric in NEEDS_GPU):
            continue
        wait_until(lambda selector=selector: watched.prometheus.query(selector), f"series of {selector}", within_s=15)


def test_rules_are_evaluated_without_errors(watched: Watched) -> None:
    """Prometheus has no complaint about any rule."""
    groups = watched.prometheus.ask("rules")["groups"]
    wrong = {rule["name"]: rule["lastError"] for group in groups for rule in group["rules"] if rule["health"] == "err"}
    assert wrong == {}


def test_what_is_well_is_not_told(watched: Watched) -> None:
    """With every replica up and a good certificate, nobody hears of the opposite."""
    told = {alert["labels"]["alertname"] for alert in watched.told.alerts}
    assert not told & {"ReplicaDown", "NoReplicas", "GatewayDown", "CertificateExpires", "QueueLong", "Stuck"}
    assert not watched.told.fired("StubDead", model="steady")


def test_callers_that_are_refused_are_told(watched: Watched) -> None:
    """Wrong keys, an identity over its limit, and one that calls what it may not, each reach the operator."""
    for name, labels in {
        "AuthenticationFailures": {},
        "RateLimited": {"identity": "limited"},
        "CallsDenied": {"identity": "limited"},
        "ErrorBudgetBurns": {"model": "flaky", "window": "1h"},
    }.items():
        alert = _told(watched, name, **labels)
        assert "<no value>" not in alert["annotations"]["description"]


def test_a_certificate_near_its_end_is_told(watched: Watched) -> None:
    """The alert follows the certificate that is served: a short one makes it fire, a long one ends it."""
    install_server_certificate(watched.secrets, make_server_certificate(watched.authority, ["127.0.0.1"], days=2))
    alert = _told(watched, "CertificateExpires", severity="critical")
    assert "1.99" in alert["annotations"]["description"] or "2 days" in alert["annotations"]["description"]
    install_server_certificate(watched.secrets, make_server_certificate(watched.authority, ["127.0.0.1"]))
    wait_until(lambda: watched.told.resolved("CertificateExpires", severity="critical"), "the alert to be over")


def test_a_dead_stub_is_told(watched: Watched) -> None:
    """The process that runs a model on one replica is killed; Triton says that it is ready, the alert knows better."""
    _kill_stub(watched, "main-0", "steady")
    alert = _told(watched, "StubDead", model="steady", replica="main-0")
    assert alert["annotations"]["runbook"] == "docs/operators.md#stubdead"


def test_a_growing_queue_is_told_unless_a_replica_is_down(watched: Watched) -> None:
    """More arrives than a model can do: told. A replica is killed: told, and it explains the queue from then on."""
    with ThreadPoolExecutor(60) as pool, watched.client(watched.keys["caller"]) as client:
        busy = [True]

        def ask() -> None:
            while busy:
                with suppress(ClientError):
                    client.infer("slow", {"x": np.full((1, 2), 0.5, np.float32)}, timeout_s=30)

        waiting = [pool.submit(ask) for _ in range(60)]
        try:
            _told(watched, "QueueLong", model="slow")
            os.kill(watched.servers["main-1"].pid, 9)
            _told(watched, "ReplicaDown", replica="main-1")
            wait_until(lambda: watched.inhibited("QueueLong"), "the queue to be explained by the replica")
        finally:
            busy.clear()
        for future in waiting:
            future.result()


def test_a_gateway_that_is_gone_is_told(watched: Watched) -> None:
    """Nothing else does: without it Prometheus has no metrics of callers."""
    watched.gateway.stop()
    _told(watched, "GatewayDown")


def _told(watched: Watched, name: str, **labels: str) -> dict[str, Any]:
    """The alert, once the operator has heard of it."""
    return wait_until(lambda: watched.told.fired(name, **labels), f"{name} to be told")[0]


def _kill_stub(watched: Watched, replica: str, model: str) -> None:
    pids = [
        pid for pid in watched.servers[replica].stub_pids() if f"/{model}/" in " ".join(psutil.Process(pid).cmdline())
    ]
    assert pids
    for pid in pids:
        os.kill(pid, 9)


_CHOICES = {"model": "steady|cached|flaky", "replica": "main-0|main-1", "identity": "limited"}


def _with_choice(expression: str, choice: str | dict[str, str]) -> str:
    """As Grafana puts in what is chosen."""
    for name in ("model", "replica", "identity"):
        expression = expression.replace(f"${name}", choice if isinstance(choice, str) else choice[name])
    return expression.replace("$__rate_interval", "1m")


_NO_METRIC = r'(?<=[ (,])"[^"]*"|\b(by|on|group_left) \([^)]*\)'
"""Strings, and lists of labels."""


def _selectors(expression: str) -> set[str]:
    """The metrics that an expression asks for, with their matchers."""
    words = re.findall(r"(?<![\w\"$])([a-zA-Z_:][\w:]*)(\{[^}]*\})?", re.sub(_NO_METRIC, "", expression))
    return {
        f"{name}{matchers}" for name, matchers in words if matchers or name.startswith(("nv_", "envoy_")) or ":" in name
    }
