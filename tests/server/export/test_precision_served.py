"""Smaller precisions in the real Triton: versions of one contract, as accurate as PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from naiad.client import Client
from naiad.export import Repository, export_recipe, load_recipe
from naiad.server import EmbeddedTriton

VERSIONS = {"fp32": "1", "int8": "2", "int4": "3"}


@pytest.fixture(scope="module")
def digits() -> nn.Module:
    model: nn.Module = load_recipe("digits").build()
    return model


@pytest.fixture(scope="module")
def repository(digits: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The digits in three precisions, all of them served."""
    repo = Repository(tmp_path_factory.mktemp("precisions") / "models")
    for precision in VERSIONS:
        export_recipe(load_recipe("digits"), repository=repo, model=digits, precision=precision, allow_slower=True)
    repo.promote("digits", *map(int, VERSIONS.values()))
    return repo


@pytest.fixture(scope="module")
def client(repository: Repository) -> Iterator[Client]:
    with EmbeddedTriton(repository.path) as triton, triton.client() as client:
        yield client


def accuracy(client: Client, version: str) -> float:
    """Return the share of held-out digits that a served version gets right."""

    def served(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        parts = [inputs["image"][start : start + 64] for start in range(0, len(inputs["image"]), 64)]
        answers = [client.infer("digits", {"image": part}, version=version)["probabilities"] for part in parts]
        return {"probabilities": np.concatenate(answers)}

    return load_recipe("digits").evaluate(served)["accuracy"]


@pytest.mark.parametrize("precision", VERSIONS)
def test_served_accuracy_is_that_of_pytorch(digits: nn.Module, client: Client, precision: str) -> None:
    """Each version reads as many held-out digits right as PyTorch does, within half a percent."""

    def in_pytorch(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"probabilities": digits(torch.from_numpy(inputs["image"])).detach().numpy()}

    expected = load_recipe("digits").evaluate(in_pytorch)["accuracy"]
    assert abs(accuracy(client, VERSIONS[precision]) - expected) <= 0.005


def test_versions_differ_in_their_weights_alone(repository: Repository) -> None:
    """One configuration serves all: a precision is no change of the contract, and each version says which it has."""
    precisions = [repository.manifest("digits", int(number))["precision"] for number in VERSIONS.values()]
    assert precisions == ["fp32", "int8", "int4"]
    sizes = [(repository.path / "digits" / number / "model.onnx").stat().st_size for number in VERSIONS.values()]
    assert all(size < 0.7 * sizes[0] for size in sizes[1:])
