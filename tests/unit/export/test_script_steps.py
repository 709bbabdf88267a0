"""Scripts: steps that call other steps, how their versions hang together, and what is wrong with some of them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export_helpers import contents
from naiad.export import ExportError, InvalidRecipe, RecipeFailed, Repository, StepInUse, VerificationFailed
from naiad.export._repository import golden
from naiad.export.steps import Function, Model, Script
from pipeline_helpers import net, publish_again
from script_helpers import control, in_python, publish, steps, text_steps, texts


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One published script; a test that changes it takes a copy."""
    path = tmp_path_factory.mktemp("sums") / "models"
    publish(path)
    return path


@pytest.fixture
def models(sums: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sums, tmp_path / "models"))


def calls_of(repo: Repository, version: int) -> dict[str, int]:
    """The version of each model that a version of the script calls, by its own file."""
    text = (repo.path / "sums_control" / str(version) / "calls.json").read_text()
    return {about["model"]: about["version"] for about in json.loads(text).values()}


def named_calls(repo: Repository) -> str:
    return str(repo.config("sums_control").parameters["naiad.calls"].string_value)


class TestWhatIsPublished:
    def test_what_a_script_calls_is_beside_the_chain(self, sums: Path) -> None:
        """The ensemble has the script only; the models that it calls are named with their versions."""
        repo = Repository(sums)
        assert repo.models() == ("sums", "sums_control", "sums_extra", "sums_net")
        assert [step.model_name for step in repo.config("sums").ensemble_scheduling.step] == ["sums_control"]
        assert named_calls(repo) == "sums_extra:1,sums_net:1"
        assert repo.config("sums_control").parameters["naiad.optional_calls"].string_value == "sums_extra"
        assert calls_of(repo, 1) == {"sums_net": 1, "sums_extra": 1}
        recorded = {step["model"]: step for step in repo.manifest("sums", 1)["pipeline"]["steps"]}
        assert recorded["sums_control"]["kind"] == "script"
        assert recorded["sums_extra"]["optional"]
        assert "optional" not in recorded["sums_net"]

    def test_it_lints_clean(self, sums: Path) -> None:
        """Neither Triton's rules nor those about calls find anything."""
        assert [str(found) for target in ("24.10", "26.07") for found in Repository(sums).lint(target=target)] == []

    def test_every_batch_is_compared(self, sums: Path) -> None:
        """The golden pairs are at batches 1, 2, 3, 7 and the largest; those of a called model as it was called."""
        pairs = golden.read(sums / "sums" / "1" / "golden.npz", {})
        assert {pair.num_rows for pair in pairs} >= {1, 2, 3, 7, 8}
        for pair in pairs:
            assert pair.outputs["total"].ravel().tolist() == in_python(pair.inputs["vector"])
            assert pair.outputs["asked"].all()
        called = golden.read(sums / "sums_extra" / "1" / "golden.npz", {})
        assert called
        assert all((pair.inputs["total"] > 4).all() for pair in called)

    def test_files_of_the_version_are_whole(self, sums: Path) -> None:
        """What was filled in last, the versions to call, is what the manifest describes."""
        repo = Repository(sums)
        assert all(repo.verify(model, 1).ok for model in repo.models())

    def test_a_script_in_a_chain(self, tmp_path: Path) -> None:
        """Steps before and after a script are wired as ever; a script needs no optional step."""
        several = [
            Function("before", twice, outputs={"y": "vector"}),
            Model("net", net(tmp_path)),
            Script("control", only_required, calls=["net"]),
            Function("after", negative),
        ]
        samples = [{"x": np.ones((4, 2), np.float32)}]
        repo = publish(tmp_path / "models", steps=several, samples=samples, max_batch_size=4)
        wired = [step.model_name for step in repo.config("sums").ensemble_scheduling.step]
        assert wired == ["sums_before", "sums_control", "sums_after"]
        assert "naiad.optional_calls" not in repo.config("sums_control").parameters
        assert golden.read(repo.path / "sums" / "1" / "golden.npz", {})[0].outputs["minus"].ravel().tolist() == [-4] * 4

    def test_a_script_without_batches(self, tmp_path: Path) -> None:
        """With max_batch_size 0 shapes are whatever the script and the steps make of them."""
        several = [Function("twice", twice), Script("control", whole, calls=["twice"])]
        samples = [{"x": np.ones(3, np.float32)}]
        repo = publish(tmp_path / "models", steps=several, samples=samples, max_batch_size=0)
        assert [list(tensor.dims) for tensor in repo.config("sums_twice").input] == [[3]]

    def test_text_and_scalars_are_called_with_and_returned(self, tmp_path: Path) -> None:
        """Triton has no empty dims, so that scalars a row get one on the way, and lose it again."""
        repo = publish(tmp_path / "models", steps=text_steps(), samples=texts(), max_batch_size=5)
        about = json.loads((repo.path / "sums_read" / "1" / "calls.json").read_text())
        assert about["lengths"]["flat_outputs"] == about["spaces"]["flat_inputs"] == ["length"]
        pair = golden.read(repo.path / "sums" / "1" / "golden.npz", {})[0]
        assert pair.outputs["half"].tolist() == [1, 4, 1, 0, 6]
        assert pair.outputs["loud"].ravel().tolist()[1:3] == [b"TWO WORDS", "Ä €".encode()]


