"""Smaller nets of MNIST: published where they are as good as the whole net, and refused with a reason where not."""

import numpy as np
import pytest
import torch

from naiad.export import Repository, load_recipe
from naiad.server import EmbeddedTriton


@pytest.fixture(scope="module")
def small():
    """A small net like that of MNIST, which nobody trained."""
    recipe = load_recipe("mnist_pruned")
    torch.manual_seed(0)
    return recipe, recipe.module.Mnist().eval()


def test_half_of_the_weights_are_as_accurate_as_served(demo_of):
    """The pruned net is the version that is served, with half of the weights and within half a per cent."""
    run = demo_of("mnist")
    smaller = run.found["smaller"]
    assert smaller["pruned"]["num_weights"] <= 0.51 * smaller["fp32"]["num_weights"]
    assert smaller["pruned"]["size_bytes"] < 0.6 * smaller["fp32"]["size_bytes"]
    assert smaller["pruned"]["accuracy_served"] >= smaller["fp32"]["accuracy_served"] * 0.995
    assert smaller["pruned"]["accuracy_served"] >= 0.97
    assert Repository(run.repository).served("mnist") == (smaller["pruned"]["version"],)


def test_int8_was_decided_by_what_was_measured(demo_of):
    """Faster and good enough, or refused with the numbers that say so; a smaller file alone is no reason."""
    run = demo_of("mnist")
    found = run.found
    assert found["smaller"]["int8"]["size_bytes"] < 0.4 * found["smaller"]["fp32"]["size_bytes"]
    if found["int8_published"]:
        assert found["int8_speed_up"] >= 1.05
        assert found["smaller"]["int8"]["accuracy_served"] >= found["smaller"]["fp32"]["accuracy_served"] - 0.01
    else:
        assert found["rows"]["int8"].startswith("refused: ")
        assert "version" not in found["smaller"]["int8"]


def test_the_pruned_version_goes_back_to_the_whole_net(demo_of):
    """Same inputs and outputs: a rollback is all it takes, and each version answers its own golden pairs."""
    run = demo_of("mnist")
    repository, smaller = Repository(run.repository), run.found["smaller"]
    pruned, whole = (smaller[name]["version"] for name in ("pruned", "fp32"))
    repository.promote("mnist", whole, pruned)
    try:
        with EmbeddedTriton(run.repository, models=["mnist"]) as triton:
            for number in (whole, pruned):
                assert all(each.ok for each in repository.verify_served("mnist", triton.grpc_url, number))
    finally:
        repository.promote("mnist", pruned)


def test_what_is_left_computes_what_masks_would(small):
    """Before it is trained again, the smaller net answers as the whole one whose weak units are zero."""
    recipe, net = small
    cut = recipe.module.pruned(net, 0.25, epochs=0)
    strength = net.logits[1].weight.detach().norm(dim=1)
    weak = strength.argsort()[:32]
    masked = recipe.module.Mnist().eval()
    masked.load_state_dict(net.state_dict())
    with torch.no_grad():
        masked.logits[3].weight[:, weak] = 0
        images = torch.rand(5, 784) * 255
        np.testing.assert_allclose(cut(images), masked(images), atol=1e-6)
    assert cut.logits[1].weight.shape == (96, 784)


def test_the_whole_net_stays_as_it_was(small):
    """Pruning gives a net of its own, so that both can be compared."""
    recipe, net = small
    before = {name: value.clone() for name, value in net.state_dict().items()}
    recipe.module.pruned(net, 0.5, epochs=0)
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert all(weight.requires_grad for weight in net.parameters())
