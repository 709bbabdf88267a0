"""The recipe for pruning: channels are gone, not only masked, and what is left is exported like any other model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from naiad.export import Repository, Version, export_recipe, load_recipe


@pytest.fixture(scope="module")
def pruned() -> nn.Module:
    model: nn.Module = load_recipe("digits_pruned").build(epochs=8, tuning_epochs=8)
    return model


@pytest.fixture(scope="module")
def version(pruned: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Version:
    repository = Repository(tmp_path_factory.mktemp("pruned") / "models")
    return export_recipe(load_recipe("digits_pruned"), repository=repository, model=pruned, name="digits")


def test_channels_are_removed(pruned: nn.Module) -> None:
    """Half of the channels and of the hidden units are gone from every layer that knows them: a quarter is left."""
    shapes = [tuple(layer.weight.shape) for layer in pruned.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert shapes == [(8, 1, 3, 3), (16, 8, 3, 3), (32, 256), (10, 32)]
    assert not any("mask" in name or "orig" in name for name in pruned.state_dict())


def test_what_is_left_is_still_right(pruned: nn.Module) -> None:
    """After a short training at most three of a hundred held-out digits are read wrongly."""

    def predict(inputs: dict[str, object]) -> dict[str, object]:
        return {"probabilities": pruned(torch.as_tensor(inputs["image"])).detach().numpy()}

    assert load_recipe("digits_pruned").evaluate(predict)["accuracy"] >= 0.97


def test_cutting_out_is_exact() -> None:
    """Without training the smaller layers compute what the masked ones would."""
    recipe = load_recipe("digits_pruned").module
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv, x = nn.Conv2d(3, 8, 3), torch.randn(2, 3, 6, 6)
        norm = nn.BatchNorm2d(8).eval()
        norm.running_mean.uniform_()
    before = norm(conv(x))
    kept = recipe.strongest(conv, 0.5)
    assert len(kept) == 4
    after = recipe.smaller_norm(norm, kept).eval()(recipe.smaller(conv, kept)(x))
    torch.testing.assert_close(after, before[:, kept])


def test_it_is_published_like_any_model(version: Version) -> None:
    """The export verifies it like any model, and its file is less than half of the whole net's weights."""
    assert version.report is not None
    assert version.report.parity[0].max_rel_error < 1e-4
    whole = sum(tensor.numel() * 4 for tensor in load_recipe("digits").module.Digits().parameters())
    assert (version.path / "model.onnx").stat().st_size < whole / 2