def twice(x):
    return {"y": x * 2}


def negative(total):
    return {"minus": -total}


def whole(x, *, models):
    return {"z": models["twice"](x=x)["y"].sum(keepdims=True)}


def only_required(vector, *, models):
    return {"total": models.net(vector=vector)["scores"][:, :1]}


class TestVersions:
    def test_promote_and_rollback_take_along_what_is_called(self, models: Path) -> None:
        """Each version of the script calls its own versions; those that are served are served, too."""
        repo = Repository(models)
        for number in (2, 3):
            publish_again(models, name="sums", scale=float(number))
            assert repo.served("sums_net") == repo.served("sums_extra") == repo.served("sums_control")
        assert [calls_of(repo, number)["sums_net"] for number in (1, 2, 3)] == [1, 2, 3]
        assert repo.served("sums_net") == (2, 3)
        assert named_calls(repo) == "sums_extra:2,sums_extra:3,sums_net:2,sums_net:3"
        assert repo.rollback("sums") == (2,)
        assert repo.rollback("sums") == (1,)
        assert repo.served("sums_net") == (1, 2)
        assert named_calls(repo) == "sums_extra:1,sums_extra:2,sums_net:1,sums_net:2"
        assert repo.lint() == ()

    def test_what_a_script_calls_cannot_be_taken_away(self, models: Path) -> None:
        """Neither by promoting another version of it, nor by pruning."""
        repo = Repository(models)
        for number in (2, 3):
            publish_again(models, name="sums", scale=float(number))
        with pytest.raises(StepInUse, match="sums_net is a step of the pipeline sums, which needs its version 3"):
            repo.promote("sums_net", 2)
        assert repo.prune("sums_net", keep=1, force=True).removed == ()
        assert "a step of sums version 1" in repo.prune("sums_net", keep=1, force=True, dry_run=True).kept[1]

    def test_verify_looks_at_what_is_called(self, models: Path) -> None:
        """A called model that is damaged is a problem of the pipeline; an optional one that is gone is none."""
        repo = Repository(models)
        shutil.rmtree(models / "sums_extra")
        assert repo.verify("sums", 1).problems == ()
        publish_again_without_extra = repo.promote("sums", 1)
        assert publish_again_without_extra == (1,)
        shutil.rmtree(models / "sums_net" / "1")
        assert repo.verify("sums", 1).problems == ("its step sums_net version 1 is missing",)

    def test_an_unpromoted_version_changes_nothing_that_is_served(self, models: Path) -> None:
        """Neither what is served nor which calls the configuration names."""
        repo = Repository(models)
        publish_again(models, name="sums", promote=False)
        assert [repo.served(model) for model in repo.models()] == [(1,)] * 4
        assert named_calls(repo) == "sums_extra:1,sums_net:1"
        repo.promote("sums", 2)
        assert calls_of(repo, 2) == {"sums_net": 2, "sums_extra": 2}
        assert repo.served("sums_extra") == (1, 2)


