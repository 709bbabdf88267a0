"""The verdict and the files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import report_contents as contents
from gate_sessions import DrawnSession
from loadtest_samples import TARGET, TEST, measurement, report, server_times
from naiad.loadtest import (
    Baseline,
    Connection,
    GateOptions,
    Golden,
    InvalidReport,
    LoadTest,
    OutputNotWritable,
    Rate,
    Report,
    Slo,
    Trace,
    Traffic,
    Users,
    compare_html,
    gate_html,
)
from naiad.loadtest._gate.compare import judge_session
from naiad.loadtest._report.comparison import differences, ratios
from naiad.loadtest._report.content import EMBEDDED
from naiad.loadtest._report.files import write_atomically
from naiad.loadtest._report.run_page import run_html
from naiad.loadtest._report.tables import PERCENTILE_COLUMNS, POINT_COLUMNS, percentiles_csv, points_csv
from naiad.loadtest._report.writing import files_of
from naiad.loadtest._truth.window import Counted

SCHEMA = json.loads(files("naiad.loadtest._report").joinpath("report.schema.json").read_text("utf-8"))
EMPTY = server_times(requests=0, executions=0, inferences=0, batches={})


@dataclass(frozen=True)
class Doubt:
    text: str
    invalid: bool

    def to_json(self) -> dict[str, Any]:
        return {"kind": "generator_cpu", "text": self.text, "invalid": self.invalid}


def judged(*texts, measured=None):
    slos = [Slo.parse(text) for text in texts]
    measured = measured or measurement(slos=slos)
    return report(measured, slos=[slo.judge(measured) for slo in slos])


def check(content):
    """Refuse what the schema does not describe, in the form that a file has."""
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(content, allow_nan=False)))


def test_a_run_without_objectives_passes_when_requests_succeeded():
    """Nothing was asked for, and it worked."""
    assert report().verdict == "passed"
    assert report().ok


def test_a_run_without_one_success_never_passes():
    """Zero requests, or only failed ones, are a failure that says why."""
    assert report(measurement([])).failures() == ["no request succeeded"]
    (failure,) = report(measurement([], errors={"ServerUnavailable": 7})).failures()
    assert failure == "no request succeeded; 7 × ServerUnavailable: what ServerUnavailable says"


def test_a_run_that_ended_at_once_says_so():
    """Requests were answered, but in no window: that is not the same as a server that answers none."""
    counted = Counted(client=358, client_failed=0, server=358)
    (failure,) = report(replace(measurement([]), window_s=0.0, counted=counted)).failures()
    assert "before anything could be measured (358 requests were answered)" in failure


def test_errors_beyond_the_budget_fail_a_run_that_says_nothing_about_errors():
    """More than one request in a hundred failed: the percentiles describe only the lucky ones."""
    assert report(measurement(errors={"E": 5})).ok
    assert not report(measurement(errors={"E": 50})).ok


def test_an_objective_on_errors_replaces_the_budget():
    """Who expects rejections can say how many."""
    assert judged("errors<10%", measured=measurement(errors={"E": 50})).ok
    assert not judged("errors<0.1%", measured=measurement(errors={"E": 5})).ok


def test_every_missed_objective_is_named():
    """The message has the objective and what was measured."""
    assert judged("p99<1ms", "p50<1s", "throughput>9000/s").failures() == [
        "objective missed: p99<1ms (9.90 ms measured)",
        "objective missed: throughput>9000/s (1,000/s measured)",
    ]


def test_a_regression_fails_the_run():
    """The message has both figures and the margin."""
    baseline = Baseline.of(TEST, measurement([0.1] * 1000))
    failures = report(comparisons=baseline.compare(measurement(), 0.5)).failures()
    assert len(failures) == 3
    assert "baseline 100 µs" in failures[0]


def test_a_result_that_something_else_decided_is_invalid():
    """Neither a pass nor a miss of its objectives: the figures are not the server's."""
    limited = [Doubt("an engine process used 97 % of a core", invalid=True)]
    for found in (report(doubts=limited), replace(judged("p99<1ms"), doubts=limited)):
        assert (found.verdict, found.ok, found.valid) == ("invalid", False, False)
        assert found.failures()[0] == "an engine process used 97 % of a core"


def test_a_run_that_broke_off_failed_whatever_else_is_doubtful():
    """A server that died is a failed run, whatever was measured before."""
    found = report(incidents=["the server died"], doubts=[Doubt("the generator was slow", invalid=True)])
    assert found.verdict == "failed"
    assert found.failures() == ["the server died", "the generator was slow"]


