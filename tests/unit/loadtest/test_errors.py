"""The errors and the public names."""

import pickle

import pytest

import naiad.loadtest
from naiad.loadtest import errors

PUBLIC = {
    "Baseline",
    "Comparison",
    "EngineFailed",
    "InvalidBaseline",
    "InvalidData",
    "InvalidPlan",
    "InvalidSlo",
    "Latencies",
    "LoadTest",
    "LoadTestError",
    "Machine",
    "Measurement",
    "OutputNotWritable",
    "Progress",
    "Report",
    "ServerTimes",
    "Slo",
    "SloResult",
    "Traffic",
    "check_writable",
    "run",
}


def test_the_public_names_are_these():
    """A name is added or removed on purpose only; TritonUser comes when it is asked for."""
    found = {name for name in vars(naiad.loadtest) if name[0] != "_"}
    assert {
        name for name in found if getattr(vars(naiad.loadtest)[name], "__module__", "").startswith("naiad.")
    } == PUBLIC


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_survives_pickling(name):
    """Fields and message come back, and wrong input is a ValueError."""
    error = pickle.loads(pickle.dumps(getattr(errors, name)("what", model="m", path="p")))
    assert (str(error), error.model, error.path) == ("what", "m", "p")
    assert isinstance(error, ValueError) == name.startswith(("Invalid", "Output"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": ""}, "name of a model"),
        ({"users": 0}, "users"),
        ({"duration_s": 0}, "duration_s"),
        ({"duration_s": float("nan")}, "duration_s"),
        ({"warmup_s": -1}, "warmup_s"),
        ({"spawn_rate": 0}, "spawn_rate"),
        ({"batch": 0}, "batch"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"check": True}, "golden"),
        ({"shapes": {"x": (0,)}}, "shapes"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(fields, message):
    """The message names the argument and what was found."""
    with pytest.raises(errors.InvalidPlan, match=message):
        naiad.loadtest.LoadTest(**{"model": "m", **fields})
