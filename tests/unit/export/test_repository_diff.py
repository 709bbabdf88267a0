"""In what two versions differ, in words and numbers, and what both answer to the same requests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from export_helpers import run_naiad
from naiad.export import Repository, VersionDiff, VersionNotFound
from verbs_helpers import X, identity, linear, pairs_of, publish_graph, weights


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Version 2 is version 1 with a bias towards the first class, 3 is a copy of 1, 4 takes larger batches."""
    repo = Repository(tmp_path_factory.mktemp("diff") / "models")
    shifted = weights() + np.array([0.5, 0, 0], np.float32)
    report = {"batches": [1], "num_cases": 1, "findings": [], "size_bytes": 1}
    for matrix, created, ms in ((weights(), "2026-01-01", 2.0), (shifted, "2026-02-02", 1.0)):
        parity = [{"output": "y", "max_abs_error": 1e-6, "max_rel_error": 1e-7, "worst_batch": 1}]
        about = report | {"parity": parity, "latency": [{"batch": 1, "median_ms": ms}]}
        made = {"created": created, "versions": {"torch": "2.13.0"}, "report": about}
        publish_graph(repo, graph=linear(matrix), pairs=pairs_of(matrix), labels="abc", **made)
    publish_graph(repo, labels="abc", created="2026-01-01")
    publish_graph(repo, labels="abc", created="2026-01-01", max_batch_size=32)
    return repo


def test_what_differs_is_told(repo: Repository) -> None:
    """Files, how it was made, parity and latency of both; the contract is the same."""
    found = repo.diff("linear", 1, 2)
    assert (found.a, found.b, found.contract, found.note) == ("linear/1", "linear/2", (), "")
    assert {"golden.npz", "model.onnx"} <= {each.name for each in found.files}
    assert [(each.name, each.before, each.after) for each in found.made] == [("created", "2026-01-01", "2026-02-02")]
    assert [(each.name, each.before, each.after) for each in found.latency] == [("1", 2.0, 1.0)]
    assert [(each.name, each.before) for each in found.parity] == [("y", 1e-7)]


def test_answers_are_compared_row_by_row(repo: Repository) -> None:
    """The largest difference, and the rows that would be decided otherwise, are those of NumPy."""
    (answer,) = repo.diff("linear", 1, 2).answers
    requests = np.concatenate([X[:1], X[:2], X[:8]])
    before, after = requests @ weights(), requests @ (weights() + np.array([0.5, 0, 0], np.float32))
    assert answer.max_abs_difference == pytest.approx(np.abs(before - after).max(), rel=1e-5)
    assert answer.max_rel_difference == pytest.approx(np.abs(before - after).max() / np.abs(before).max(), rel=1e-5)
    assert (answer.num_changed, answer.num_rows) == (int((before.argmax(1) != after.argmax(1)).sum()), 11)
    assert answer.num_changed > 0


def test_equal_versions_have_no_difference(repo: Repository) -> None:
    """The same weights exported again answer the same, bit by bit."""
    found = repo.diff("linear", 1, 3)
    assert [(each.max_abs_difference, each.num_changed) for each in found.answers] == [(0.0, 0)]
    assert found.num_requests == 3
    assert "model.onnx" not in [each.name for each in found.files]


def test_what_breaks_no_client_is_compatible(repo: Repository) -> None:
    """A version that takes larger batches can take the place of one that takes less, and not the other way round."""
    larger, smaller = repo.diff("linear", 1, 4), repo.diff("linear", 4, 1)
    assert [(str(each), each.breaking) for each in larger.contract] == [("max_batch_size is 8 and would be 32", False)]
    assert larger.breaking == ()
    assert [each.subject for each in smaller.breaking] == ["max_batch_size"]


def test_two_models_in_two_repositories(repo: Repository, tmp_path: Path) -> None:
    """Across models and repositories, labels are compared by name, and answers with the requests of both."""
    other = Repository(tmp_path / "other")
    publish_graph(other, "classifier", seed=1, pairs=pairs_of(weights(1), (3,)), labels="abd")
    found = repo.diff("linear", 1, 1, other=other, other_model="classifier")
    assert (found.b, found.num_requests) == ("classifier/1", 4)
    assert [str(each) for each in found.breaking] == ["the labelling of output 'y' is 'c' for class 2 and would be 'd'"]


