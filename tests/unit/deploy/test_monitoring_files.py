"""The monitoring's files, without the programs that read them: what they must say, and the dashboards' form."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from naiad.deploy import Service
from naiad.deploy._monitoring.text import duration
from naiad.deploy.monitoring import Pace, Targets, alerts, render_monitoring
from naiad.deploy.place import Endpoint
from naiad.deploy.service import Objective, Pool
from rule_scenarios import SERVICE

ROOT = Path(__file__).parents[3]
RENDERED = render_monitoring(SERVICE, Targets(endpoints={}))
DASHBOARDS = {name: json.loads(text) for name, text in RENDERED.items() if name.endswith(".json")}


@pytest.fixture(params=DASHBOARDS)
def dashboard(request: pytest.FixtureRequest) -> Any:
    """One dashboard after the other."""
    return DASHBOARDS[request.param]


def test_each_replica_is_asked_under_its_name() -> None:
    """Prometheus gets an address per replica with the labels pool and replica; an IPv6 address stands in brackets."""
    endpoints = {"main": (Endpoint(name="main-0", host="triton"), Endpoint(name="main-1", host="::1", metrics_port=9))}
    jobs = yaml.safe_load(render_monitoring(Service(), Targets(endpoints=endpoints))["prometheus.yml"])[
        "scrape_configs"
    ]
    triton = next(job for job in jobs if job["job_name"] == "triton")
    assert triton["static_configs"] == [
        {"targets": ["triton:8002"], "labels": {"pool": "main", "replica": "main-0"}},
        {"targets": ["[::1]:9"], "labels": {"pool": "main", "replica": "main-1"}},
    ]


def test_the_same_service_gives_the_same_files() -> None:
    """Nothing of the time or of this machine is in them."""
    assert render_monitoring(SERVICE, Targets(endpoints={})) == RENDERED


def test_no_file_holds_a_secret() -> None:
    """Where alerts are posted stands in a file that Alertmanager reads itself."""
    receiver = yaml.safe_load(RENDERED["alertmanager.yml"])["receivers"][0]
    assert receiver["webhook_configs"] == [{"url_file": "/run/secrets/alert-webhook", "send_resolved": True}]


def test_an_alert_that_cannot_fire_is_left_out() -> None:
    """Without TLS, canary and objectives nothing watches them; a budget of 20 % cannot burn 14.4 times as fast."""
    plain = _names(Service(tls=False, pools=(Pool(name="main"),)))
    assert not plain & {"CertificateExpires", "CertificatesRefused", "CanaryIdle", "CanaryFails", "ErrorBudgetBurns"}
    lenient = Service(objectives=(Objective(model="digits", error_percent=20),))
    windows = [alert.labels["window"] for alert in _of(lenient) if alert.name == "ErrorBudgetBurns"]
    assert windows == ["3d"]


def test_a_faster_pace_changes_when_but_not_what() -> None:
    """Expressions stay the same, so that what fires in a hurry would fire in a service."""
    hurried = render_monitoring(SERVICE, Targets(endpoints={}, pace=Pace(scrape_s=1, evaluate_s=1, patience=0.01)))
    assert _rules(hurried, "expr") == _rules(RENDERED, "expr")
    assert _rules(hurried, "for") != _rules(RENDERED, "for")


def test_operators_find_a_section_for_every_alert() -> None:
    """Each alert's runbook is an anchor of the operators' page."""
    headings = re.findall(r"^#+ (\w+)$", (ROOT / "docs" / "operators.md").read_text(), re.MULTILINE)
    assert {alert.name for alert in _of(SERVICE)} <= set(headings)


def test_every_alert_says_what_is_the_case() -> None:
    """A summary of one line, a description with a number or a name, and a severity that Alertmanager routes by."""
    for alert in _of(SERVICE):
        assert "\n" not in alert.summary
        assert alert.description.endswith(".")
        assert alert.severity in ("critical", "warning")


def test_inhibitions_are_about_alerts_that_exist() -> None:
    """A renamed alert would be told twice."""
    rules = yaml.safe_load(RENDERED["alertmanager.yml"])["inhibit_rules"]
    matchers = [matcher for rule in rules for matcher in (*rule["source_matchers"], *rule["target_matchers"])]
    named = {name for matcher in matchers if "alertname" in matcher for name in re.findall(r"[A-Z]\w+", matcher)}
    assert named <= {alert.name for alert in _of(SERVICE)}


def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: Any) -> None:
    """Grafana shows what overlaps somewhere else, and links by id."""
    panels = dashboard["panels"]
    assert max(Counter(panel["id"] for panel in panels).values()) == 1
    assert not [(a["title"], b["title"]) for a, b in combinations(panels, 2) if _overlap(a["gridPos"], b["gridPos"])]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_panels_say_what_they_show(dashboard: Any) -> None:
    """Each has a description, a unit, and queries with names of their own."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        assert len(panel["description"]) > 5, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert max(Counter(target["refId"] for target in panel["targets"]).values()) == 1


def test_dashboards_ask_the_data_source_that_is_chosen(dashboard: Any) -> None:
    """By the variable, so that they can be used with another Prometheus."""
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    sources = [panel["datasource"] for panel in dashboard["panels"] if panel["type"] != "row"]
    sources += [target["datasource"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert all(source == chosen for source in sources)


def test_dashboards_use_only_variables_that_they_have(dashboard: Any) -> None:
    """A variable that is missing would stand in the query as it is."""
    known = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval"}
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert {name for query in queries for name in re.findall(r"\$(\w+)", query)} - {"1"} <= known


def test_dashboards_have_addresses_of_their_own() -> None:
    """Two with one uid would replace each other."""
    assert len({content["uid"] for content in DASHBOARDS.values()}) == len(DASHBOARDS) == 4


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.5, "500ms"), (15, "15s"), (120, "2m"), (90, "90s"), (3600, "1h"), (86400, "1d")]
)
def test_durations_are_written_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    """As Prometheus reads them."""
    assert duration(seconds) == text


def _of(service: Service) -> list[Any]:
    return [alert for members in alerts(service).values() for alert in members]


def _names(service: Service) -> set[str]:
    return {alert.name for alert in _of(service)}


def _rules(files: dict[str, str], key: str) -> list[Any]:
    groups = (
        yaml.safe_load(files["rules/recording.yml"])["groups"] + yaml.safe_load(files["rules/alerts.yml"])["groups"]
    )
    return [rule.get(key) for group in groups for rule in group["rules"]]


def _overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    return not (beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"])
