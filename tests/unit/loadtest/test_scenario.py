"""Scenario files: what they make, and what is said about those that are wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from naiad.loadtest import (
    Connection,
    Files,
    Golden,
    InvalidScenario,
    Precision,
    Rate,
    Scenario,
    Sequence,
    Settings,
    Synthetic,
    Trace,
    Traffic,
    Users,
    find_scenario,
)
from naiad.loadtest._scenario.schema import scenario_schema

SHIPPED = Path(__file__).resolve().parents[3] / "loadtest" / "scenarios"
MODEL = '[[models]]\nmodel = "digits"\n'


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a scenario into a folder of its own, which is not the one we are in."""
    folder = tmp_path / "some where"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)

    def scenario(text: str) -> Path:
        path = folder / "s.toml"
        path.write_text(text)
        return path

    return scenario


def test_a_whole_scenario_becomes_a_plan(write, monkeypatch):
    """Every table has its say; paths lead from the file; secrets come from environment and files."""
    monkeypatch.setenv("TOKEN", "t0p")
    for name in ("golden.npz", "ca.pem", "tenant"):
        write("").with_name(name).write_text("x\n")
    path = write(
        """
        name = "all of it"
        slos = ["p99<20ms", "errors<0.1%"]
        [server]
        url = "grpcs://gpu1:8001"
        headers = { authorization = { env = "TOKEN" }, X-Tenant = { file = "tenant" } }
        ca = "ca.pem"
        [load]
        rate = 250
        arrivals = "constant"
        max_in_flight = 99
        duration = "2m"
        warmup = "auto"
        precision = "p99.9±2.5%"
        engines = 2
        realtime = true
        seed = 7
        [data]
        shapes = { ids = [128] }
        ranges.ids = [0, 1000]
        string-lengths = { text = [5, 10] }
        [[models]]
        model = "bert"
        weight = 3
        batch = 8
        shared-memory = true
        timeout = "500ms"
        [[models]]
        model = "digits"
        version = 2
        check = true
        data = { golden = "golden.npz" }
        sequence = { length = [2, 5], pause = "10ms" }
        [report]
        html = "r.html"
        price-per-hour = 2.5
        margin = 30
        """
    )
    scenario = Scenario.read(path)
    test = scenario.test
    assert test.connection == Connection(
        url="grpcs://gpu1:8001",
        headers={"authorization": "t0p", "x-tenant": "x"},
        ca=path.with_name("ca.pem"),
    )
    assert test.load == Rate(per_s=250, arrivals="constant", max_in_flight=99)
    assert (test.duration_s, test.warmup_s, test.engines, test.seed) == (120, None, 2, 7)
    assert test.realtime
    assert test.precision == Precision(percentile=99.9, within=0.025)
    assert test.mix == (
        Traffic(
            model="bert",
            weight=3,
            batch=8,
            shared_memory=True,
            timeout_s=0.5,
            data=Synthetic(shapes={"ids": (128,)}, ranges={"ids": (0, 1000)}, string_lengths={"text": (5, 10)}),
        ),
        Traffic(
            model="digits",
            version="2",
            check=True,
            data=Golden(path=path.with_name("golden.npz")),
            sequence=Sequence(length=(2, 5), pause_s=0.01),
        ),
    )
    assert [slo.text for slo in test.slos] == ["p99<20ms", "errors<0.1%"]
    assert (test.price_per_hour, test.name) == (2.5, "all of it")
    assert (scenario.html, scenario.margin) == (path.with_name("r.html"), 0.3)
    assert scenario.text == path.read_text()


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        (f"[load]\n\nuesrs = 3\n{MODEL}", 3, "load.uesrs", "did you mean users?"),
        (f"[laod]\nusers = 3\n{MODEL}", 1, "laod", "did you mean load?"),
        (f"{MODEL}shared_memori = true", 3, "models[1].shared_memori", "did you mean shared-memory?"),
        ("x = = 1", 1, None, "expected TOML"),
        ('name = """\n\n"""\nname = 3', 4, None, "expected TOML"),
        (f"[load]\nusers = 0\n{MODEL}", 2, "load.users", "found 0"),
        (f'[load]\nusers = "4"\n{MODEL}', 2, "load.users", "a whole number, found '4'"),
        (f"[load]\nusers = true\n{MODEL}", 2, "load.users", "a whole number, found true"),
        (f"[load]\nrate = nan\n{MODEL}", 2, "load.rate", "a number"),
        (f"[load]\nusers = 4\nrate = 5\n{MODEL}", 3, "load.rate", "exclude each other"),
        (f"[load]\nrate = 4\nspawn_rate = 5\n{MODEL}", 3, "load.spawn-rate", "beside users"),
        (f'[load]\nduration = "soon"\n{MODEL}', 2, "load.duration", "30s"),
        (f'[load]\nprecision = "p99"\n{MODEL}', 2, "load.precision", "p99±5%"),
        (f'[load]\ntrace = "no.txt"\n{MODEL}', 2, "load.trace", "no.txt"),
        (f'slos = [\n"p99<20ms",\n"p99<20"]\n{MODEL}', 3, "slos[2]", "unit"),
        (f'{MODEL}\n[[models]]\nmodel = "b"\nweight = -1', 6, "models[2].weight", "above 0"),
        (f"{MODEL}\n[[models]]\nweight = 1", 4, "models[2]", "'model'"),
        (f'{MODEL}data = {{ golden = "no.npz" }}', 3, "models[1].data.golden", "no.npz"),
        (f"[data]\nshapes = {{ x = [3.5] }}\n{MODEL}", 2, "data.shapes.x", "[3, 224, 224]"),
        (f"[data.ranges]\nx = [1]\n{MODEL}", 2, "data.ranges.x", "[LOW, HIGH]"),
        (f'[server.headers]\nauthorization = "s3cret"\n{MODEL}', 2, "server.headers.authorization", "env"),
        (f'[server]\nheaders = {{ a = {{ env = "NOT_SET_X" }} }}\n{MODEL}', 2, "server.headers.a", "NOT_SET_X"),
        (f'[sweep]\nusers = "1..8"\nfind-max = "p99<1ms"\n{MODEL}', 3, "sweep.find-max", "found several"),
        ('name = "x"', None, None, "[[models]]"),
        ("models = 3", 1, "models", "[[models]]"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_key(write, text, line, key, message):
    """One sentence, for every kind of mistake."""
    path = write(text)
    with pytest.raises(InvalidScenario) as caught:
        Scenario.read(path)
    error = caught.value
    assert (error.line, error.key) == (line, key)
    assert str(error).startswith(f"{path}:{line}:" if line else f"{path}:")
    assert message in str(error)
    assert "s3cret" not in str(error)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """Missing, a folder, or no text."""
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.toml", tmp_path, binary):
        with pytest.raises(InvalidScenario, match=path.name):
            Scenario.read(path)


def test_an_option_goes_before_the_file(write):
    """It takes the place of what excludes it, and its own name stands in the error."""
    path = write(f'[load]\nrate = 5\narrivals = "constant"\n[data]\nshapes = {{ a = [1], b = [2] }}\n{MODEL}')
    settings = Settings.read(path)
    settings.override("--users", ("load", "users"), 8)
    settings.override("--shape", ("models", "*", "data", "shapes"), {"b": (3,)})
    test = Scenario.of(settings).test
    assert test.load == Users(users=8)
    assert test.mix[0].data == Synthetic(shapes={"a": (1,), "b": (3,)})
    settings.override("--users", ("load", "users"), 0)
    with pytest.raises(InvalidScenario, match=r"^--users: "):
        Scenario.of(settings)
    with pytest.raises(InvalidScenario, match=r"^--duration: expected a duration"):
        settings.override("--duration", ("load", "duration"), "soon")


def test_data_of_an_option_takes_the_place_of_random_data(write, tmp_path):
    """Shapes of the file mean nothing beside samples of one's own."""
    (tmp_path / "mine").mkdir()
    settings = Settings.read(write(f"[data]\nshapes = {{ a = [1] }}\n{MODEL}"))
    settings.override("--data", ("models", "*", "data", "path"), Path("mine"))
    assert Scenario.of(settings).test.mix[0].data == Files(path=Path("mine"))


def test_the_two_sides_of_a_gate_differ_in_what_their_tables_say(write):
    """All else is the scenario's."""
    text = f'[baseline]\nversion = "1"\n[candidate]\nversion = "2"\nurl = "grpc://other:1"\n{MODEL}batch = 4\n'
    settings = Settings.read(write(text))
    baseline, candidate = (Scenario.of(settings.variant(name)).test for name in ("baseline", "candidate"))
    assert [(test.mix[0].version, test.mix[0].batch) for test in (baseline, candidate)] == [("1", 4), ("2", 4)]
    assert candidate.connection.url == "grpc://other:1"
    assert Scenario.of(settings).test.mix[0].version is None


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.toml")), ids=lambda path: path.stem)
def test_the_scenarios_that_come_with_naiad_are_right(path):
    """They can be read, and their keys are those of the schema."""
    scenario = Scenario.read(path)
    assert scenario.test.name
    jsonschema.validate(tomllib.loads(path.read_text()), scenario_schema())
    assert f"`{path.relative_to(SHIPPED)}`" in (SHIPPED / "README.md").read_text()


def test_a_scenario_is_a_path_first_and_then_one_that_comes_along(tmp_path, monkeypatch):
    """A file here, by relative or absolute path, goes before the one of the same name that comes with the package."""
    monkeypatch.chdir(tmp_path)
    shipped = find_scenario("gallery/digits.toml")
    assert Scenario.read(shipped).test.mix[0].model == "digits"
    assert find_scenario(Path("throughput.toml")).read_text() == (SHIPPED / "throughput.toml").read_text()
    own = tmp_path / "gallery" / "digits.toml"
    own.parent.mkdir()
    own.write_text(MODEL)
    assert find_scenario("gallery/digits.toml").resolve() == own.resolve()
    assert find_scenario(own) == own
    assert find_scenario(shipped) == shipped


@pytest.mark.parametrize("name", ["gallery/digit.toml", "folder.toml", "gallery", "", "x" * 300 + ".toml", "a\0.toml"])
def test_an_unknown_scenario_is_told_which_ones_there_are(name, tmp_path, monkeypatch):
    """A typing error, a folder, nothing, and what no file can be called: the message lists what would do."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InvalidScenario, match="expected the path of a scenario file, or one of") as caught:
        find_scenario(name)
    assert "gallery/digits.toml" in str(caught.value)
    assert "throughput.toml" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_shipped_scenario_runs_by_its_name(tmp_path):
    """`naiad loadtest gallery/…` in an empty folder plans what the file says; a wrong name is wrong use."""
    command = [sys.executable, "-m", "naiad.cli", "loadtest"]
    url = ["--url", "grpc://127.0.0.1:1"]
    found, wrong = (
        subprocess.run([*command, name, *url], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        for name in ("gallery/digits.toml", "gallery/digit.toml")
    )
    assert found.returncode == wrong.returncode == 5
    assert "127.0.0.1:1" in found.stderr
    assert "gallery/digits.toml" in wrong.stderr
    assert "Traceback" not in found.stderr + wrong.stderr


def test_a_recorded_trace_comes_with_its_scenario():
    """Its path leads from the scenario's folder."""
    load = Scenario.read(SHIPPED / "trace-replay.toml").test.load
    assert isinstance(load, Trace)
    assert load.path.exists()


def test_the_schema_for_editors_is_the_one_of_the_code():
    """``loadtest/scenarios/scenario.schema.json`` is made from the keys, and refuses what they refuse."""
    assert json.loads((SHIPPED / "scenario.schema.json").read_text()) == scenario_schema()
    for wrong in ({"models": []}, {"models": [{"model": "m"}], "laod": {}}, {"models": [{"model": "m", "batch": 0}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, scenario_schema())
