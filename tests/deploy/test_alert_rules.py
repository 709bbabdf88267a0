"""The rendered rules, by Prometheus's own programs: each alert fires when it should, and not when it should not."""

import re
from pathlib import Path

import pytest
import yaml

from deploy_helpers import program, run
from naiad.deploy._files import write_all
from naiad.deploy.monitoring import Targets, alerts, render_monitoring
from naiad.deploy.place import Endpoint
from rule_scenarios import SCENARIOS, SERVICE


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a service that has whatever an alert is about."""
    folder = tmp_path_factory.mktemp("monitoring")
    endpoints = {"main": (Endpoint(name="main-0", host="main-0"), Endpoint(name="main-1", host="::1"))}
    targets = Targets(endpoints=endpoints, collector="collector:8888", webhook_url="http://127.0.0.1:1/")
    write_all(folder, render_monitoring(SERVICE, targets))
    return folder


def test_prometheus_accepts_its_configuration_and_its_rules(rendered: Path) -> None:
    """`promtool check config` reads the configuration and every rule file that it names."""
    said = run([program("promtool"), "check", "config", "prometheus.yml"], directory=rendered)
    assert said.count("SUCCESS") == 4


def test_alertmanager_accepts_its_configuration(rendered: Path) -> None:
    """`amtool check-config` finds the receiver and the inhibitions."""
    assert "1 receivers" in run([program("amtool"), "check-config", "alertmanager.yml"], directory=rendered)


def test_every_alert_has_a_scenario() -> None:
    """No alert is without a test, and no test is about an alert that is gone."""
    assert _known() == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_alert_fires(name: str, rendered: Path) -> None:
    """With metrics of trouble the alert fires once, with the labels that say where."""
    _check(name, rendered, fires=True)


@pytest.mark.parametrize("name", SCENARIOS)
def test_alert_stays_quiet(name: str, rendered: Path) -> None:
    """With metrics that are alike but no trouble it does not."""
    _check(name, rendered, fires=False)


def test_annotations_name_only_labels_that_the_alert_has() -> None:
    """A label that is missing would show as nothing in the message that somebody reads at night."""
    for members in alerts(SERVICE).values():
        for alert in members:
            labels = [scenario.labels for name, scenario in SCENARIOS.items() if name.split()[0] == alert.name]
            used = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description))
            assert all(used <= set(each) for each in labels), alert.name


def _known() -> set[str]:
    """Every alert, as the scenarios call it."""
    names = set()
    for members in alerts(SERVICE).values():
        for alert in members:
            twin = sum(other.name == alert.name for other in members) > 1 and alert.severity == "critical"
            names.add(
                " ".join((alert.name, *alert.labels.values(), *(["critical"] if twin and not alert.labels else [])))
            )
    return names


def _check(name: str, rendered: Path, *, fires: bool) -> None:
    alert, recorded = name.split()[0], ["naiad-gateway", "naiad-long", "naiad-triton"]
    content = {
        "rule_files": ["rules/recording.yml", _only(alert, rendered)],
        "group_eval_order": [*recorded, *alerts(SERVICE)],  # else what was recorded is one step old
        **SCENARIOS[name].test(alert, fires=fires),
    }
    path = rendered / f"{name}-{fires}.yml"
    path.write_text(yaml.safe_dump(content))
    run([program("promtool"), "test", "rules", path.name], directory=rendered)


def _only(alert: str, rendered: Path) -> str:
    """A file with the rules of one alert, as all of them take longer."""
    groups = yaml.safe_load((rendered / "rules" / "alerts.yml").read_text())["groups"]
    chosen = [{**group, "rules": [rule for rule in group["rules"] if rule["alert"] == alert]} for group in groups]
    path = rendered / "rules" / f"{alert}.yml"
    path.write_text(yaml.safe_dump({"groups": chosen}))
    return f"rules/{path.name}"