def test_a_mere_doubt_warns():
    """It passes, and the reader is told."""
    found = report(doubts=[Doubt("the governor is powersave", invalid=False)], notes=["a note"])
    assert found.ok
    assert found.warnings() == ["a note", "the governor is powersave"]


def test_the_json_has_everything_and_no_secret(tmp_path):
    """The report is versioned, is strict JSON, and shows the server's address without its secret."""
    connection = Connection(url="grpc://:hunter2@127.0.0.1:8001", headers={"authorization": "Bearer hunter2"})
    path = tmp_path / "report.json"
    report(test=replace(TEST, connection=connection)).write(json=path)
    assert "hunter2" not in path.read_text()
    content = Report.read(path)
    assert (content["schema_version"], content["verdict"]) == (2, "passed")
    assert content["test"]["url"] == "grpc://127.0.0.1:8001"
    assert content["results"]["latency_us"]["p99"] == pytest.approx(9911, rel=0.002)


@pytest.mark.parametrize(
    "load",
    [Users(users=4), Rate(per_s=100), Rate(per_s=1.5, arrivals="constant"), Trace(path="some/where/t.txt", speed=2.0)],
)
def test_a_report_is_what_its_schema_says(load, tmp_path):
    """Every kind of load, with objectives, a baseline, doubts: nothing missing, nothing that is not described."""
    load = replace(load, path=tmp_path / "t.txt") if isinstance(load, Trace) else load
    slos = [Slo.parse(text) for text in ("p99<1ms", "errors<1%", "goodput>90%")]
    measured = measurement(slos=slos, errors={"Timeout": 3})
    test = replace(TEST, load=load, traffic=Traffic(model="m", data=Golden(path=tmp_path / "golden.npz"), check=True))
    found = report(
        measured,
        test=test,
        slos=[slo.judge(measured) for slo in slos],
        comparisons=Baseline.of(TEST, measured).compare(measured),
        doubts=[Doubt("doubtful", invalid=False)],
        interrupted=True,
        command="naiad loadtest m",
    ).to_json()
    check(found)
    assert str(tmp_path) not in json.dumps(found)


def test_a_report_of_nothing_is_what_its_schema_says():
    """Also where everything that can be unknown is."""
    check(report(measurement([], server=EMPTY)).to_json())
    check(report(replace(measurement([]), server=None)).to_json())


@pytest.mark.parametrize("name", ["content", "mix", "pipeline", "sweep", "empty", "evil"])
def test_the_contents_that_pages_are_tested_with_are_real_ones(name):
    """What the tests make by hand has the form that reports have."""
    check(getattr(contents, name)())


def test_every_field_of_the_schema_says_what_it_is():
    """Each has a description, refuses unknown neighbours, and is required; times and sizes have their unit."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    num_fields = 0
    for where, field in _fields(SCHEMA, ""):
        num_fields += 1
        assert field.get("description"), where
        if "properties" in field and "$ref" not in field:
            assert field.get("additionalProperties") is False or where == "$defs/results", where
    assert num_fields > 200


def _fields(schema, where):
    if not isinstance(schema, dict):
        return
    for group in ("properties", "$defs"):
        for name, field in schema.get(group, {}).items():
            path = f"{where}/{name}" if where else (f"{group}/{name}" if group == "$defs" else name)
            yield path, field
            yield from _fields(field, path)
    yield from _fields(schema.get("items"), f"{where}[]")


def test_every_model_of_a_mix_has_its_part():
    """Parts carry the model's name and weight."""
    test = LoadTest(traffic=(Traffic(model="a", weight=3), Traffic(model="b")), load=Users(users=4), duration_s=1)
    measured = measurement(test=test)
    content = Report(test=test, targets=(TARGET, TARGET), measurement=measured).to_json()
    assert [(part["model"], part["weight"]) for part in content["parts"]] == [("a", 3), ("b", 1)]
    check(content)


def test_the_breakdown_adds_up_to_the_mean():
    """Client, queue, compute and the rest of the server are the whole mean latency."""
    results = report().to_json()["results"]
    assert sum(results["breakdown_us"].values()) == pytest.approx(results["latency_us"]["mean"], rel=0.001)


def test_all_files_are_written_at_once(tmp_path):
    """JSON, page and both tables of one report; what the JSON says can be read from the page, too."""
    report().write(html=tmp_path / "r.html", json=tmp_path / "r.json", csv=tmp_path / "r.csv")
    assert sorted(os.listdir(tmp_path)) == ["r-percentiles.csv", "r.csv", "r.html", "r.json"]
    assert Report.read(tmp_path / "r.html") == Report.read(tmp_path / "r.json")


