"""The pages in a real browser: complete, self-contained, legible at any width, and true to the JSON."""

from __future__ import annotations

import copy
import json
import re

import pytest

import report_contents as contents
from browser_helpers import CHROMIUM, Browser, Page, chromium
from naiad.loadtest import compare_html, gate_html
from naiad.loadtest._report.run_page import run_html

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

PHONE, DESKTOP = 375, 1280
CHARTS = """Object.fromEntries([...document.querySelectorAll("figure.chart")].map((figure) => [figure.id,
    [...figure.querySelectorAll("g.series")].map((group) => ({
        name: group.dataset.name,
        points: [...group.querySelectorAll("path.line")].map((path) =>
            (path.getAttribute("d").match(/[ML]/g) || []).length),
        dots: (group.querySelector("path.dots")?.getAttribute("d").match(/M/g) || []).length,
        bars: group.querySelectorAll("rect").length,
        drawn: [...group.children].every((shape) => shape.getBBox().width + shape.getBBox().height > 0),
    }))]))"""

# The formula of WCAG 2.2, for the text on each page's own background.
LOWEST_CONTRAST = """(() => {
    const linear = (part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const luminance = (color) => {
        const [red, green, blue] = color.match(/[\\d.]+/g).map((part) => linear(Number(part) / 255));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const behind = (element) => {
        const color = element ? getComputedStyle(element).backgroundColor : "rgb(255, 255, 255)";
        return /, 0\\)$/.test(color) ? behind(element.parentElement) : color;
    };
    const texts = "h1, h2, h3, p, td, th, dt, dd, li, .pill, .note, .ylabels span, nav a";
    const shown = [...document.querySelectorAll(texts)].filter((element) => element.offsetParent);
    return Math.min(...shown.map((element) => {
        const [light, dark] = [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => b - a);
        return (light + 0.05) / (dark + 0.05);
    }));
})()"""


def other() -> dict:
    found = contents.content(results=contents.results(seed=5, p50_us=2500))
    found["test"]["connections"] = 4
    return found


