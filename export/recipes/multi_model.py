"""Find a digit in a noisy picture and read it: two models and a function between them, as an ensemble.

Input `scene`: FP32 [batch, 1, 64, 64], pixels from 0 to 16: somewhere on a grey ground lies a dark plate of 8 × 8
pixels with a digit, and everything is noisy. Outputs `box`: INT64 [batch, 4], the plate's top, left, height and width;
`probabilities`: FP32 [batch, 10], one column for each digit. The classifier and its data are those of the recipe
`digits`. The recipe `multi_model_script` does the same as a script.
"""

import functools

import digits
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from naiad.export.steps import Function, Model

MAX_BATCH_SIZE = 32
OUTPUTS = ["box", "probabilities"]

SIDE = 64
PLATE = 8
GROUND = 7.0
NOISE = 4.5

_SMALL = 24  # a convolution learns on small pictures what it does on large ones, in a seventh of the time


class Detector(nn.Module):
    """A score for each place where the plate may begin, from the 8 × 8 pixels there and one around them."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 6), nn.ReLU(), nn.Conv2d(8, 1, 1))

    def logits(self, scene: torch.Tensor) -> torch.Tensor:
        """Return scores [batch, places down, places across]."""
        around = nn.functional.pad(scene - GROUND, (1, 1, 1, 1))
        return self.scores(around / 8.0).squeeze(1)

    def forward(self, scene: torch.Tensor) -> torch.Tensor:
        """Return the likeliest box, [batch, 4]: top, left, height, width."""
        best = self.logits(scene).flatten(1).argmax(dim=1, keepdim=True)
        size = torch.full_like(best, PLATE)
        return torch.cat([best // (SIDE - PLATE + 1), best % (SIDE - PLATE + 1), size, size], dim=1)


def pipeline(seed: int = 0, steps: int = 200):
    """Return the three steps; the same seed gives the same weights on the same machine."""
    return [
        Model("detector", detector(seed, steps), outputs=["box"]),
        Function("crop", crop),
        Model("classifier", classifier(seed), inputs={"image": "plate"}, outputs=["probabilities"]),
    ]


def crop(scene, box):
    """Cut the box out of each scene."""
    plates = [scene[row, :, top : top + high, left : left + wide] for row, (top, left, high, wide) in enumerate(box)]
    return {"plate": np.stack(plates)}


@functools.cache
def classifier(seed: int = 0) -> nn.Module:
    """Train the net of the recipe `digits`, which never sees noise."""
    return digits.build(seed=seed, epochs=12)


@functools.cache
def detector(seed: int = 0, steps: int = 200) -> Detector:
    """Train the detector on small scenes that are made as it goes."""
    images = training_images()
    random = np.random.default_rng(seed)

    def loss(net: Detector) -> torch.Tensor:
        scene, box = scenes(images[random.integers(len(images), size=32)], random, side=_SMALL)
        scores = net.logits(torch.from_numpy(scene))
        places = torch.from_numpy(box[:, 0] * scores.shape[2] + box[:, 1])
        return nn.functional.cross_entropy(scores.flatten(1), places)

    return fit(Detector, loss, seed=seed, steps=steps)


def fit(make, loss, *, seed: int, steps: int, learning_rate: float = 2e-2):
    """Make a net and train it on what `loss` gives for it; return it in eval mode."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nets this small train no faster on more
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = make()
            optimizer = torch.optim.AdamW(net.parameters())
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
            for _ in range(steps):
                optimizer.zero_grad()
                loss(net).backward()
                optimizer.step()
                schedule.step()
    finally:
        torch.set_num_threads(threads)
    return net.eval()


def training_images():
    """Return the images that the nets are trained on, [rows, 1, 8, 8]."""
    held = {image.tobytes() for image in digits.held_out()[0]["image"]}
    images = load_digits().images.astype(np.float32)[:, None]
    return np.stack([image for image in images if image.tobytes() not in held])


def scenes(images, random, side: int = SIDE):
    """Return noisy scenes [rows, 1, side, side] with images [rows, 1, 8, 8] in them, and their boxes [rows, 4]."""
    scene = np.full((len(images), 1, side, side), GROUND, np.float32)
    box = np.full((len(images), 4), PLATE, np.int64)
    box[:, :2] = random.integers(side - PLATE + 1, size=(len(images), 2))
    for index, (top, left, height, width) in enumerate(box):
        scene[index, :, top : top + height, left : left + width] = images[index]
    return noisy(scene, random), box


def noisy(images, random):
    """Return images with noise, still from 0 to 16."""
    return np.clip(images + random.normal(0, NOISE, images.shape), 0, 16).astype(np.float32)


def samples():
    """Return 32 scenes for the export's checks."""
    images = digits.samples()[0][0].numpy()
    return [{"scene": scenes(images[:32], np.random.default_rng(1))[0]}]


def held_out():
    """Return 450 scenes of digits that no net was trained on, and the digits."""
    (scene, _), numbers = _held_out()
    return {"scene": scene}, numbers


def evaluate(predict):
    """Return the share of held-out scenes whose digit is right, and of those whose box is."""
    (scene, box), numbers = _held_out()
    found = predict({"scene": scene})
    return {
        "accuracy": float((np.asarray(found["probabilities"]).argmax(axis=1) == numbers).mean()),
        "boxes": float((np.asarray(found["box"]) == box).all(axis=1).mean()),
    }


def _held_out():
    inputs, numbers = digits.held_out()
    return scenes(inputs["image"], np.random.default_rng(2)), numbers