def test_a_sweep_has_a_table_of_its_runs():
    """A row for each, beside the tables of the one run that the report shows."""
    sweep = contents.sweep()
    files = files_of(sweep, csv="run.csv")
    assert sorted(path.name for path in files) == ["run-percentiles.csv", "run-sweep.csv", "run.csv"]
    rows = list(csv.DictReader(files[Path("run-sweep.csv")].splitlines()))
    assert [float(row["value"]) for row in rows] == [point["value"] for point in sweep["sweep"]["points"]]
    assert rows[-1]["valid"] == "false"


def test_the_tables_have_every_point_and_percentile():
    """A row for each, with the columns that the documentation names, model by model in a mix."""
    content = contents.mix()
    rows = list(csv.DictReader(points_csv(content).splitlines()))
    assert tuple(rows[0]) == ("model", *POINT_COLUMNS)
    for model, results in (("", content["results"]), *((part["model"], part) for part in content["parts"])):
        found = [row for row in rows if row["model"] == model]
        assert [float(row["throughput_per_s"]) for row in found] == [p["throughput_per_s"] for p in results["points"]]
        assert [row["warmup"] for row in found] == [str(p["warmup"]).lower() for p in results["points"]]
    content = contents.content()
    rows = list(csv.DictReader(percentiles_csv(content).splitlines()))
    assert tuple(rows[0]) == ("model", *PERCENTILE_COLUMNS)
    longest_us = content["results"]["latency_us"]["max"]
    assert (rows[-1]["percentile"], float(rows[-1]["latency_us"])) == ("100.0", longest_us)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(start):
    """A model's name that a spreadsheet would run is text there; negative numbers stay numbers."""
    content = contents.mix()
    content["parts"][0]["model"] = f'{start}HYPERLINK("http://x","y")'
    rows = list(csv.DictReader(points_csv(content).splitlines(keepends=True)))
    names = {row["model"] for row in rows} - {"", "sentiment"}
    assert all(name.startswith("'") for name in names)
    assert float(rows[0]["at_s"]) < 0


def test_nothing_measured_makes_a_report_all_the_same(tmp_path):
    """All files are written for a run in which nothing succeeded."""
    empty = report(measurement([], server=EMPTY))
    empty.write(html=tmp_path / "r.html", json=tmp_path / "r.json", csv=tmp_path / "r.csv")
    assert Report.read(tmp_path / "r.json")["verdict"] == "failed"


def test_text_that_is_no_unicode_can_be_written(tmp_path):
    """Half a surrogate pair and control characters in a name, as a broken server may send them, are in every file."""
    name = "half \ud800, zero \0, end"
    found = contents.mix() | {"name": name}
    found["parts"][0]["model"] = name
    for path, text in files_of(
        found, html=tmp_path / "r.html", json=tmp_path / "r.json", csv=tmp_path / "r.csv"
    ).items():
        write_atomically(path, text)
    assert Report.read(tmp_path / "r.json")["name"] == Report.read(tmp_path / "r.html")["name"] == name
    assert "half ?, zero" in (tmp_path / "r.csv").read_text()


@pytest.mark.parametrize("old", ["content", "mix", "sweep", "empty", "evil"])
@pytest.mark.parametrize("new", ["content", "mix", "empty"])
def test_any_two_runs_can_be_compared(old, new):
    """Also those that share little: what both have is compared, the rest is named."""
    before, after = (getattr(contents, name)() for name in (old, new))
    assert "<!DOCTYPE html>" in compare_html(before, after)
    found = ratios(before, after)
    assert all(item.ratio == item.new / item.old for item in found)
    assert bool(found) == ("empty" not in (old, new))


def test_a_run_compared_with_itself_shows_no_difference():
    """Ratios are 1, their intervals hold it, and nothing else differs."""
    one = contents.content()
    for item in ratios(one, one):
        assert item.ratio == 1
        assert item.judgement == "no clear difference"
    assert differences(one, one) == []


def test_the_energy_of_a_request_is_compared_where_both_runs_have_one():
    """Less is better; without an interval nothing is called clear."""
    before, after = contents.mix(), contents.mix()
    after["cost"]["joules_per_request"] = before["cost"]["joules_per_request"] / 2
    (found,) = (item for item in ratios(before, after) if item.metric == "energy")
    assert (found.ratio, found.interval) == (0.5, None)
    assert found.text.startswith("96.9 mJ → 48.4 mJ: −50.0 %")
    assert not any(item.metric == "energy" for item in ratios(contents.content(), after))
    assert "energy" in compare_html(before, after)


