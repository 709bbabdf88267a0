"""What a gate writes: JSON, JUnit XML, Markdown, a page."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from gate_sessions import DrawnSession
from naiad.loadtest import GateOptions, Slo, gate_html, to_junit, to_markdown
from naiad.loadtest._gate.compare import judge_session

OPTIONS = GateOptions(metrics=("p50", "throughput"), watched=("p99",), noise=None, seed=5)
SLOS = (Slo.parse("p99<4ms"),)


@pytest.fixture(scope="module")
def results():
    sessions = {
        "regression": DrawnSession(slower=1.5),
        "no regression": DrawnSession(noise=0.03),
        "inconclusive": DrawnSession(noise=1.5, seed=2),
        "invalid": DrawnSession(spoil=lambda number: "late"),
    }
    return {
        verdict: judge_session(session, OPTIONS, names=("old <1>", "new & |2|"), slos=SLOS)
        for verdict, session in sessions.items()
    }


VERDICTS = ["regression", "no regression", "inconclusive", "invalid"]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_json_has_numbers_only(results, verdict):
    """Every result is JSON without infinities, names its verdict, and has every pair that was measured."""
    content = json.loads(json.dumps(results[verdict].to_json(), allow_nan=False))
    assert content["verdict"] == verdict
    assert content["kind"] == "gate"
    assert len(content["pairs"]) == content["num_pairs"] + len(content["discarded"])
    assert content["options"]["seed"] == 5


def test_json_has_what_each_metric_showed(results):
    """Ratio, interval, p-values, margin and the smallest effect; the ratio is that of candidate to baseline."""
    metrics = {item["metric"]: item for item in results["regression"].to_json()["metrics"]}
    p50 = metrics["p50"]
    assert p50["interval"][0] < p50["ratio"] < p50["interval"][1]
    assert p50["p"] <= p50["p_adjusted"] < 0.05
    assert p50["unit"] == "us"
    assert p50["candidate"] > p50["baseline"]
    assert metrics["throughput"]["ratio"] < 1
    assert not metrics["p99"]["judged"]
    assert len(p50["pairs"]) == results["regression"].num_pairs


@pytest.mark.parametrize("verdict", VERDICTS)
def test_junit_is_what_services_read(results, verdict):
    """The counts agree with the cases, every case has a class and a name, and only a pass has no failure or error."""
    suite = ElementTree.fromstring(to_junit(results[verdict])).find("testsuite")
    cases = suite.findall("testcase")
    assert int(suite.get("tests")) == len(cases)
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(attribute)) == len(suite.findall(f"testcase/{tag}"))
    assert all(case.get("name") and case.get("classname") == "naiad.gate" for case in cases)
    assert len({case.get("name") for case in cases}) == len(cases)
    bad = int(suite.get("failures")) + int(suite.get("errors"))
    assert bool(bad) == (verdict != "no regression")
    assert {item.get("name"): item.get("value") for item in suite.findall("properties/property")}["verdict"] == verdict


def test_junit_marks_a_missed_objective(results):
    """It is a failure of its own, beside metrics that pass."""
    passed = results["no regression"]
    missed = replace(passed, objectives=(replace(passed.objectives[0], met=False),))
    failures = ElementTree.fromstring(to_junit(missed)).findall("testsuite/testcase/failure")
    assert [failure.get("type") for failure in failures] == ["objective missed"]


def test_junit_holds_no_character_that_xml_lacks(results):
    """A name with control characters gives a file that can be read."""
    named = replace(results["regression"], candidate="a\x00b\x1b[1m", reason="\ud800 lone")
    ElementTree.fromstring(to_junit(named).encode())


@pytest.mark.parametrize("verdict", VERDICTS)
def test_markdown_has_the_verdict_and_a_row_for_each_metric(results, verdict):
    """A table of equal columns, whose text cannot break it."""
    text = to_markdown(results[verdict])
    assert verdict in text.splitlines()[0]
    assert "old \\<1\\>" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} <= {8}
    if results[verdict].metrics:
        assert len(rows) == 2 + len(results[verdict].metrics)


def test_the_page_shows_the_gate(results):
    """The same content makes the self-contained page."""
    page = gate_html(results["regression"].to_json())
    assert "regression" in page
    assert "new &amp; |2|" in page


def test_lines_for_people_say_which_way_it_went(results):
    """Worse and better are words, whatever the metric's direction."""
    assert "worse" in results["regression"].metric["throughput"].text
    assert results["regression"].text.startswith("regression: beyond the margin")
