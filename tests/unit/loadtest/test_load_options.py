"""The options of the command line are the keys of a scenario."""

from __future__ import annotations

import inspect

import pytest
import typer

from naiad.cli import _load_options
from naiad.cli._load_options import settings_of
from naiad.cli.loadtest.command import loadtest
from naiad.loadtest import Files, InvalidScenario, Rate, Scenario, Synthetic
from naiad.loadtest._scenario.keys import SCENARIO, Key, Table, Tables

URL = {"url": "grpc://h:1"}


def keys(spec, at=()):
    """Every value that a scenario may have, by its path."""
    if isinstance(spec, Key):
        yield at
    elif isinstance(spec, Tables):
        yield from keys(spec.each, (*at, "*"))
    else:
        assert isinstance(spec, Table)
        for name, inner in spec.keys.items():
            yield from keys(inner, (*at, name))


def test_every_option_has_its_key_and_every_key_its_option():
    """But for what names a run, weighs a mix, or belongs to a gate; data of one model is an option's, too."""
    known = set(keys(SCENARIO))
    by_option = {key for _, key in _load_options._KEYS.values()}
    assert by_option - {("sweep",)} <= known
    without = {("name",), ("models", "*", "model"), ("models", "*", "weight")}
    without |= {key for key in known if key[0] in ("baseline", "candidate", "data")}
    without |= {("sweep", name) for name in ("users", "rate", "batch")}  # --sweep
    assert known - by_option == without
    parameters = set(inspect.signature(loadtest).parameters)
    assert set(_load_options._KEYS) <= parameters
    assert parameters - set(_load_options._KEYS) == {
        *("scenario", "json", "master", "worker", "expect_workers", "master_host", "master_port")
    }


def test_options_alone_make_a_plan():
    """As they are written on the command line."""
    settings = settings_of(
        "bert",
        {
            **URL,
            "rate": 100.0,
            "shape": ["ids=2x3", "mask=4"],
            "range": ["ids=-1..5"],
            "string_length": ["text=2..8"],
            "sequence": "2..5",
            "warmup": "auto",
            "precision": "p99±5%",
            "slo": ["p99<1s"],
            "sweep": "rate=1..8:4",
            "check": None,
            "shm": False,
        },
    )
    scenario = Scenario.of(settings)
    (traffic,) = scenario.test.mix
    assert traffic.data == Synthetic(
        shapes={"ids": (2, 3), "mask": (4,)}, ranges={"ids": (-1.0, 5.0)}, string_lengths={"text": (2, 8)}
    )
    assert traffic.sequence is not None
    assert traffic.sequence.length == (2, 5)
    assert scenario.test.load == Rate(per_s=100)
    assert scenario.sweep == "rate=1..8:4"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"users": 1, "rate": 2.0}, typer.BadParameter, "exclude each other"),
        ({"shape": ["x"]}, typer.BadParameter, "INPUT=SIZExSIZE"),
        ({"string_length": ["x=1.5..2"]}, typer.BadParameter, "whole numbers"),
        ({"sweep": "1..8"}, typer.BadParameter, "users=1..256"),
        ({"header": ["authorization=s3cret"]}, typer.BadParameter, "env:VARIABLE"),
        ({"duration": "soon"}, InvalidScenario, "--duration"),
        ({"arrivals": "bursts"}, InvalidScenario, "--arrivals"),
        ({"batch": 0}, InvalidScenario, "--batch"),
        ({"seed": 1.5}, InvalidScenario, "--seed"),
    ],
)
def test_wrong_options_are_named(options, error, message):
    """Secrets are not repeated."""
    with pytest.raises(error) as caught:
        Scenario.of(settings_of("m", {**URL, **options}))
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_samples_of_ones_own_need_no_more_than_a_path(tmp_path):
    """``--data`` and ``--input`` together, in any order."""
    settings = settings_of("m", {**URL, "input": "x", "data": tmp_path})
    assert Scenario.of(settings).test.mix[0].data == Files(path=tmp_path, input="x")


def test_a_header_s_file_is_beside_the_working_directory(tmp_path, monkeypatch):
    """As every path of a command line is, also where the scenario lies elsewhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bearer").write_text("Bearer key\n")
    settings = settings_of("gallery/digits.toml", {**URL, "header": ["authorization=file:bearer"]})
    assert settings.values["server"]["headers"] == {"authorization": {"file": str(tmp_path / "bearer")}}
    assert Scenario.of(settings)