PAGES = {
    "run": lambda: run_html(contents.content()),
    "mix": lambda: run_html(contents.mix()),
    "pipeline": lambda: run_html(contents.pipeline()),
    "sweep": lambda: run_html(contents.sweep()),
    "nothing": lambda: run_html(contents.empty()),
    "hostile": lambda: run_html(contents.evil()),
    "comparison": lambda: compare_html(contents.content(), other()),
    "gate": lambda: gate_html(contents.gate()),
}


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def tab(browser: Browser) -> Page:
    return browser.new_page()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, make in PAGES.items():
        (folder / f"{name}.html").write_text(make(), "utf-8")
    return folder


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_alone_and_fits_its_window(tab, files, name, width):
    """No console message, no request but for the page itself, nothing wider than the screen."""
    tab.open(files / f"{name}.html", width=width)
    assert tab.console == []
    assert tab.requests == [(files / f"{name}.html").as_uri()]
    assert tab.ask("document.scrollingElement.scrollWidth") <= tab.ask("innerWidth") == width
    tab.ask("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    assert tab.ask("document.scrollingElement.scrollWidth") <= width
    names = tab.ask("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(names) == len(set(names))
    links = tab.ask("[...document.querySelectorAll('nav a')].map((link) => link.hash.slice(1))")
    assert set(links) <= set(names)


@pytest.mark.parametrize("name", PAGES)
def test_every_chart_is_drawn(tab, files, name):
    """Each series of each chart has shapes of some size, and a title and a table of figures that say the same."""
    tab.open(files / f"{name}.html", width=PHONE)
    for figure, series in tab.ask(CHARTS).items():
        assert series, figure
        for item in series:
            assert item["drawn"], (figure, item)
            assert sum(item["points"]) + item["dots"] + item["bars"] > 0, (figure, item)
    assert tab.ask(
        """[...document.querySelectorAll("figure.chart")].every((figure) =>
            figure.querySelector("svg > title").textContent
            && document.getElementById(figure.dataset.table).tBodies[0].rows.length > 0)"""
    )


def test_the_charts_of_a_run_have_every_point_of_the_json(tab, files):
    """As many points as stretches of time, as many bars as bins and batch sizes, the percentiles to the maximum."""
    results = contents.content()["results"]
    tab.open(files / "run.html")
    charts = tab.ask(CHARTS)
    num_points, num_percentiles = len(results["points"]), len(results["curve"])
    assert sorted(charts) == sorted(
        ["throughput", "latency", "in-flight", "cpu", "memory", "distribution", "histogram", "batches"]
    )
    for name in ("throughput", "latency", "in-flight", "cpu", "memory"):
        assert [series["points"] for series in charts[name]] == [[num_points]] * len(charts[name]), name
    assert [series["name"] for series in charts["latency"]] == ["p50", "p99", "p99 of the service time"]
    # The dashed end, where fewer than ten requests lie beyond, begins with the last point of the solid part.
    assert [sum(series["points"]) for series in charts["distribution"]] == [num_percentiles + 1] * 2
    assert [len(series["points"]) for series in charts["distribution"]] == [2, 2]
    assert charts["histogram"][0]["bars"] == len(results["bins"])
    assert charts["batches"][0]["bars"] == len(results["server"]["batches"])


def test_each_step_has_a_bar_and_a_row(tab, files):
    """Bars to one scale, in the order of the calls; a step of unknown times has a row alone; plain models have none."""
    content = contents.pipeline()["results"]
    tab.open(files / "pipeline.html")
    bars = tab.ask(
        """[...document.querySelectorAll("#steps-chart .split-row")].map((row) => [
            row.querySelector(".label span").textContent, row.querySelector(".split").getBoundingClientRect().width])"""
    )
    names = ["decode (version 3)", "find", "↳ encoder (2.25 calls per request)", "between the steps"]
    assert [name for name, _ in bars] == names
    times = [step["time_us"] for step in content["steps"] if step["time_us"]] + [content["between_steps"]["time_us"]]
    assert [width / bars[0][1] for _, width in bars] == pytest.approx([each / times[0] for each in times], rel=0.02)
    rows = tab.ask("[...document.getElementById('steps-table').tBodies[0].rows].map((row) => row.innerText)")
    assert len(rows) == len(content["steps"]) + 1
    assert "encoder *" in rows[2]
    assert contents.EVIL in rows[3]
    tab.open(files / "run.html")
    assert tab.ask("document.getElementById('steps-chart')") is None


def test_points_lie_where_their_values_say(tab, files):
    """Read back from the drawing and the axis' labels, the throughput is that of the JSON."""
    points = contents.content()["results"]["points"]
    tab.open(files / "run.html")
    path, labels = tab.ask(
        """[document.querySelector("#throughput g[data-name=achieved] path").getAttribute("d"),
            [...document.querySelectorAll("#throughput .ylabels span")].map((label) =>
                [Number(label.textContent.replaceAll(",", "")), parseFloat(label.style.bottom)])]"""
    )
    (low, _), (high, top) = labels[0], labels[-1]
    assert low == 0
    heights = [1 - float(y) / 1000 for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]
    read = [height / (top / 100) * high for height in heights]
    assert read == pytest.approx([point["throughput_per_s"] for point in points], rel=0.01)


def test_a_sweep_shows_every_run(tab, files):
    """Curves with a dot for each run, the invalid ones marked, knee and maximum as lines, a table of all."""
    runs = contents.sweep()["sweep"]["points"]
    tab.open(files / "sweep.html")
    charts = tab.ask(CHARTS)
    latency = {series["name"]: series for series in charts["sweep-latency"]}
    assert latency["p99"]["dots"] == latency["p50"]["dots"] == len(runs)
    assert latency["invalid run"]["dots"] == 1
    assert tab.ask("document.querySelectorAll('#sweep-latency path.rule').length") == 2
    assert tab.ask("document.querySelectorAll('#sweep-table tbody tr').length") == len(runs)


def test_a_mix_has_a_part_for_each_model(tab, files):
    """Both models are in the table, and have charts of their own."""
    tab.open(files / "mix.html")
    assert tab.ask("document.querySelectorAll('#models-table tbody tr').length") == 2
    charts = tab.ask(CHARTS)
    for index, part in enumerate(contents.mix()["parts"]):
        assert charts[f"model-{index}-latency"][0]["points"] == [len(part["points"])]
    for name in ("gpu", "gpu-power", "gpu-memory", "gpu-pcie", "gpu-clock"):
        assert charts[name][0]["points"] == [len(contents.mix()["results"]["points"])]


def test_gpus_have_a_section_where_there_are_any(tab, files):
    """Each with its figures, the reasons for missing ones, the limit; a server without a GPU has no such section."""
    tab.open(files / "mix.html")
    text = tab.ask("document.querySelector('#gpus').textContent")
    for word in (
        "GPU 0: H200",
        "96.9 mJ",
        "6,200 J (310 W), by the GPU's energy counter",
        "power cap",
        "Not Supported",
    ):
        assert word in text
    tab.open(files / "content.html")
    assert tab.ask("document.querySelector('#gpus')") is None
    assert "GPU" not in tab.ask("document.querySelector('main, body').innerText")


def test_a_comparison_lays_both_runs_over_each_other(tab, files):
    """Every chart has a series for each run; what was set differently is named."""
    tab.open(files / "comparison.html")
    charts = tab.ask(CHARTS)
    assert all([series["name"] for series in found] == ["before", "after"] for found in charts.values())
    assert tab.ask("document.querySelectorAll('#breakdown-chart .split').length") == 2
    assert "connections" in tab.ask("document.querySelector('#differences-table').textContent")
    assert "connections" in tab.ask("document.querySelector('.warnings').textContent")


def test_a_gate_shows_every_pair(tab, files):
    """A dot for each pair of each metric, and the interval of each ratio."""
    tab.open(files / "gate.html")
    charts = tab.ask(CHARTS)
    assert {name: found[0]["dots"] for name, found in charts.items()} == {
        "ratios": 3,
        "pairs-p50": 12,
        "pairs-p99": 12,
        "pairs-throughput": 12,
    }


def test_the_breakdown_adds_up(tab, files):
    """The parts of the bar fill it, in the proportions of the JSON."""
    steps = contents.content()["results"]["breakdown_us"]
    tab.open(files / "run.html")
    widths = tab.ask(
        """Object.fromEntries([...document.querySelectorAll("#breakdown-chart .split i")].map((part) =>
            [part.dataset.step, part.getBoundingClientRect().width]))"""
    )
    total = sum(widths.values())
    assert total == pytest.approx(tab.ask("document.querySelector('#breakdown-chart .split').clientWidth"), abs=1)
    for step, us in steps.items():
        assert widths[step] / total == pytest.approx(us / sum(steps.values()), abs=0.01), step


def test_the_judgement_of_each_objective_is_seen_on_a_phone(tab, files):
    """The table does not have to be scrolled to see whether an objective was met."""
    tab.open(files / "run.html", width=PHONE)
    ends = tab.ask(
        "[...document.querySelectorAll('#objectives-table .pill')].map((pill) => pill.getBoundingClientRect().right)"
    )
    assert len(ends) == len(contents.content()["slos"])
    assert max(ends) < PHONE
    assert tab.ask(
        "(({scrollWidth, clientWidth}) => scrollWidth <= clientWidth)(document.querySelector('#objectives .scroll'))"
    )


def test_text_from_outside_stays_text(tab, files):
    """Names and messages that look like markup are shown, and none of them runs or becomes an element."""
    tab.open(files / "hostile.html")
    assert tab.console == []
    assert tab.ask("document.querySelectorAll('img').length") == 0
    assert tab.ask("document.querySelectorAll('script').length") == 2  # the figures and our own
    assert tab.ask("document.querySelector('#errors-table').textContent").count(contents.EVIL) == 2
    assert contents.EVIL in tab.ask("document.title")


def test_the_policy_lets_no_other_script_run(tab, files, tmp_path):
    """A script that somebody adds to the page is refused by the browser."""
    page = (files / "run.html").read_text("utf-8")
    path = tmp_path / "changed.html"
    path.write_text(page.replace("</main>", "</main><script>document.title = 'changed'</script>"), "utf-8")
    tab.open(path)
    assert any("Content Security Policy" in line for line in tab.console)
    assert tab.ask("document.title") != "changed"


def test_the_pointer_shows_the_values_under_it(tab, files):
    """Over the middle of the latency chart, the values of that moment appear; arrow keys go on to the next."""
    tab.open(files / "run.html")
    x, y = tab.ask(
        """(() => { document.querySelector("#latency .plot").scrollIntoView({block: "center", behavior: "instant"});
            const box = document.querySelector("#latency .plot").getBoundingClientRect();
            return [box.left + box.width / 2, box.top + box.height / 2]; })()"""
    )
    tab.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # scrolling is over
    tab.mouse("mouseMoved", x, y)
    shown = tab.ask("document.querySelector('.tip').innerText")
    assert re.search(r"\d s\n", shown)
    assert "p99 of the service time" in shown
    tab.ask("document.querySelector('#latency .plot').focus({preventScroll: true})")
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", code="ArrowRight")
    assert tab.ask("document.querySelector('.tip').innerText") != shown


def test_series_can_be_hidden(tab, files):
    """A click on a name in the legend hides its line, another one shows it again."""
    tab.open(files / "run.html")
    shown = "getComputedStyle(document.querySelector('#latency g[data-name=p99]')).display"
    click = "document.querySelector('#latency .legend button[data-series=\"1\"]').click()"
    tab.ask(click)
    assert tab.ask(shown) == "none"
    tab.ask(click)
    assert tab.ask(shown) != "none"


def test_a_stretch_of_time_can_be_looked_into(tab, files):
    """Dragging over a chart shows that stretch in all charts over time, and a button brings the whole run back."""
    tab.open(files / "run.html")
    left, y, width = tab.ask(
        """(() => { document.querySelector("#latency .plot").scrollIntoView({block: "center", behavior: "instant"});
            const box = document.querySelector("#latency .plot").getBoundingClientRect();
            return [box.left, box.top + box.height / 2, box.width]; })()"""
    )
    tab.mouse("mousePressed", left + width * 0.4, y, "left")
    tab.mouse("mouseMoved", left + width * 0.6, y, "left")
    tab.mouse("mouseReleased", left + width * 0.6, y, "left")
    view = "document.querySelector('#throughput svg').getAttribute('viewBox').split(' ').map(Number)"
    start, _, length, _ = tab.ask(view)
    assert (start, length) == (pytest.approx(400, abs=5), pytest.approx(200, abs=5))
    labels = tab.ask("[...document.querySelectorAll('#throughput .xlabels span')].map((label) => label.textContent)")
    assert "10" in labels
    assert "0" not in labels
    tab.ask("document.querySelector('#latency .reset').click()")
    assert tab.ask(view) == [0, 0, 1000, 1000]


def test_the_figures_can_be_taken_from_the_page(tab, files):
    """The page holds its report.json whole."""
    tab.open(files / "hostile.html")
    held = tab.ask("document.getElementById('content').textContent")
    assert json.loads(held) == json.loads(json.dumps(contents.evil()))
    assert tab.ask("document.getElementById('save').hidden") is False


@pytest.mark.parametrize(("name", "pages"), [("run", (3, 7)), ("nothing", (1, 3)), ("comparison", (2, 6))])
def test_a_page_prints(tab, files, name, pages):
    """On paper it has a few pages, and neither buttons nor folded tables."""
    tab.open(files / f"{name}.html")
    printed = tab.pdf()
    assert pages[0] <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= pages[1]
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.ask("[...document.querySelectorAll('nav, details, #save')].every((item) => !item.offsetParent)")


def test_dark_and_light_have_contrast(tab, files):
    """Text on its card reaches the ratio of 4.5 that WCAG asks for, in both colour schemes."""
    found = {}
    for dark in (False, True):
        tab.open(files / "run.html", dark=dark)
        found[dark] = tab.ask(LOWEST_CONTRAST), tab.ask("getComputedStyle(document.body).backgroundColor")
    assert min(lowest for lowest, _ in found.values()) >= 4.5
    assert found[False][1] != found[True][1]


def test_a_page_is_small():
    """A run of a minute fits into an e-mail."""
    assert len(run_html(contents.content()).encode()) < 300_000


def test_a_run_of_one_short_stretch_has_a_page(tab, tmp_path):
    """A single point makes no curve over time; a single latency makes no histogram; the rest is shown."""
    found = copy.deepcopy(contents.content())
    results = found["results"]
    results["points"], results["bins"] = results["points"][-1:], results["bins"][:1]
    results["curve"] = [{"percentile": p, "latency_us": 1200.0} for p in (0.0, 100.0)]
    results["service_curve"] = []
    results["latency_us"] = {**results["service_us"], "count": 1}
    path = tmp_path / "short.html"
    path.write_text(run_html(found), "utf-8")
    tab.open(path)
    assert tab.console == []
    assert "distribution" in tab.ask(CHARTS)
