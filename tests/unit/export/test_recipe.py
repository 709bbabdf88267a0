"""Recipes: what they may say, and how one that is wrong is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from naiad.export import (
    InvalidRecipe,
    Recipe,
    RecipeError,
    RecipeFailed,
    RecipeNotFound,
    find_recipe,
    load_recipe,
    parse_setting,
)

SMALLEST = """\
import torch

def build():
    return torch.nn.Linear(4, 2)

def samples():
    return [(torch.randn(8, 4),)]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(text)
    return path


def test_the_smallest_recipe(tmp_path: Path) -> None:
    """Two functions are enough; the model is named after the file."""
    recipe = load_recipe(write(tmp_path, SMALLEST))
    assert recipe.name == "mine"
    assert isinstance(recipe.build(), torch.nn.Linear)
    assert recipe.samples()[0][0].shape == (8, 4)
    assert not recipe.has("held_out")


def test_a_recipe_may_import_its_neighbours(tmp_path: Path) -> None:
    """A module in the recipe's folder can be imported, as by a script."""
    (tmp_path / "my_neighbour_of_a_recipe.py").write_text("WIDTH = 4\n")
    recipe = load_recipe(write(tmp_path, "from my_neighbour_of_a_recipe import WIDTH\n" + SMALLEST))
    assert recipe.constant("WIDTH") == 4


def test_the_digits_recipe_is_found_by_name() -> None:
    """A recipe that comes with Naiad has a name, and offers held-out data and a metric."""
    assert find_recipe("digits").name == "digits.py"
    recipe = load_recipe("digits")
    inputs, labels = recipe.held_out()
    assert inputs["image"].shape == (450, 1, 8, 8)
    assert labels.shape == (450,)
    assert [len(recipe.constant("LABELS")), recipe.constant("OUTPUTS")] == [10, ["probabilities"]]


def test_the_digits_recipe_is_deterministic() -> None:
    """The same seed gives the same weights, another one others; the state of the caller's generator is kept."""
    recipe = load_recipe("digits")
    before = torch.random.get_rng_state()
    weights = [recipe.build(seed=seed, epochs=1).state_dict()["classifier.0.weight"] for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", ["nothing", "no/such/file.py", "../digits"])
def test_a_recipe_that_does_not_exist(name: str) -> None:
    """The message names what there is."""
    with pytest.raises(RecipeNotFound, match=r"expected the path of a Python file, or one of: .*digits"):
        load_recipe(name)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("x = 1\n", InvalidRecipe, r"mine\.py is not a recipe: it defines no build\(\) and no samples\(\)"),
        ("def build():\n  return 1\n", InvalidRecipe, r"it defines no samples\(\)"),
        (SMALLEST + "MAX_BATCH_SIZE = 'many'\n", InvalidRecipe, r"MAX_BATCH_SIZE is str; expected int"),
        (SMALLEST + "DYNAMIC = ['x']\n", InvalidRecipe, r"DYNAMIC is list; expected dict"),
        ("x = 1\ny = x / 0\n", RecipeFailed, r"mine\.py:2: the file failed with ZeroDivisionError"),
        ("x = 1\ny = = 2\n", RecipeFailed, r"mine\.py:2: the file failed with SyntaxError"),
        ("import not_installed_anywhere\n", RecipeFailed, r"mine\.py:1: the file failed with ModuleNotFoundError"),
        ("raise SystemExit(3)\n", RecipeFailed, r"mine\.py:1: the file failed with SystemExit"),
    ],
)
def test_a_file_that_is_not_a_recipe(tmp_path: Path, text: str, error: type[RecipeError], message: str) -> None:
    """One line with the file, the line where there is one, and what is wrong."""
    with pytest.raises(error, match=message) as caught:
        load_recipe(write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "call", "message"),
    [
        (("torch.nn.Linear(4, 2)", "3"), lambda r: r.build(), r"mine\.py:3: build\(\) returned int; expected a torch"),
        (("torch.nn.Linear(4, 2)", "1 / 0"), lambda r: r.build(), r"mine\.py:4: build\(\) failed with ZeroDivision"),
        (("torch.randn", "torch.ran"), lambda r: r.samples(), r"mine\.py:7: samples\(\) failed with AttributeError"),
        (("[(torch.randn(8, 4),)]", "torch.zeros(3)"), lambda r: r.samples(), r"mine\.py:6: samples\(\) must return"),
        (("", ""), lambda r: r.build(seed=1), r"build\(\) has no option 'seed'; it has: none"),
        (("", ""), lambda r: r.held_out(), r"has no held_out\(\)"),
    ],
)
def test_a_function_that_fails(tmp_path: Path, change: tuple[str, str], call: object, message: str) -> None:
    """What a recipe's function raises or wrongly returns is one line with the line of the recipe."""
    recipe = load_recipe(write(tmp_path, SMALLEST.replace(*change) if change[0] else SMALLEST))
    assert isinstance(recipe, Recipe)
    assert callable(call)
    with pytest.raises(RecipeError, match=message) as caught:
        call(recipe)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"), [("a=3", 3), ("a=[1, 2]", [1, 2]), ("a=word", "word"), ("a=b=c", "b=c"), ("a=true", True)]
)
def test_options_are_json_or_text(text: str, value: object) -> None:
    """The value of `name=value` is JSON where it can be."""
    assert parse_setting(text) == ("a", value)