def unlisted(vector, *, models):
    return {"total": models.other(vector=vector)["scores"]}


def optional_as_required(vector, *, models):
    total = models.net(vector=vector)["scores"][:, :1]
    return {"total": models.extra(total=total)["more"]}


def wrong_tensor(vector, *, models):
    return {"total": models.net(x=vector)["scores"]}


def sometimes_double(vector, *, models):
    vector = vector.astype(np.float64) if len(vector) == 3 else vector
    return {"total": models.net(vector=vector)["scores"].astype(np.float32)}


def many_rows(vector, *, models):
    return {"total": models.net(vector=np.repeat(vector, 100, axis=0))["scores"][: len(vector)]}


def no_rows(vector, *, models):
    return {"total": models.net(vector=vector[:0])["scores"]}


def no_models(vector):
    return {"total": vector}


def never_calls(vector, *, models):
    return {"total": vector.sum(axis=1, keepdims=True)}


def other_type_without(vector, *, models):
    total = models.net(vector=vector)["scores"]
    extra = models.get("extra")
    return {"total": total.astype(np.float64) if extra is None else extra(total=total)["more"]}


def fails_without(vector, *, models):
    total = models.net(vector=vector)["scores"][:, :1]
    return {"total": total + models.get("extra")(total=total)["more"]}


def elsewhere(vector, *, models):
    return {"total": models.net(vector=vector)["scores"][:, :1] + np.float32("pytest" in sys.modules)}


WRONG: list[tuple[Any, dict[str, Any], type[ExportError], str]] = [
    (control, {"calls": ["net", "nothing"]}, InvalidRecipe, "calls 'nothing', which is no step.*: net, extra"),
    (control, {"calls": ["net", "control"]}, InvalidRecipe, "step 'control' calls itself; a script calls models and"),
    (control, {"calls": ["net", "net"]}, InvalidRecipe, "calls 'net' twice; expected the names of other steps"),
    (control, {"calls": [], "optional": []}, InvalidRecipe, "calls none; expected the names of other steps"),
    (control, {"calls": "net"}, InvalidRecipe, "has calls='net'; expected a list of names"),
    (
        unlisted,
        {},
        RecipeFailed,
        r"test_script_steps.py:\d+: .*calls 'other', which is not among its calls: net, extra",
    ),
    (wrong_tensor, {}, RecipeFailed, r"calls 'net' with \['x'\]; expected \['vector'\]"),
    (sometimes_double, {}, RecipeFailed, "calls 'net' with 'vector' as float64 of rank 2, and as float32"),
    (many_rows, {}, RecipeFailed, r"calls 'net' with {'vector': \d+} rows; .* of 1 to 8"),
    (no_rows, {}, RecipeFailed, "calls 'net' with {'vector': 0} rows; .* of 1 to 8"),
    (no_models, {}, InvalidRecipe, "expected tensors by name"),
    (never_calls, {}, InvalidRecipe, "step 'net' was never called with these samples"),
    (optional_as_required, {}, RecipeFailed, r"without extra with NotServed: the optional model 'extra' is not served"),
    (other_type_without, {}, InvalidRecipe, "'total' is float64 of rank 2 without extra, and float32"),
    (fails_without, {}, RecipeFailed, "step 'control' failed at batch 6 without extra with TypeError"),
    (elsewhere, {"optional": []}, InvalidRecipe, "step 'extra' needs the tensor 'total'"),
]


