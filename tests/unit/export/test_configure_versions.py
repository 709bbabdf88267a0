"""A configuration belongs to all versions of a model: what a later version must get along with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from naiad.export import CheckFailed, Repository, Version, export, export_pipeline
from naiad.export.steps import Function, Model
from repository_helpers import graph, node


def table(folder: Path, num_words: int, scale: float = 1.0) -> Path:
    """A graph that looks words up: INT64 [batch, length] to FP32 [batch, length, 4]."""
    weights = np.full((num_words, 4), scale, np.float32)
    made = graph(
        [node("Gather", "w", "ids", to="found"), node("Relu", "found", to="vectors")],
        {"ids": "INT64[batch,length]"},
        {"vectors": "FP32[batch,length,4]"},
        constants={"w": weights},
    )
    made.opset_import[0].version, made.ir_version = 20, 10
    path = folder / f"table-{num_words}-{scale}.onnx"
    onnx.save(made, path)
    return path


def publish(path: Path, repository: Path, largest_id: int, **options: Any) -> Version:
    ids = np.array([[0, largest_id], [1, 2], [2, 0]])
    dynamic = {"ids": {0: "batch", 1: "length"}}
    settings = {"samples": [(ids,)], "dynamic": dynamic, "max_batch_size": 4, "repository": repository}
    return export(path, "words", **settings | options)


def test_a_version_that_fails_on_the_first_ones_warmup_is_refused(tmp_path: Path) -> None:
    """The first version's sample holds word 9, which a smaller table lacks: Triton would not load the second."""
    publish(table(tmp_path, 10), tmp_path / "models", largest_id=9)
    with pytest.raises(CheckFailed, match="'sample_1' of words, which came with an earlier version"):
        publish(table(tmp_path, 5), tmp_path / "models", largest_id=4)
    repository = Repository(tmp_path / "models")
    assert repository.versions("words") == (1,)
    second = publish(table(tmp_path, 5), tmp_path / "models", largest_id=4, settings={"model_warmup": []})
    assert second.number == 2
    assert not repository.config("words").model_warmup


def test_a_pipeline_whose_model_fails_on_the_first_ones_warmup_is_refused(tmp_path: Path) -> None:
    """The same rule for a step of a pipeline; nothing of it is published."""

    def publish_lookup(num_words: int, **more: Any) -> Version:
        steps = [Model("table", table(tmp_path, num_words, num_words)), Function("largest", largest)]
        samples = [{"ids": np.array([[0, num_words - 1], [1, 2], [2, 0]])}]
        return export_pipeline(steps, "look", samples=samples, repository=tmp_path / "models", max_batch_size=4, **more)

    publish_lookup(10)
    with pytest.raises(CheckFailed, match="of look_table, which came with an earlier version"):
        publish_lookup(5)
    repository = Repository(tmp_path / "models")
    assert repository.versions("look") == repository.versions("look_table") == (1,)
    assert publish_lookup(5, settings={"table.model_warmup": []}).number == 2


def largest(vectors: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """[batch, length, 4] to [batch, 1]."""
    return {"largest": vectors.max(axis=(1, 2))[:, None]}


def test_versions_served_with_tensorrt_have_names_of_their_own(tmp_path: Path) -> None:
    """Also one that was exported without asking for it: the published configuration keeps the accelerator."""
    names = []
    for scale, accelerator in ((1.0, "tensorrt"), (2.0, "cpu")):
        version = publish(table(tmp_path, 10, scale), tmp_path / "models", largest_id=9, accelerator=accelerator)
        found = onnx.load(version.path / "model.onnx").graph
        names.append({found.initializer[0].name, found.node[0].output[0]})
        assert [value.name for value in (*found.input, *found.output)] == ["ids", "vectors"]
    assert names[0].isdisjoint(names[1])


def test_what_a_later_export_would_derive_is_said(tmp_path: Path) -> None:
    """The configuration stays as its owner tuned it, and whoever asks for cores learns what was not changed."""
    publish(table(tmp_path, 10), tmp_path / "models", largest_id=9, cores=2)
    second = publish(table(tmp_path, 10, 2.0), tmp_path / "models", largest_id=9, cores=64)
    assert [group.count for group in Repository(tmp_path / "models").config("words").instance_group] == [1]
    assert second.report is not None
    (finding,) = [finding for finding in second.report.findings if finding.check == "kept configuration"]
    assert "instance_group" in finding.message
