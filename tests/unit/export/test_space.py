"""Too little disk is said before the work, with what is needed and what is free."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from naiad.export import OutOfSpace, Repository, export
from naiad.export._repository import space
from naiad.export._source import size


@pytest.fixture
def file_limit() -> Iterator[None]:
    """Files of a megabyte at most, for this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_model_larger_than_the_disk(tmp_path: Path) -> None:
    """What all candidates need counts where more than one is made."""
    free = shutil.disk_usage(tmp_path).free
    space.require(tmp_path, free // 4, candidates=False, repository="models", model="large")
    for weights, candidates in ((free * 2, False), (free // 4, True)):
        with pytest.raises(OutOfSpace, match=r"exporting large needs about [\d.]+ GB in .*, and [\d.]+ GB are free"):
            space.require(tmp_path, weights, candidates=candidates, repository="models", model="large")


@pytest.mark.usefixtures("file_limit")
def test_refused_before_the_model_is_run(tmp_path: Path) -> None:
    """Weights of four megabytes where files may have one: nothing is run and nothing is left."""
    steps: list[str] = []
    with pytest.raises(OutOfSpace, match=r"weights of wide are 4 MB, and .* files of 1 MB"):
        export(
            nn.Linear(1000, 1000),
            "wide",
            samples=[(torch.zeros(2, 1000),)],
            repository=tmp_path / "models",
            on_step=steps.append,
        )
    assert steps == []
    assert Repository(tmp_path / "models").models() == ()
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_weights_are_counted_once(tmp_path: Path) -> None:
    """Shared ones too; a file counts with those that begin with its name, where ONNX keeps large weights."""
    shared = nn.Linear(10, 10, bias=False)
    assert size.num_bytes(nn.Sequential(shared, shared, nn.BatchNorm1d(10))) == 4 * (100 + 4 * 10) + 8
    (tmp_path / "model.onnx").write_bytes(bytes(10))
    (tmp_path / "model.onnx.data").write_bytes(bytes(90))
    assert size.num_bytes(tmp_path / "model.onnx") == 100
