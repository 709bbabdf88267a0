"""The catalogue of the gallery: each system is complete and cheap to list, and wrong use is refused early."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from naiad.cli.demo.system import NAMES, find_system, other_recipes
from naiad.export import find_recipe
from naiad.loadtest import Scenario, find_scenario

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "numpy", "onnx", "onnxruntime", "sklearn", "scipy", "locust", "gevent", "grpc", "tritonclient"}


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`naiad demo` in a folder, in a terminal wide enough for its messages to be one line each."""
    return subprocess.run(
        [sys.executable, "-m", "naiad.cli", "demo", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "1000", "NO_COLOR": "1"},
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_system_says_what_it_is(name):
    """A title of a line, what it shows, how long it takes, and what each option is for."""
    system = find_system(name)
    assert system.name == name
    assert 10 < len(system.title) < 100
    assert system.shows
    assert 0 < system.about_s <= 120
    assert all(option.isidentifier() and meaning for option, meaning in system.options.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_system_has_recipes_a_scenario_and_tests(name):
    """Its recipes are those that `naiad export` finds, its scenario can be read, and somebody runs it."""
    system = find_system(name)
    assert system.recipes
    assert [find_recipe(recipe).stem for recipe in system.recipes] == list(system.recipes)
    assert Scenario.read(find_scenario(f"gallery/{name}.toml")).test.name
    assert (ROOT / "tests" / "gallery" / f"test_{name}.py").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_begins_with_the_one_command(name):
    """Title, then the command that runs everything, then the place that its numbers are written to."""
    lines = (ROOT / "docs" / "gallery" / f"{name}.md").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert [line for line in lines[1:] if line][:3] == ["```console", f"$ naiad demo {name}", "```"]
    assert lines.count("<!-- naiad demo: what it found -->") == lines.count("<!-- end -->") == 1


def test_no_system_is_left_out():
    """A module, page or scenario that is there belongs to a name; helpers begin with an underscore."""
    systems = {path.stem for path in (ROOT / "cli/naiad/cli/demo/systems").glob("[a-z]*.py")} - {"any_recipe"}
    scenarios = {path.stem for path in (ROOT / "loadtest/scenarios/gallery").glob("*.toml")}
    pages = {path.stem for path in (ROOT / "docs/gallery").glob("[a-z]*.md")}
    assert (systems, pages) == (set(NAMES), set(NAMES))
    assert {name for name in scenarios if not name.startswith(NAMES)} == set()


def test_listing_the_systems_loads_nothing_heavy():
    """All of their modules together import neither frameworks nor what sends requests."""
    code = "import sys\nfrom naiad.cli.demo.system import NAMES, find_system\n[find_system(name) for name in NAMES]\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    rooms = {".".join(name.split(".")[:2]) for name in done.stdout.split() if name.startswith("naiad.")}
    assert loaded & HEAVY == set()
    assert rooms == {"naiad.cli"}


def test_the_list_names_every_system(tmp_path):
    """For people a table with options and the other recipes; nothing is written."""
    done = demo(tmp_path, "--list")
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        system = find_system(name)
        for word in (name, system.title, *(f"-o {option}=" for option in system.options)):
            assert word in done.stdout
    assert all(name in done.stdout for name in other_recipes())
    assert list(tmp_path.iterdir()) == []


def test_the_list_is_json_for_programs(tmp_path):
    """The same in the order of the list, one object for each system."""
    systems = json.loads(demo(tmp_path, "--list", "--json").stdout)
    assert [system["name"] for system in systems] == list(NAMES)
    for system in systems:
        assert set(system) == {"name", "title", "shows", "recipes", "about_s", "options"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digit"], ["found 'digit'", "did you mean digits?", "board_game"]),
        (["text-classifier"], ["did you mean text_classifier?"]),
        (["nope.py"], ["or a recipe's file", "found 'nope.py'"]),
        (["x" * 300], ["or a recipe's file"]),
        (["digits", "-o", "seed=1"], ["--option", "digits has no options", "found 'seed=1'"]),
        (["digits", "--duration", "0"], ["--duration"]),
        (["digits", "--duration", "nan"], ["--duration"]),
        (["digits", "--duration", "inf"], ["--duration", "expected seconds, found inf"]),
        (["digits", "mnist"], ["mnist"]),
        (["digits", "--report", "a file"], ["--report", "expected a folder that can be written to"]),
        (["digits", "--report", "a file/below"], ["--report", "expected a folder that can be written to"]),
    ],
)
def test_wrong_use_is_refused_before_anything_is_written(tmp_path, arguments, words):
    """Exit code 2 and what was expected, found and meant; no repository, no report, no download."""
    (tmp_path / "a file").write_text("mine")
    done = demo(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]
    assert (tmp_path / "a file").read_text() == "mine"


@pytest.mark.parametrize("system", [name for name in NAMES if find_system(name).options])
def test_an_unknown_option_is_told_the_known_ones(tmp_path, system):
    """Every system that has options names them, and guesses which one was meant."""
    option = next(iter(find_system(system).options))
    for wrong in (f"{option}x=1", option):
        done = demo(tmp_path, system, "-o", wrong)
        assert done.returncode == 2
        assert f"{option}=…" in done.stderr
        assert f"found '{wrong}'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_repository_that_cannot_be_written_to_is_said_at_once(tmp_path):
    """Before anything is trained, with the path and what to do."""
    (tmp_path / "a file").write_text("mine")
    done = demo(tmp_path, "digits", "--repository", "a file")
    assert done.returncode != 0
    assert "cannot write to the model repository" in done.stderr
    assert "✓" not in done.stderr
    assert (tmp_path / "a file").read_text() == "mine"
