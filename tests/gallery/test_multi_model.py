"""Several models that cooperate: what the demo found, and the repository that it left, served again."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from naiad.client import Client, InvalidInput, ModelNotFound
from naiad.export import Repository, load_recipe
from naiad.server import EmbeddedTriton

ENSEMBLE, SCRIPT, ENHANCER = "multi_model", "multi_model_script", "multi_model_script_enhancer"
PAGE = Path(__file__).parents[2] / "docs" / "gallery" / "multi_model.md"


@pytest.fixture(scope="module")
def client(demo_of) -> Iterator[Client]:
    run = demo_of(ENSEMBLE)
    assert run.found
    with EmbeddedTriton(run.repository) as triton, triton.client() as client:
        yield client


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    inputs, digits = load_recipe(ENSEMBLE).held_out()
    assert len(digits) == 450
    return inputs["scene"]


def ask(client: Client, model: str, scenes: np.ndarray) -> dict[str, np.ndarray]:
    parts = [client.infer(model, {"scene": scenes[at : at + 30]}) for at in range(0, len(scenes), 30)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_both_forms_give_equal_answers(demo_of):
    """On hundreds of scenes: equal boxes, and probabilities within 1e-6, while the optional model is not served."""
    found = demo_of(ENSEMBLE).found
    assert found["scenes"] == 450
    assert found["boxes_equal"]
    assert found["max_abs_difference"] <= 1e-6


def test_the_optional_model_is_worth_asking(demo_of):
    """More digits are right with it, and it is asked about some scenes only."""
    forms = demo_of(ENSEMBLE).found["forms"]
    with_it, without, ensemble = (forms[name] for name in ("script", "script_without_enhancer", "ensemble"))
    assert with_it["accuracy"] > without["accuracy"] == ensemble["accuracy"] > 0.75
    assert with_it["boxes"] == without["boxes"] == ensemble["boxes"] > 0.85
    assert 0 < with_it["scenes_enhanced"] < 450
    assert without["scenes_enhanced"] == 0


def test_the_report_says_how_long_each_step_took(demo_of):
    """The ensemble's three steps; the script, and what it called, with how often."""
    run = demo_of(ENSEMBLE)
    names = [step["step"] for step in run.found[f"steps_of_{ENSEMBLE}"]]
    assert sorted(names) == [f"{ENSEMBLE}_{step}" for step in ("classifier", "crop", "detector")]
    steps = {step["step"]: step for step in run.found[f"steps_of_{SCRIPT}"]}
    assert all(step["time_us"] > 0 for step in steps.values())
    assert steps[f"{SCRIPT}_detector"]["calls"] == pytest.approx(1.0, abs=0.05)
    assert steps[f"{SCRIPT}_classifier"]["calls"] > 1
    report = json.loads((run.report / "script.json").read_text())
    assert {step["model"] for step in report["results"]["steps"]} >= set(steps)


def test_served_again_both_forms_agree_row_by_row(client: Client, scenes: np.ndarray) -> None:
    """Where the enhancer was not asked, the script's answer is the ensemble's, with the enhancer there or not."""
    ensemble, script = ask(client, ENSEMBLE, scenes), ask(client, SCRIPT, scenes)
    plain = ~script["enhanced"].ravel()
    assert 0 < plain.sum() < len(scenes)
    np.testing.assert_array_equal(script["box"], ensemble["box"])
    np.testing.assert_allclose(script["probabilities"][plain], ensemble["probabilities"][plain], atol=1e-6)
    client.unload(ENHANCER)
    without = ask(client, SCRIPT, scenes)
    client.load(ENHANCER)
    np.testing.assert_array_equal(without["box"], ensemble["box"])
    np.testing.assert_allclose(without["probabilities"], ensemble["probabilities"], atol=1e-6)


def test_odd_scenes_are_refused_or_answered(client: Client, scenes: np.ndarray) -> None:
    """A wrong shape is the caller's fault; noise, nothing and no numbers give a box within the picture."""
    with pytest.raises(InvalidInput):
        client.infer(SCRIPT, {"scene": scenes[:1, :, :32]})
    odd = np.stack([np.zeros((1, 64, 64)), np.full((1, 64, 64), 16.0), np.full((1, 64, 64), np.nan)])
    for model in (ENSEMBLE, SCRIPT):
        boxes = client.infer(model, {"scene": odd.astype(np.float32)})["box"]
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] <= 56).all()


def test_a_missing_model_is_named(client: Client, scenes: np.ndarray) -> None:
    """One that is not optional: the script says which it needs."""
    client.unload(f"{SCRIPT}_detector")
    try:
        with pytest.raises(ModelNotFound, match="step 'control' of multi_model_script: it needs 'detector'"):
            client.infer(SCRIPT, {"scene": scenes[:1]})
    finally:
        client.load(f"{SCRIPT}_detector")
    assert client.infer(SCRIPT, {"scene": scenes[:1]})["box"].shape == (1, 4)


def test_the_repository_is_whole_and_lints_clean(demo_of):
    """Every version is what was published, and no server would find fault with it."""
    repo = Repository(demo_of(ENSEMBLE).repository)
    assert repo.lint() == ()
    assert all(repo.verify(model, number).ok for model in repo.models() for number in repo.versions(model))


def test_the_page_shows_the_recipe(demo_of):
    """The script's code on the page is the recipe's, but for what explains it."""
    recipe = (Path(str(load_recipe(SCRIPT).path))).read_text()
    for line in ("models.detector(scene=scene)", "probabilities.max(axis=1) < SURE", 'models.get("enhancer")'):
        assert line in recipe
        assert line in PAGE.read_text()
