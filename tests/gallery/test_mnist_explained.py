"""Why a digit is what it is: the served attributions are captum's, and they add up."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from naiad.client import Client, InvalidInput
from naiad.export import Repository, export, load_recipe
from naiad.server import EmbeddedTriton

captum = pytest.importorskip("captum.attr")


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("mnist_explained")


@pytest.fixture(scope="module")
def client(demo_of) -> Iterator[Client]:
    run = demo_of("mnist")
    assert run.found
    with EmbeddedTriton(run.repository, models=["mnist", "mnist_explained"]) as triton, triton.client() as client:
        yield client


def attributed(net: nn.Module, images: np.ndarray, classes: np.ndarray, **options) -> np.ndarray:
    """What captum says of a net in PyTorch."""
    found = captum.IntegratedGradients(net).attribute(
        torch.from_numpy(images), target=torch.from_numpy(classes), method="gausslegendre", **options
    )
    answer: np.ndarray = found.detach().numpy()
    return answer


def test_the_demo_compared_the_served_attributions_with_captum(demo_of):
    """Within 1e-4 of the largest value, and the axiom of completeness holds within two hundredths."""
    found = demo_of("mnist").found
    assert found["captum_max_rel_error"] <= 1e-4
    assert found["unexplained"] < 0.02
    assert found["explained_accuracy_served"] > 0.95


def test_the_picture_shows_ten_digits_and_red_and_blue(demo_of):
    """An image for people: ink above, what spoke for and against below."""
    picture = np.asarray(Image.open(demo_of("mnist").report / "explained.png"), dtype=int)
    below = picture[len(picture) // 2 :]
    assert (below[..., 0] > below[..., 2] + 60).sum() > 500
    assert (below[..., 2] > below[..., 0] + 60).sum() > 500


def test_an_image_is_explained_alone_as_among_others(client, recipe):
    """Points of all rows are one batch of the net; no row meets another's."""
    images = recipe.held_out()[0]["image"][:9]
    together = client.infer("mnist_explained", {"image": images})
    for row, image in enumerate(images):
        alone = client.infer("mnist_explained", {"image": image[None]})
        np.testing.assert_allclose(alone["attribution"][0], together["attribution"][row], atol=1e-5)
    np.testing.assert_allclose(
        client.infer("mnist_explained", {"image": images})["probabilities"], together["probabilities"], atol=1e-6
    )


def test_ground_gets_no_attribution_and_a_black_image_none(client, recipe):
    """What does not differ from the baseline had no part in it."""
    images = recipe.held_out()[0]["image"][:16].copy()
    images[0] = 0
    found = client.infer("mnist_explained", {"image": images})["attribution"]
    assert not found[images == 0].any()
    assert found[1:].any()


def test_another_net_is_explained_by_the_same_module(recipe, tmp_path):
    """Other layers and sizes, another baseline, fewer steps: as captum says, as served."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 24), nn.LayerNorm(24), nn.GELU(), nn.Linear(24, 5), nn.Softmax(1)).eval()
    images = torch.rand(6, 64)
    model = recipe.module.IntegratedGradients(net, images[:3], steps=20, baseline=0.5).eval()
    version = export(
        model, "any", samples=[(images,)], outputs=["probabilities", "attribution"], repository=tmp_path / "models"
    )
    with EmbeddedTriton(tmp_path / "models") as triton, triton.client() as client:
        answer = client.infer("any", {"image": images.numpy()})
    expected = attributed(net, images.numpy(), answer["probabilities"].argmax(axis=1), baselines=0.5, n_steps=20)
    np.testing.assert_allclose(answer["attribution"], expected, atol=1e-4 * np.abs(expected).max())
    assert version.number == 1


def test_more_steps_leave_less_unexplained(recipe):
    """The sums come nearer to what the axiom demands, so the difference is the integral's error and nothing else."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10), nn.Softmax(1)).eval()
    pixels = torch.rand(8, 784) * 8
    missing = []
    for steps in (2, 8, 128):
        model = recipe.module.IntegratedGradients(net, pixels[:3], steps=steps)
        with torch.inference_mode():
            probabilities, attribution = model(pixels)
            best = probabilities.argmax(dim=1, keepdim=True)
            gained = probabilities.gather(1, best) - net(torch.zeros(1, 784)).expand(8, -1).gather(1, best)
        missing.append(float((attribution.sum(1) - gained[:, 0]).abs().max()))
    assert missing[2] < missing[0] / 4
    assert missing[2] < 0.01


@pytest.mark.parametrize("shape", [(1, 783), (1, 28, 28), (65, 784)])
def test_images_of_another_shape_are_refused(client, shape):
    """With what was expected, before anything is computed."""
    with pytest.raises(InvalidInput, match=r"784|64"):
        client.infer("mnist_explained", {"image": np.zeros(shape, np.float32)})


def test_the_explained_model_is_a_model_of_its_own(demo_of):
    """Published by the ordinary export: intact, golden pairs answered by the real server."""
    run = demo_of("mnist")
    repository = Repository(run.repository)
    assert repository.verify("mnist_explained", 1).ok
    with EmbeddedTriton(run.repository, models=["mnist_explained"]) as triton:
        assert all(each.ok for each in repository.verify_served("mnist_explained", triton.grpc_url, 1))
