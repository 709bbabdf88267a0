"""Handwritten digits in image files to their names as one pipeline: decode and resize, the net, and the label.

Input `image`: BYTES [batch, 1], files as PNG or JPEG, each with one digit that fills most of it, light on dark or dark
on light. Outputs `label`: BYTES [batch, 1], "0" to "9"; `probability`: FP32 [batch, 1]. The net and its data are those
of the recipe `mnist`.
"""

from __future__ import annotations

import io

import mnist
import numpy as np
import torch
from PIL import Image
from torch import nn

from naiad.export import load_checkpoint
from naiad.export.steps import Function, Model, decode_image

MAX_BATCH_SIZE = 32

LABELS = [str(digit) for digit in range(10)]


class OnDark(nn.Module):
    """The net for pixels of any image: where the ground is light, light and dark change places."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the probability of each digit; `pixels` are [batch, 1, 28, 28], from 0 to 255."""
        corners = pixels[:, :, ::27, ::27].mean(dim=(1, 2, 3), keepdim=True)
        return self.net(torch.where(corners > 127, 255 - pixels, pixels).flatten(1))


def pipeline(seed: int = 0, epochs: int = mnist.EPOCHS, data: str = "", weights: str = ""):
    """Return three steps; with a file of `weights` that the recipe `mnist` wrote, nothing is trained."""
    net = mnist.build(seed, 0 if weights else epochs, data)
    if weights:
        load_checkpoint(net, weights)
    return [
        decode_image("decode", size=(28, 28), mode="L", scale=1.0),
        Model("net", OnDark(net).eval(), outputs=["probabilities"]),
        Function("label", label),
    ]


def label(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Return the name and the probability of the likeliest digit."""
    best = probabilities.argmax(axis=1)
    return {"label": np.array(LABELS, object)[best][:, None], "probability": probabilities.max(axis=1)[:, None]}


def samples() -> list[dict[str, np.ndarray]]:
    """Return 32 images as PNG files, every other one dark on light."""
    images = mnist.samples()[0][0][:32].numpy()
    images[1::2] = 255 - images[1::2]
    return [{"image": files(images)}]


def held_out() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return files of the first 1,000 test images, and their digits."""
    inputs, digits = mnist.held_out()
    return {"image": files(inputs["image"][:1000])}, digits[:1000]


def evaluate(predict) -> dict[str, float]:
    """Return the share of held-out files whose label is right."""
    inputs, digits = held_out()
    return {"accuracy": float((predict(inputs)["label"].ravel().astype(int) == digits).mean())}


def files(images: np.ndarray) -> np.ndarray:
    """Return images [rows, 784] as files [rows, 1]."""
    return np.array([[png(image)] for image in images], object)


def png(pixels: np.ndarray) -> bytes:
    """Return an image of 784 pixels from 0 to 255 as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels.reshape(28, 28).astype(np.uint8)).save(file, "png")
    return file.getvalue()
