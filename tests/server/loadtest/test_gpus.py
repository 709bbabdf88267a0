"""A real load test of the real server, with GPUs that a script plays: from NVML's answers to the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

import nvml_helpers

SCHEMA = json.loads(files("naiad.loadtest._report").joinpath("report.schema.json").read_text("utf-8"))
# The GPU is idle until the load begins, has work while it lasts, and one of the two is lost in the middle of it.
RUN = """
import sys
from pathlib import Path
import nvml_helpers
from naiad.loadtest import Connection, LoadTest, Traffic, Users, run

url, folder = sys.argv[1], Path(sys.argv[2])
script = nvml_helpers.Script(folder / "script")
script.gpu(0, busy=0, power=75_000)
script.gpu(1, busy=0, energy=None, power=60_000)

def work(progress):
    if progress.phase == "warmup":
        script.gpu(0, busy=97, power=500_000, reasons=4)
        script.gpu(1, busy=10, power=90_000)
    if progress.phase == "window" and progress.elapsed_s > 2:
        script.gpu(1, busy="!15")

test = LoadTest(
    traffic=Traffic(model="linear"),
    load=Users(users=2),
    connection=Connection(url=url),
    warmup_s=2.0,
    duration_s=5.0,
)
report = run(test, on_progress=work)
report.write(html=folder / "r.html", json=folder / "r.json", csv=folder / "r.csv")
"""


@pytest.fixture(scope="module")
def folder(triton, tmp_path_factory):
    """The files of one run; nvidia-ml-py finds the double where it looks for the driver's library."""
    folder = tmp_path_factory.mktemp("gpus")
    nvml_helpers.build(folder)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")])),
        "NVML_SCRIPT": str(folder / "script"),
        "PYTHONPATH": os.pathsep.join([str(Path(nvml_helpers.__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-c", RUN, triton.grpc_url, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def content(folder):
    return json.loads((folder / "r.json").read_text("utf-8"))


def test_the_report_is_what_its_schema_says(content):
    """With GPUs, too: nothing is missing, nothing undescribed."""
    jsonschema.Draft202012Validator(SCHEMA).validate(content)


def test_the_report_has_what_the_gpus_did_within_the_window(content):
    """Means of the window alone, energy by the counter, and the power of the idle GPU before the load."""
    first, second = content["results"]["resources"]["gpus"]
    assert (first["name"], first["busy_share"], first["idle_power_w"]) == ("NVIDIA H200", pytest.approx(0.97), 75)
    assert (first["energy_source"], first["power_w"]) == ("counter", pytest.approx(512, rel=0.05))
    assert first["energy_j"] == pytest.approx(first["power_w"] * content["results"]["window_s"])
    assert first["slowed_by"] == {"power cap": 1.0}
    assert (second["lost"], second["energy_source"], second["power_w"]) == (True, "samples", pytest.approx(90))
    assert second["missing"]["energy_j"] == "Not Supported"


def test_the_report_says_what_a_request_takes_and_what_the_limit_was(content):
    """Of both GPUs' power, with and without what they draw idle."""
    cost, rate = content["cost"], content["results"]["throughput_per_s"]
    power_w = sum(gpu["power_w"] for gpu in content["results"]["resources"]["gpus"])
    assert cost["joules_per_request"] == pytest.approx(power_w / rate)
    assert cost["joules_per_request_above_idle"] == pytest.approx((power_w - 135) / rate)
    assert cost["requests_per_second_per_watt"] == pytest.approx(rate / power_w)
    assert content["limit"]["kind"] == "gpu compute"


def test_what_a_reader_should_know_is_said(content):
    """One GPU was held down, the other one lost; the result stands."""
    kinds = {doubt["kind"] for doubt in content["doubts"]}
    assert {"gpu_slowed", "gpu_lost"} <= kinds
    assert content["verdict"] in ("passed", "invalid")  # a busy machine makes other doubts


def test_page_and_tables_show_the_gpus(folder, content):
    """A section with both, charts over time, and a column in the table of points."""
    page = (folder / "r.html").read_text("utf-8")
    for part in ('id="gpus"', 'id="gpu-power"', 'id="gpu-pcie"', "GPU 1: NVIDIA H200", "energy of a request"):
        assert part in page
    head, *rows = [line.split(",") for line in (folder / "r.csv").read_text().splitlines()]
    powers = [row[head.index("gpu_power_w")] for row in rows]
    assert {"590.0", "500.0"} <= set(powers)  # both, and the one that is left
