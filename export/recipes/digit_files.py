"""Digits in image files to their names as one pipeline: decode and resize, the net, and the label.

Input `image`: BYTES [batch, 1], files as PNG or JPEG, a light digit on a dark ground. Outputs `label`: BYTES
[batch, 1], "0" to "9"; `probability`: FP32 [batch, 1]. The net and its data are those of the recipe `digits`.
"""

from __future__ import annotations

import io

import digits
import numpy as np
from PIL import Image

from naiad.export.steps import Function, Model, decode_image

MAX_BATCH_SIZE = 32

LABELS = [str(digit) for digit in range(10)]


def pipeline(seed: int = 0, epochs: int = 25):
    """Return three steps; the net was trained on pixels from 0 to 16."""
    net = digits.build(seed, epochs)
    return [
        decode_image("decode", size=(8, 8), mode="L", scale=16 / 255),
        Model("net", net, inputs={"image": "pixels"}, outputs=["probabilities"]),
        Function("label", label),
    ]


def label(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Return the name and the probability of the likeliest digit."""
    best = probabilities.argmax(axis=1)
    return {"label": np.array(LABELS, object)[best][:, None], "probability": probabilities.max(axis=1)[:, None]}


def samples() -> list[dict[str, np.ndarray]]:
    """Return the first 32 of scikit-learn's digits as PNG files."""
    return [{"image": files(digits.samples()[0][0][:32].numpy())}]


def held_out() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return files of 450 images the net was not trained on, and their digits."""
    inputs, numbers = digits.held_out()
    return {"image": files(inputs["image"])}, numbers


def evaluate(predict) -> dict[str, float]:
    """Return the share of held-out files whose label is right."""
    inputs, numbers = held_out()
    return {"accuracy": float((predict(inputs)["label"].ravel().astype(int) == numbers).mean())}


def files(images: np.ndarray) -> np.ndarray:
    """Return images [rows, 1, 8, 8] as files [rows, 1]."""
    return np.array([[png(image[0])] for image in images], object)


def png(pixels: np.ndarray) -> bytes:
    """Return an image of pixels from 0 to 16 as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8)).save(file, "png")
    return file.getvalue()
