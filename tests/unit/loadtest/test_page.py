"""``report.html``: complete, self-contained, and alive in a browser."""

import json
import re
import shutil
import subprocess

import pytest

from loadtest_samples import measurement, report, server_times
from naiad.loadtest import Baseline, LoadTest, Slo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=10000",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    measured = measurement(errors={"<script>alert(1)</script>": 5})
    slos = [Slo.parse(text).judge(measured) for text in ("p99<1ms", "throughput>1/s")]
    comparisons = Baseline.of(LoadTest(model="m", users=4), measured).compare(measured)
    report(measured, slos=slos, comparisons=comparisons).write(html=path)
    return path


def own_part(page) -> str:
    """The page without Plotly's library."""
    return re.sub(r"<script>(?!\s*\"use strict\").*?</script>", "", page.read_text(), flags=re.DOTALL)


def test_the_page_needs_nothing_from_elsewhere(page):
    """No element refers to another file or host."""
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)|@import|url\(""", own_part(page))


def test_the_summary_comes_first(page):
    """Verdict and reasons stand before figures, figures before charts."""
    text = own_part(page)
    places = [
        text.index(part) for part in ('class="verdict failed"', "objective missed: p99", "requests/s", 'id="charts"')
    ]
    assert places == sorted(places)


def test_text_from_outside_cannot_become_markup(page):
    """An error's name that looks like a script is shown, not run."""
    assert "<script>alert(1)" not in own_part(page)
    assert "&lt;script&gt;alert(1)" in own_part(page)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_every_chart_is_drawn_without_a_console_error(page, tmp_path):
    """In headless Chromium at a phone's width, five charts are drawn and the console stays empty."""
    command = [
        str(CHROMIUM),
        *FLAGS,
        f"--user-data-dir={tmp_path}",
        "--window-size=500,900",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    drawn = re.findall(r'id="(\w+)" class="js-plotly-plot"', done.stdout)
    assert sorted(drawn) == ["batches", "breakdown", "distribution", "latency", "throughput"]


def test_the_charts_show_what_the_json_says(page):
    """Every chart has data; the percentile curve ends at the maximum."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), flags=re.DOTALL)
    charts = json.loads(found[1])
    assert all(any(trace["x"] and trace["y"] for trace in chart["data"]) for chart in charts.values())
    assert charts["distribution"]["data"][0]["y"][-1] == pytest.approx(9.99, abs=0.02)


def test_a_run_that_measured_nothing_has_a_page_without_charts(tmp_path):
    """No empty axes where there is nothing to show."""
    path = tmp_path / "report.html"
    empty = server_times(requests=0, executions=0, inferences=0, batches={})
    report(measurement([], server=empty)).write(html=path)
    assert "no request succeeded" in path.read_text()
