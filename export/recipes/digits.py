"""Handwritten digits: a small convolutional net on the 1,797 images of 8 × 8 pixels that come with scikit-learn.

Input `image`: FP32 [batch, 1, 8, 8], pixels from 0 to 16 as they come; the net normalises them itself.
Output `probabilities`: FP32 [batch, 10], one column for each digit.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

DYNAMIC = {"image": {0: "batch"}}
MAX_BATCH_SIZE = 64
OUTPUTS = ["probabilities"]
LABELS = [str(digit) for digit in range(10)]

_BATCH = 64


class Digits(nn.Module):
    """Two convolutions, pooling, two linear layers; about 39,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10))

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """Return scores that are not yet normalised, [batch, 10]."""
        return self.classifier(self.features(image / 16.0 - 0.5))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the probability of each digit, [batch, 10]."""
        return self.logits(image).softmax(dim=-1)


def build(seed: int = 0, epochs: int = 25) -> Digits:
    """Train the net; the same seed gives the same weights on the same machine."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Digits()
        return train(model, seed=seed, epochs=epochs)


def train(model: Digits, *, seed: int, epochs: int, learning_rate: float = 1e-2) -> Digits:
    """Train a net, new or trained before, and return it in eval mode."""
    images, digits, _, _ = _data()
    model.train()
    with _one_thread(), torch.random.fork_rng():
        torch.manual_seed(seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
        steps = -(-len(images) // _BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, epochs=epochs, steps_per_epoch=steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(_BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model.logits(images[rows]), digits[rows]).backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def samples() -> list[tuple[torch.Tensor]]:
    """Return real images for the export's checks."""
    return [(_data()[0][:64],)]


def held_out() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return 450 images the net was not trained on, and their digits."""
    _, _, images, digits = _data()
    return {"image": images.numpy()}, digits.numpy()


def evaluate(predict) -> dict[str, float]:
    """Return the share of held-out digits that `predict` gets right."""
    inputs, digits = held_out()
    probabilities = np.asarray(predict(inputs)["probabilities"])
    return {"accuracy": float((probabilities.argmax(axis=1) == digits).mean())}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A net this small trains no faster on more threads, and the sums come out the same on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    data = load_digits()
    images = data.images.astype(np.float32)[:, None]
    split = train_test_split(images, data.target.astype(np.int64), test_size=450, random_state=0, stratify=data.target)
    train_images, test_images, train_digits, test_digits = map(torch.from_numpy, split)
    return train_images, train_digits, test_images, test_digits
