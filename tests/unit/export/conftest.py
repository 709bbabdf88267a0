"""Nets that several modules convert, each published once."""

from __future__ import annotations

from pathlib import Path

import pytest

from naiad.export import load_recipe
from precision_helpers import Encoder, Net, OnlyConvolutions, Recurrent, Spoilt, normal, publish, sentences


@pytest.fixture(scope="session")
def precision_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("precision")


@pytest.fixture(scope="session")
def digits_net(precision_directory: Path) -> Net:
    """The digits recipe's net: convolutions, pooling, Gemm."""
    recipe = load_recipe("digits")
    return publish(recipe.build(epochs=3), {"image": recipe.samples()[0][0]}, precision_directory / "digits")


@pytest.fixture(scope="session")
def encoder_net(precision_directory: Path) -> Net:
    dynamic = {"ids": {0: "batch", 1: "length"}, "mask": {0: "batch", 1: "length"}}
    return publish(Encoder(), sentences(), precision_directory / "encoder", dynamic=dynamic)


@pytest.fixture(scope="session")
def recurrent_net(precision_directory: Path) -> Net:
    return publish(Recurrent(), {"x": normal(16, 10, 8)}, precision_directory / "recurrent")


@pytest.fixture(scope="session")
def convolutions_net(precision_directory: Path) -> Net:
    x = normal(16, 1, 8, 8)
    x[:8] *= 1e-6  # silence first, which makes a histogram's bins very small
    return publish(OnlyConvolutions(), {"x": x}, precision_directory / "convolutions")


@pytest.fixture(scope="session")
def spoilt_net(precision_directory: Path) -> Net:
    return publish(Spoilt(), {"x": normal(64, 64)}, precision_directory / "spoilt")
