"""Is there a face, and where: the last stage of MTCNN (Zhang et al., 2016, arXiv:1604.02878) with trained weights.

`image` [batch, 3, 48, 48] float32 from -1 to 1, to `face` [batch, 2], the probabilities of none and of one, `box`
[batch, 4], corrections of the crop's edges, and `landmarks` [batch, 10], eyes, nose and corners of the mouth. The
weights come from the package facenet-pytorch (MIT).
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import nn

from naiad.export.weights import from_package

MAX_BATCH_SIZE = 64
OUTPUTS = ("box", "landmarks", "face")


class FaceNet(nn.Module):
    """Four convolutions and three heads."""

    def __init__(self) -> None:
        super().__init__()
        channels, widths = (3, 32, 64, 64, 128), (3, 3, 3, 2)
        for number, width in enumerate(widths, start=1):
            setattr(self, f"conv{number}", nn.Conv2d(channels[number - 1], channels[number], width))
            setattr(self, f"prelu{number}", nn.PReLU(channels[number]))
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the box [batch, 4], the landmarks [batch, 10] and the probabilities [batch, 2]."""
        x = image
        for number in range(1, 5):
            x = getattr(self, f"prelu{number}")(getattr(self, f"conv{number}")(x))
            if number < 4:
                x = nn.functional.max_pool2d(x, 3 if number < 3 else 2, 2, ceil_mode=True)
        x = self.prelu5(self.dense5(x.permute(0, 3, 2, 1).flatten(1)))
        return self.dense6_2(x), self.dense6_3(x), self.dense6_1(x).softmax(dim=1)


def build() -> FaceNet:
    """Return the trained net."""
    path = from_package(
        "facenet-pytorch==2.6.0",
        "facenet_pytorch/data/onet.pt",
        sha256="165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
    )
    model = FaceNet()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def samples() -> list[tuple[torch.Tensor]]:
    """Return 48 x 48 crops of two photographs."""
    return [(torch.from_numpy(crops(64, seed=0)),)]


def crops(count: int, *, seed: int) -> np.ndarray:
    """Return crops of scikit-learn's two photographs, [count, 3, 48, 48]."""
    rng, photographs = np.random.default_rng(seed), load_sample_images().images
    found = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        top, left = (int(rng.integers(0, size - 48)) for size in photograph.shape[:2])
        found.append(photograph[top : top + 48, left : left + 48])
    return ((np.stack(found).transpose(0, 3, 1, 2) - 127.5) / 128).astype(np.float32)
