"""Versions of a pipeline: what is served changes as a whole, and the steps follow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pipeline_helpers
from export_helpers import contents
from export_publisher import publish as publish_plain
from naiad.export import ContractChanged, CorruptVersion, InvalidExport, Repository, StepInUse
from naiad.export.steps import Function, Model
from pipeline_helpers import assert_wired, lengths, net, publish, publish_again


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One published pipeline; a test that changes it takes a copy."""
    path = tmp_path_factory.mktemp("words") / "models"
    publish(path)
    return path


@pytest.fixture
def models(words: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(words, tmp_path / "models"))


def test_promote_and_rollback_take_the_steps_along(models: Path) -> None:
    """The wiring changes with the version; steps serve what is wired now and what was before."""
    repo = Repository(models)
    for number in (2, 3):
        publish_again(models, scale=number)
        assert_wired(models)
    assert [repo.served(model) for model in repo.models()] == [(3,), (2, 3), (2, 3), (2, 3)]
    assert repo.rollback("words") == (2,)
    assert_wired(models)
    assert repo.rollback("words") == (1,)
    assert_wired(models)
    assert repo.served("words_net") == (1, 2)
    repo.promote("words", 3)
    assert_wired(models)
    assert repo.served("words_net") == (1, 3)


def test_an_unpromoted_version_changes_nothing_that_is_served(models: Path) -> None:
    """Its steps lie unused until it is promoted."""
    repo = Repository(models)
    publish_again(models, promote=False)
    assert [repo.served(model) for model in repo.models()] == [(1,)] * 4
    repo.promote("words", 2)
    assert_wired(models)


def test_two_versions_cannot_be_served_at_once(models: Path) -> None:
    """One configuration wires the steps of one version."""
    publish_again(models)
    with pytest.raises(InvalidExport, match=r"words is a pipeline, .* of one version; found versions 1, 2"):
        Repository(models).promote("words", 1, 2)
    assert_wired(models)


def test_a_step_cannot_be_taken_away_from_its_pipeline(models: Path) -> None:
    """Neither by a promotion, nor by an export to its name; serving more than the pipeline needs is allowed."""
    repo = Repository(models)
    publish_again(models)
    with pytest.raises(StepInUse, match="words_net is a step of the pipeline words, which needs its version 2"):
        repo.promote("words_net", 1)
    publish_plain(repo, "alone")
    repo.promote("words_net", 2)
    repo.promote("words_net", 1, 2)
    assert_wired(models)


def test_pruning_keeps_what_versions_are_wired_to(models: Path) -> None:
    """A step's version goes only after the pipeline's."""
    repo = Repository(models)
    for _ in range(3):
        publish_again(models)
    assert repo.prune("words_net", keep=1, force=True).removed == ()
    assert repo.prune("words", keep=1).removed == (1, 2)
    assert repo.prune("words_net", keep=1, force=True).removed == (1, 2)
    assert_wired(models)


def test_verify_and_promote_see_a_step_that_was_changed(models: Path) -> None:
    """A pipeline is what was published if its steps are."""
    repo = Repository(models)
    publish_again(models)
    with (models / "words_verdict" / "1" / "step.py").open("a") as file:
        file.write("# changed\n")
    assert any(
        "words_verdict version 1: step.py was changed" in problem for problem in repo.verify("words", 1).problems
    )
    assert repo.verify("words", 2).ok
    with pytest.raises(CorruptVersion, match=r"words_verdict version 1: step.py was changed"):
        repo.rollback("words")
    (models / "words_lengths" / "1" / "manifest.json").unlink()
    assert "its step words_lengths version 1 is missing" in repo.verify("words", 1).problems


def test_a_step_that_was_replaced_together_with_its_manifest_is_found(models: Path) -> None:
    """A pipeline's manifest has the hashes of its steps' manifests, so that one signature covers all of it."""
    publish_again(models, offset=7.0, promote=False)
    first, second = (models / "words_verdict" / number for number in "12")
    manifest = json.loads((second / "manifest.json").read_text()) | {"version": 1}
    for name in ("step.py", "export-report.html"):
        if (second / name).exists():
            (first / name).write_bytes((second / name).read_bytes())
    (first / "manifest.json").write_text(json.dumps(manifest))
    repo = Repository(models)
    assert repo.verify("words_verdict", 1).problems == ()
    (problem,) = repo.verify("words", 1).problems
    assert problem == "its step words_verdict version 1 has another manifest.json than was published with it"


def test_other_tensors_between_the_steps_are_refused_before_anything_is_published(models: Path, tmp_path: Path) -> None:
    """A step's versions share a configuration, so that the pipeline's old version could not be served again."""
    before = contents(models)
    steps = [
        Function("lengths", lengths, dynamic={"vector": {1: "words"}}),
        Model("net", net(tmp_path)),
        Function("verdict", pipeline_helpers.verdict_of_doubles, options={"names": ["many", "long"]}),
    ]
    with pytest.raises(ContractChanged, match="words_verdict is already published"):
        publish(models, steps=steps)
    assert contents(models) == before


@pytest.mark.parametrize("delay_ms", [5, 20, 50, 100])
def test_killed_at_any_moment_the_served_pipeline_is_whole(models: Path, delay_ms: int) -> None:
    """A publisher that is killed leaves the old pipeline or the new one, wired to steps that are served."""
    command = [sys.executable, pipeline_helpers.__file__, str(models), "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "tests"}) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(delay_ms / 1000)
        process.send_signal(signal.SIGKILL)
    assert_wired(models)
    number = publish_again(models).number
    assert Repository(models).served("words") == (number,)
    assert_wired(models)
