"""``naiad report``: showing, converting and comparing what load tests wrote."""

from __future__ import annotations

import json
import subprocess

import pytest

import report_contents as contents
from loadtest_helpers import NAIAD
from naiad.loadtest import Report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs, the second one faster and with more connections, and a gate."""
    path = tmp_path_factory.mktemp("reports")
    new = contents.content(results=contents.results(seed=5, p50_us=2000))
    new["test"]["connections"] = 4
    for name, content in (("old", contents.content()), ("new", new), ("gate", contents.gate())):
        (path / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return path


def report(folder, *arguments):
    command = [*NAIAD, "report", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_a_report_is_shown(folder):
    """The verdict and the objective that was missed are on the screen."""
    done = report(folder, "show", "old.json")
    assert done.returncode == 0, done.stderr
    assert "objective missed: p99.9<100ms" in done.stdout


def test_a_page_is_made_and_holds_its_report(folder, tmp_path):
    """What the page was made from can be read from it again; a gate's result has a page, too."""
    assert report(folder, "html", "old.json", "-o", tmp_path / "page.html").returncode == 0
    assert Report.read(tmp_path / "page.html") == Report.read(folder / "old.json")
    assert report(folder, "html", "gate.json", "-o", tmp_path / "gate.html").returncode == 0
    assert Report.read(tmp_path / "gate.html")["kind"] == "gate"


def test_tables_are_written(folder, tmp_path):
    """Points over time where asked for, percentiles beside them."""
    assert report(folder, "csv", "old.json", "-o", tmp_path / "run.csv").returncode == 0
    assert (tmp_path / "run.csv").read_text().startswith("model,at_s,warmup")
    assert (tmp_path / "run-percentiles.csv").read_text().startswith("model,percentile")


def test_two_runs_are_compared(folder, tmp_path):
    """Ratios with intervals, what was set differently, and that two runs are no proof."""
    done = report(folder, "compare", "old.json", "new.json", "--json", "--html", tmp_path / "c.html")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    p50 = next(item for item in found["ratios"] if item["metric"] == "p50")
    assert p50["judgement"] == "better"
    assert p50["interval"][0] < p50["ratio"] == p50["new"] / p50["old"] < p50["interval"][1] < 1
    assert found["differences"] == [{"name": "connections", "old": "1", "new": "4"}]
    assert any("two single runs" in text for text in found["warnings"])
    assert "<!DOCTYPE html>" in (tmp_path / "c.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "missing.json"), "cannot be read"),
        (("compare", "old.json", "gate.json"), "expected the report of a run"),
        (("html", "old.json", "-o", "missing/page.html"), "does not exist"),
    ],
)
def test_wrong_files_are_refused(folder, arguments, message):
    """One sentence, exit code 2, no traceback."""
    done = report(folder, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
