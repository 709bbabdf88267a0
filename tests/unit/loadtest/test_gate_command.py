"""What ``naiad gate`` is asked to compare, and the other command that reads histories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from loadtest_samples import measurement
from naiad.cli._gate_subjects import pairing_of
from naiad.cli.app import app
from naiad.loadtest import InvalidScenario, LoadTest, Traffic, append_history

OPTIONS: dict[str, Any] = {"users": None, "rate": None, "callers": None, "in_flight": 8, "url": "grpc://gpu1:8001"}


def pairing(baseline, candidate=None, model="m", *, against_itself=False, **options):
    return pairing_of(baseline, candidate, model, {**OPTIONS, **options}, against_itself=against_itself)


@pytest.mark.parametrize(
    ("text", "url", "version"),
    [
        ("grpc://a:1", "grpc://a:1", None),
        ("grpcs://a:1#4", "grpcs://a:1", "4"),
        ("version:3", "grpc://gpu1:8001", "3"),
        ("7", "grpc://gpu1:8001", "7"),
    ],
)
def test_a_subject_is_a_server_or_a_version(text, url, version):
    """What an argument does not say comes from the options."""
    test = pairing("grpc://z:9", text, users=5).candidate.test
    assert (test.connection.url, test.mix[0].version, test.load.users) == (url, version, 5)


def test_names_tell_the_sides_apart_and_keep_secrets():
    """They have the model, its version and the address, but not what lets one in."""
    found = pairing("grpc://:secret@a:1", "grpc://:secret@a:1#2")
    assert found.baseline.name != found.candidate.name
    assert "secret" not in found.baseline.name + found.candidate.name


def test_a_scenario_lays_its_tables_over_the_rest(tmp_path):
    """Only what they name differs."""
    path = tmp_path / "gate.toml"
    path.write_text('[server]\nurl = "grpc://a:1"\n[[models]]\nmodel = "m"\n[candidate]\nversion = 2\n')
    found = pairing(str(path), model=None, url=None)
    assert [side.test.mix[0].version for side in (found.baseline, found.candidate)] == [None, "2"]
    path.write_text('[[models]]\nmodel = "m"\n')
    with pytest.raises(InvalidScenario, match=r"\[candidate\]"):
        pairing(str(path), model=None)


def test_one_subject_is_compared_with_itself():
    """Both sides of an A/A comparison are the same."""
    found = pairing("grpc://a:1", against_itself=True)
    assert found.baseline.test == found.candidate.test


def test_wheels_are_called_with_as_many_calls_as_asked(tmp_path):
    """Their metrics are the callers'."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    found = pairing(str(tmp_path / "a"), str(tmp_path / "b"), callers=["sync", "asyncio"], in_flight=3)
    assert (found.baseline.name, found.candidate.name, found.baseline.in_flight) == ("a", "b", 3)
    assert found.metrics == ("p50@sync", "p50@asyncio", "cpu@sync", "cpu@asyncio")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("grpc://a:1",), {}, "second"),
        (("grpc://a:1", "grpc://b:1"), {"model": None}, "model"),
        (("grpc://a:1", "grpc://a:1"), {}, "twice"),
        (("grpc://a:1", "grpc://b:1"), {"against_itself": True}, "--a-a"),
        (("old", "new"), {}, "version:VERSION"),
        (("a.whl", "b.whl"), {}, "nothing at a.whl"),
        (("a.whl", "b.whl"), {"users": 3}, "--in-flight"),
        (("gate.toml", "grpc://a:1"), {}, "alone"),
    ],
)
def test_what_cannot_be_compared_is_wrong_use(arguments, options, message):
    """The message says what was expected."""
    with pytest.raises(typer.BadParameter, match=message):
        pairing(*arguments, **options)


def history(path: Path, factors: list[float]) -> Path:
    append_history(path, LoadTest(traffic=Traffic(model="m")), measurement([1.0, 2.0, 3.0] * 100))
    line = json.loads(path.read_text())
    lines = [json.dumps({**line, "metrics": {"p50": 1000.0 * factor}}) for factor in factors]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_history_command_shows_changes_and_fails_when_asked(tmp_path):
    """A step up within the last runs is exit code 1 with --fail only."""
    path = history(tmp_path / "history.jsonl", [1.0, 1.02, 0.99, 1.01] * 5 + [1.3, 1.32, 1.29])
    shown = CliRunner().invoke(app, ["history", str(path)])
    assert shown.exit_code == 0
    assert "worse since" in shown.stdout
    failed = CliRunner().invoke(app, ["history", str(path), "--fail", "--json"])
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["regressed"] is True
    accepted = CliRunner().invoke(app, ["history", str(path), "--fail", "--recent", "2"])
    assert accepted.exit_code == 0
