"""Real nets with their trained weights, from packages: published, served, and equal to PyTorch at every size.

A convolutional net, recurrent ones, a transformer encoder; several inputs, several outputs, dynamic lengths, states.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from naiad.client import Client
from naiad.export import Recipe, Repository, Version, export_recipe, load_recipe
from naiad.server import EmbeddedTriton

RECIPES = ("pitch", "voice_activity", "speakers", "faces", "embeddings")
Arrays = dict[str, np.ndarray[Any, Any]]

pytestmark = pytest.mark.timeout(900)  # five exports of real nets, and their weights are downloaded the first time


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    return {name: load_recipe(name) for name in RECIPES}


@pytest.fixture(scope="module")
def models(recipes: dict[str, Recipe]) -> dict[str, torch.nn.Module]:
    return {name: recipe.build() for name, recipe in recipes.items()}


@pytest.fixture(scope="module")
def repository(
    recipes: dict[str, Recipe], models: dict[str, torch.nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> Repository:
    repo = Repository(tmp_path_factory.mktemp("trained") / "models")
    for name, recipe in recipes.items():
        export_recipe(recipe, repository=repo, model=models[name])
    return repo


@pytest.fixture(scope="module")
def triton(repository: Repository) -> Iterator[Client]:
    with EmbeddedTriton(repository.path, supervise=False) as server, server.client() as client:
        yield client


def in_pytorch(recipe: Recipe, model: torch.nn.Module, inputs: Arrays) -> Arrays:
    with torch.no_grad():
        answer = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    outputs = answer if isinstance(answer, tuple) else (answer,)
    return {name: value.numpy() for name, value in zip(recipe.constant("OUTPUTS"), outputs, strict=True)}


def assert_close(served: Any, expected: Arrays, version: Version) -> None:
    """Within the tolerance that the version states: `atol` of the largest value plus `rtol` of each."""
    assert version.report is not None
    assert set(served) == set(expected)
    for name, value in expected.items():
        assert served[name].shape == value.shape
        tolerance = version.report.tolerance
        atol = tolerance.atol * np.abs(value).max()
        np.testing.assert_allclose(served[name], value, rtol=tolerance.rtol, atol=atol, err_msg=name)


def sizes(recipe: Recipe) -> list[tuple[int, int]]:
    """Batches, and lengths where the model takes any; 0 where it does not."""
    lengths = (1, 2, 17, 100) if recipe.constant("DYNAMIC") else (0,)
    batches = (1, 2, 5, recipe.constant("MAX_BATCH_SIZE"))
    return [(batch, length) for length in lengths for batch in batches]


def resized(sample: Any, names: list[str], batch: int, length: int) -> Arrays:
    """Rows of the sample over and over, and of each as many steps as asked for, from another place for each row."""
    arrays = sample if isinstance(sample, dict) else dict(zip(names, sample, strict=True))
    found = {}
    for name, array in arrays.items():
        rows = np.asarray(array)[np.arange(batch) % len(array)]
        found[name] = np.ascontiguousarray(rows[:, np.arange(length) % rows.shape[1]] if length else rows)
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_the_served_net_answers_as_pytorch_at_every_size(
    name: str, recipes: dict[str, Recipe], models: dict[str, torch.nn.Module], triton: Client, repository: Repository
) -> None:
    """Batches of one to the largest, and lengths that no sample has."""
    recipe, sample = recipes[name], recipes[name].samples()[0]
    served = triton.model(name)
    names = [tensor["name"] for tensor in repository.manifest(name, 1)["inputs"]]
    for batch, length in sizes(recipe):
        inputs = resized(sample, names, batch, length)
        if "mask" in inputs:
            inputs["mask"][:, 0] = 1  # a sentence has a token at least
        expected = in_pytorch(recipe, models[name], inputs)
        assert_close(served.infer(inputs), expected, repository.version(name, 1))


@pytest.mark.parametrize("name", ["pitch", "embeddings"])
def test_the_served_net_does_its_task(name: str, recipes: dict[str, Recipe], triton: Client) -> None:
    """What it was trained for, on data that the export did not see."""
    model = triton.model(name)
    assert recipes[name].evaluate(lambda inputs: model.infer_many(inputs)) == {"accuracy": 1.0}


def test_a_state_travels_through_the_server(
    recipes: dict[str, Recipe], models: dict[str, torch.nn.Module], triton: Client, repository: Repository
) -> None:
    """Two seconds of sound in chunks: the state that came out goes in again, and errors do not add up."""
    recipe, model = recipes["voice_activity"], triton.model("voice_activity")
    state = {"h": np.zeros((1, 128), np.float32), "c": np.zeros((1, 128), np.float32)}
    expected_state, speech = dict(state), []
    for chunk in recipe.module.sound(seed=3):
        audio = chunk[None]
        expected = in_pytorch(recipe, models["voice_activity"], {"audio": audio, **expected_state})
        served = model.infer({"audio": audio, **state})
        assert_close(served, expected, repository.version("voice_activity", 1))
        state = {"h": served["h_out"], "c": served["c_out"]}
        expected_state = {"h": expected["h_out"], "c": expected["c_out"]}
        speech.append(float(served["speech"][0, 0]))
    assert max(speech[:20]) < 0.2 < 0.8 < max(speech[24:30])
