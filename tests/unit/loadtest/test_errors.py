"""The errors and the public names."""

import math
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import naiad.loadtest
from naiad.loadtest import (
    Connection,
    LoadTest,
    Precision,
    Rate,
    Sequence,
    Synthetic,
    Trace,
    Traffic,
    Users,
    errors,
)

PUBLIC = {
    "ABRun",
    "Axis",
    "Baseline",
    "Calibration",
    "Capacity",
    "ClientUser",
    "Comparison",
    "ConfigurationRefused",
    "Connection",
    "EngineFailed",
    "EngineGroup",
    "FalseAlarms",
    "Files",
    "GateFailed",
    "GateOptions",
    "GateProgress",
    "GateResult",
    "Golden",
    "InvalidBaseline",
    "InvalidData",
    "InvalidPlan",
    "InvalidReport",
    "InvalidScenario",
    "InvalidSlo",
    "Latencies",
    "LoadTest",
    "LoadTestError",
    "Machine",
    "Measurement",
    "NoiseRule",
    "OutputNotWritable",
    "Precision",
    "Progress",
    "Rate",
    "Report",
    "Scenario",
    "Sequence",
    "ServerBench",
    "ServerTimes",
    "Settings",
    "Slo",
    "SloResult",
    "Space",
    "Subject",
    "Sweep",
    "SweepProgress",
    "Synthetic",
    "Trace",
    "Traffic",
    "Trial",
    "TritonUser",
    "TuneProgress",
    "Tuning",
    "Users",
    "WheelSubject",
    "add_options",
    "append_gate",
    "append_history",
    "calibrate",
    "check_writable",
    "compare",
    "compare_html",
    "find_max",
    "find_scenario",
    "gate_html",
    "measure_false_alarms",
    "parse_axis",
    "read_history",
    "run",
    "sweep",
    "to_junit",
    "to_markdown",
    "trends",
    "tune",
    "wheel_metrics",
    "write_atomically",
}
LOCUST = {"ClientUser", "TritonUser", "add_options"}  # importing them patches the standard library


def test_the_public_names_are_these():
    """A name is added or removed on purpose only, and every one is there when it is asked for."""
    assert {name for name in dir(naiad.loadtest) if name[0] != "_" and _is_ours(name)} == PUBLIC
    assert all(getattr(naiad.loadtest, name) for name in PUBLIC - LOCUST)


def _is_ours(name):
    known = vars(naiad.loadtest).get(name)
    return known is None or getattr(known, "__module__", "").startswith("naiad.")


def test_importing_the_package_brings_nothing_heavy():
    """An engine process imports it, too: no Locust, no SciPy, no Optuna."""
    code = "import sys, naiad.loadtest; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"gevent", "hdrh", "locust", "optuna", "PIL", "psutil", "scipy", "typer"} & set(loaded)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_survives_pickling(name):
    """Fields and message come back, and wrong input is a ValueError."""
    error = pickle.loads(pickle.dumps(getattr(errors, name)("what", model="m", path="p")))
    assert (str(error), error.model, error.path) == ("what", "m", "p")
    assert isinstance(error, ValueError) == name.startswith(("Invalid", "Output"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Traffic(model=""), "name of a model"),
        (lambda: Traffic(model="m", batch=0), "batch"),
        (lambda: Traffic(model="m", weight=0), "weight"),
        (lambda: Traffic(model="m", timeout_s=math.inf), "timeout_s"),
        (lambda: Traffic(model="m", check=True), "golden"),
        (lambda: Synthetic(shapes={"x": (0,)}), "shapes"),
        (lambda: Synthetic(ranges={"x": (2, 1)}), "range"),
        (lambda: Synthetic(string_lengths={"x": (-1, 1)}), "strings"),
        (lambda: Synthetic(num_samples=0), "num_samples"),
        (lambda: Sequence(length=(3, 2)), "sequence"),
        (lambda: Sequence(pause_s=-1), "pause_s"),
        (lambda: Users(users=0), "users"),
        (lambda: Users(spawn_rate=0), "spawn_rate"),
        (lambda: Rate(per_s=0), "rate"),
        (lambda: Rate(per_s=1, arrivals="bursts"), "arrivals"),
        (lambda: Rate(per_s=1, max_in_flight=0), "max_in_flight"),
        (lambda: Trace(path=Path("t"), speed=0), "speed"),
        (lambda: Precision(percentile=100), "percentile"),
        (lambda: Precision(within=0), "within"),
        (lambda: Connection(certificate=Path("c")), "key"),
        (lambda: LoadTest(traffic=()), "at least one model"),
        (lambda: plan(duration_s=0), "duration_s"),
        (lambda: plan(duration_s=math.nan), "duration_s"),
        (lambda: plan(warmup_s=-1), "warmup_s"),
        (lambda: plan(engines=0), "engines"),
        (lambda: plan(transport="carrier pigeon"), "transport"),
        (lambda: plan(price_per_hour=0), "price_per_hour"),
        (lambda: plan(precision=Precision(), duration_s=9, max_duration_s=8), "max_duration_s"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(make, message):
    """The message names the argument and what was found."""
    with pytest.raises(errors.InvalidPlan, match=message):
        make()


def plan(**fields):
    return LoadTest(traffic=Traffic(model="m"), **fields)