def test_a_sweep_has_columns_of_gpus_only_where_there_are_any():
    """In the table of the page; the CSV always has them."""
    found = contents.sweep()
    assert "requests/s per W" not in run_html(found)
    found["sweep"]["points"][2] |= {"gpu_share": 0.93, "requests_per_second_per_watt": 12.3}
    assert "requests/s per W" in run_html(found)
    rows = list(csv.DictReader(files_of(found, csv="run.csv")[Path("run-sweep.csv")].splitlines()))
    assert [row["gpu_share"] for row in rows[:3]] == ["", "", "0.93"]


def test_a_report_of_before_there_were_gpu_figures_has_a_page():
    """Stored reports of the same schema version stay readable."""
    old = contents.mix()
    del old["limit"]
    for name in ("requests_per_second_per_watt", "joules_per_request", "joules_per_request_above_idle"):
        del old["cost"][name]
    old["results"]["resources"]["gpus"] = [
        {"index": 0, "name": "H200", "busy_share": 0.8, "memory_bytes": 7, "power_w": 300.0}
    ]
    for results in (old["results"], *old["parts"]):
        for point in results["points"]:
            for name in [name for name in point if name.startswith("gpu_") and name != "gpu_share"]:
                del point[name]
    assert "GPU 0: H200" in run_html(old)
    assert points_csv(old)
    assert "<!DOCTYPE html>" in compare_html(old, contents.mix())


@pytest.mark.parametrize("session", [DrawnSession(slower=1.5), DrawnSession(noise=1.5, seed=2)])
def test_a_real_gates_result_has_a_page(session):
    """What the gate writes is what the page reads: each metric with its pairs, clear ones and noisy ones."""
    found = judge_session(session, GateOptions(noise=None, seed=5)).to_json()
    shown = gate_html(found)
    assert all(f'id="pairs-{metric["metric"]}"' in shown for metric in found["metrics"])
    assert json.loads(EMBEDDED.search(shown)[1]) == json.loads(json.dumps(found))


@pytest.mark.parametrize("change", ["no pairs", "open interval", "failed"])
def test_a_gate_without_a_result_has_a_page(change):
    """Nothing measured, or too little for an interval: the page says what there is."""
    gate = contents.gate()
    if change == "no pairs":
        gate |= {"metrics": [], "num_pairs": 0, "verdict": "invalid", "reason": "no pair could be measured"}
    for metric in gate["metrics"]:
        metric |= {"interval": [None, 1.3], "smallest_effect": None, "p": None, "p_adjusted": None}
        metric["pairs"][0]["ratio"] = None
    assert gate["reason"] in gate_html(gate)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("not json", "expected a report in JSON"),
        ("[" * 100_000, "expected a report in JSON"),
        ("[1, 2]", "no report of a load test"),
        ('{"schema_version": 2}', "no report of a load test"),
        ("<html></html>", "expected a report in JSON"),
    ],
)
def test_a_file_that_is_no_report_is_refused(tmp_path, text, message):
    """The message says what is wrong with which file, and how to get a report."""
    path = tmp_path / "r.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidReport, match=message) as caught:
        Report.read(path)
    assert str(path) in str(caught.value)
    assert caught.value.path == str(path)


def test_a_report_of_another_version_is_refused(tmp_path):
    """It says which version it found and which it can read."""
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**contents.content(), "schema_version": 1}))
    with pytest.raises(InvalidReport, match=r"version 2 in .*, found 1"):
        Report.read(path)


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_written(tmp_path):
    """One bad path, and neither file appears."""
    with pytest.raises(OutputNotWritable, match="create"):
        report().write(html=tmp_path / "missing" / "r.html", json=tmp_path / "r.json")
    with pytest.raises(OutputNotWritable, match="folder"):
        report().write(json=tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_report_replaces_the_old_one_in_one_step(tmp_path):
    """No temporary file stays, and the permissions are those of any new file."""
    path = tmp_path / "r.json"
    for _ in range(2):
        report().write(json=path)
    assert os.listdir(tmp_path) == ["r.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_full_disk_leaves_the_old_report_and_no_rest(tmp_path):
    """With no room for the page, the error says so, the old page is whole and no temporary file stays."""
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from pathlib import Path
from naiad.loadtest import OutputNotWritable
from naiad.loadtest._report.files import write_atomically
try:
    write_atomically(Path("r.html"), "x" * 200_000)
except OutputNotWritable as exc:
    print(exc)
"""
    (tmp_path / "r.html").write_text("old")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "r.html could not be written" in done.stdout
    assert os.listdir(tmp_path) == ["r.html"]
    assert (tmp_path / "r.html").read_text() == "old"