@pytest.mark.parametrize(
    ("published", "note"),
    [
        (
            {"graph": identity(TensorProto.FLOAT), "pairs": [({"x": X[:1, :2]}, {"y": X[:1, :2]})]},
            "ONNX Runtime cannot run them with the same requests",
        ),
        ({"pairs": [({"z": X[:1]}, {"y": X[:1, :3]})]}, "their inputs differ, so no request fits both"),
        ({"pairs": []}, "has no arrays named"),
        ({"change": lambda config: setattr(config, "default_model_filename", "model.pt2")}, "no ONNX graph"),
    ],
)
def test_what_cannot_be_compared_is_said(
    repo: Repository, tmp_path: Path, published: dict[str, Any], note: str
) -> None:
    """Other inputs, no requests, and what ONNX Runtime does not run: a note, and the rest of the comparison."""
    other = Repository(tmp_path / "other")
    publish_graph(other, **published)
    found = repo.diff("linear", 1, 1, other=other)
    assert found.answers == ()
    assert re.search(note, found.note)


def test_text_and_integers_are_compared_exactly(tmp_path: Path) -> None:
    """Of what has no distance, the rows that differ are counted."""
    repo = Repository(tmp_path / "models")
    text = np.array([["a", "b"], ["c", "ö"]])
    for _ in range(2):
        publish_graph(repo, graph=identity(TensorProto.STRING), datatype="STRING", pairs=[({"x": text}, {"y": text})])
    (answer,) = repo.diff("linear", 1, 2).answers
    assert (answer.num_changed, answer.num_rows, answer.max_rel_difference) == (0, 2, 0.0)


def test_versions_made_by_hand_have_a_contract_to_compare(tmp_path: Path) -> None:
    """Without manifests the configuration is compared, and what is not known is left out."""
    root = tmp_path / "models"
    for model, dims in (("one", 4), ("two", 5)):
        (root / model / "1").mkdir(parents=True)
        text = f'name: "{model}" backend: "onnxruntime" input {{ name: "x" data_type: TYPE_FP32 dims: [{dims}] }}'
        (root / model / "config.pbtxt").write_text(text)
    found = Repository(root).diff("one", 1, 1, other_model="two")
    assert [str(each) for each in found.breaking] == ["input 'x' is FP32 [4] and would be FP32 [5]"]
    assert (found.files, found.made, found.answers) == ((), (), ())


def test_a_version_that_is_not_there_is_named(repo: Repository) -> None:
    """An unknown version says which there are."""
    with pytest.raises(VersionNotFound, match="linear has no version 9; it has 1, 2, 3, 4"):
        repo.diff("linear", 1, 9)


def test_the_command_has_an_exit_code_for_each_outcome(repo: Repository, tmp_path: Path) -> None:
    """0 where every client can go on, 1 where one would break, 2 for wrong use; JSON has all of it."""
    base = ("models", "diff", "linear", "-r", repo.path)
    fine = run_naiad(*base, "1", "2", cwd=tmp_path)
    assert fine.returncode == 0, fine.stderr
    assert "linear/2 can take the place of linear/1" in fine.stdout
    breaking = run_naiad(*base, "4", "1", "--no-answers", "--json", cwd=tmp_path)
    assert breaking.returncode == 1
    values = json.loads(breaking.stdout)
    assert (values["compatible"], values["note"], values["answers"]) == (False, "not asked for", [])
    assert run_naiad(*base, "2", "2", cwd=tmp_path).returncode == 2
    assert run_naiad(*base, "2", "7", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["1", "2", "--max-changed", "100%"], 0, ""),
        (["1", "2", "--max-changed", "1%"], 1, "of the rows of y are decided otherwise, more than 1.00%"),
        (["1", "3", "--max-changed", "0"], 0, ""),
        (["1", "2", "--max-changed", "0.5", "--no-answers"], 1, "--max-changed cannot be judged: not asked for"),
        (["1", "2", "--max-changed", "many"], 2, "expected a share as 0.5% or 0.005"),
    ],
)
def test_a_gate_on_what_is_decided_otherwise(
    repo: Repository, tmp_path: Path, args: list[str], code: int, message: str
) -> None:
    """--max-changed fails where too many rows are decided otherwise, and where that cannot be known."""
    done = run_naiad("models", "diff", "linear", *args, "-r", repo.path, cwd=tmp_path)
    assert (done.returncode, message in done.stderr) == (code, True)


def test_a_diff_is_plain_data(repo: Repository) -> None:
    """Its JSON has every part, so that a gate can be built on it."""
    values = repo.diff("linear", 1, 2).to_dict()
    assert isinstance(json.loads(json.dumps(values)), dict)
    assert values.keys() == {*VersionDiff.__dataclass_fields__, "compatible"}
