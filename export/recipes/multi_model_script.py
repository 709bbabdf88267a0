"""The recipe `multi_model` as a script: it asks a third model, an enhancer, about plates that it cannot read well.

Input and outputs as there, and `enhanced`: BOOL [batch], whether the enhancer was asked about that scene. While the
enhancer is not served, the script answers as the ensemble does.
"""

import functools

import multi_model
import numpy as np
import torch
from torch import nn

from naiad.export.steps import Model, Script

MAX_BATCH_SIZE = multi_model.MAX_BATCH_SIZE

SURE = 0.95


class Enhancer(nn.Module):
    """Takes the noise off a plate: a correction of each pixel from those around it."""

    def __init__(self) -> None:
        super().__init__()
        self.correction = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 1, 3, padding=1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the plates without noise, [batch, 1, 8, 8]."""
        return (image + 16.0 * self.correction(image / 16.0 - 0.5)).clamp(0.0, 16.0)


def pipeline(seed: int = 0, steps: int = 200):
    """Return three models and the script that calls them; the first two are those of the ensemble."""
    return [
        Model("detector", multi_model.detector(seed, steps), outputs=["box"]),
        Model("classifier", multi_model.classifier(seed), outputs=["probabilities"]),
        Model("enhancer", enhancer(seed), outputs=["clean"]),
        Script("control", control, calls=("detector", "classifier"), optional=("enhancer",)),
    ]


def control(scene, *, models):
    """Find the plate, read it, and where that is unsure, read it once more without its noise."""
    box = models.detector(scene=scene)["box"]
    plate = cut_out(scene, box)
    probabilities = models.classifier(image=plate)["probabilities"]
    unsure = probabilities.max(axis=1) < SURE
    enhancer = models.get("enhancer")
    if enhancer is None or not unsure.any():
        return {"box": box, "probabilities": probabilities, "enhanced": np.zeros(len(scene), bool)}
    clean = enhancer(image=plate[unsure])["clean"]
    probabilities[unsure] = models.classifier(image=clean)["probabilities"]
    return {"box": box, "probabilities": probabilities, "enhanced": unsure}


def cut_out(scene, box):
    """Cut the box out of each scene."""
    plates = [scene[row, :, top : top + high, left : left + wide] for row, (top, left, high, wide) in enumerate(box)]
    return np.stack(plates)


@functools.cache
def enhancer(seed: int = 0, steps: int = 300) -> Enhancer:
    """Train the enhancer on noisy plates and what they were."""
    images = multi_model.training_images()
    random = np.random.default_rng(seed)

    def loss(net: Enhancer) -> torch.Tensor:
        clean = images[random.integers(len(images), size=64)]
        found = net(torch.from_numpy(multi_model.noisy(clean, random)))
        return nn.functional.mse_loss(found, torch.from_numpy(clean)) / 64.0

    return multi_model.fit(Enhancer, loss, seed=seed, steps=steps, learning_rate=1e-2)


samples, held_out, evaluate = multi_model.samples, multi_model.held_out, multi_model.evaluate