@pytest.mark.parametrize(("script", "called", "error", "message"), WRONG, ids=[each[3][:40] for each in WRONG])
def test_scripts_that_do_not_fit(
    tmp_path: Path, script: Any, called: dict[str, Any], error: type[ExportError], message: str
) -> None:
    """Each mistake is one sentence that names the step, and nothing is published."""
    with pytest.raises(error, match=message):
        publish(tmp_path / "models", script, **called)
    assert contents(tmp_path / "models") == []


def test_a_script_does_not_call_a_script(tmp_path: Path) -> None:
    """So no call is endless."""
    several = [*steps(tmp_path), Script("more", only_required, calls=["control"])]
    with pytest.raises(
        InvalidRecipe, match="step 'more' calls the script 'control'; a script calls models and functions"
    ):
        publish(tmp_path / "models", steps=several)


def test_a_called_step_has_no_names_of_the_chain(tmp_path: Path) -> None:
    """It is called by its own arguments' names."""
    several = [Model("net", net(tmp_path), inputs={"vector": "x"}), Script("control", only_required, calls=["net"])]
    with pytest.raises(InvalidRecipe, match="step 'net' is called by step 'control', by its own arguments'"):
        publish(tmp_path / "models", steps=several)


def test_a_script_that_answers_differently_as_published_is_refused(tmp_path: Path) -> None:
    """Its files run in a process of their own, where ONNX Runtime answers the calls."""
    several = [Model("net", net(tmp_path)), Script("control", elsewhere, calls=["net"])]
    with pytest.raises(VerificationFailed, match="step 'control' of sums is the first whose result differs"):
        publish(tmp_path / "models", steps=several)
    assert contents(tmp_path / "models") == []


def broken_elsewhere(total):
    if "pytest" not in sys.modules:
        raise RuntimeError("not here")
    return {"more": total}


def test_a_called_function_that_fails_as_published_is_named(tmp_path: Path) -> None:
    """It is checked for itself, before the script that calls it."""
    several = [Model("net", net(tmp_path)), Function("extra", broken_elsewhere), steps(tmp_path)[2]]
    with pytest.raises(VerificationFailed, match="step 'extra' of sums fails on the server's side") as caught:
        publish(tmp_path / "models", steps=several)
    assert caught.value.step == "extra"


class TestLint:
    def changed(self, models: Path, **parameters: str) -> list[str]:
        config = models / "sums_control" / "config.pbtxt"
        text = config.read_text()
        for name, value in parameters.items():
            old = {"calls": "sums_extra:1,sums_net:1", "optional": '"sums_extra"'}[name]
            assert old in text
            text = text.replace(old, value)
        config.write_text(text)
        return [f"{found.rule}: {found.message}" for found in Repository(models).lint()]

    @pytest.mark.parametrize(
        ("calls", "message"),
        [
            ("sums_net", "calls.readable_calls: expected NAME:VERSION, separated by commas, found 'sums_net'"),
            ("sums_extra:1,sums_net:7", "calls.known_calls: sums_net does not serve version 7"),
            ("sums_extra:1,nothing:1", "calls.known_calls: there is no model 'nothing' beside it"),
            (
                "sums_extra:1,sums_control:1",
                "calls.no_endless_calls: it calls itself: sums_control → sums_control",
            ),
            ("sums_extra:1,sums:1", "calls.no_endless_calls: it calls itself: sums_control → sums → sums_control"),
            ("sums_net:1", "calls.readable_calls: 'sums_extra' is not among the calls"),
        ],
    )
    def test_calls_that_cannot_work(self, models: Path, calls: str, message: str) -> None:
        """The parameter is looked at like the steps of an ensemble."""
        assert message in self.changed(models, calls=calls)

    def test_an_optional_model_may_be_missing(self, models: Path) -> None:
        """A script goes on without it; without another it does not."""
        shutil.rmtree(models / "sums_extra")
        assert Repository(models).lint() == ()
        shutil.rmtree(models / "sums_net")
        assert [found.rule for found in Repository(models).lint()] == ["calls.known_calls"]
