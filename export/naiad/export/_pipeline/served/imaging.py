"""Files of images to pixels, by the package `pillow`."""

import io
from typing import Any

import numpy as np

MAX_PIXELS = 100_000_000
"""A small file can hold an image that fills the memory."""


def decode(
    image: Any, *, size: list[int], mode: str, fit: str, scale: float, mean: list[float], std: list[float]
) -> dict[str, np.ndarray[Any, Any]]:
    """Return pixels, float32 [batch, channels, height, width], of files."""
    rows = np.stack([_pixels(file, size, mode, fit) for file in image.reshape(len(image))])
    pixels = rows.astype(np.float32) * np.float32(scale)
    if mean:
        pixels -= np.array(mean, np.float32).reshape(1, -1, 1, 1)
    if std:
        pixels /= np.array(std, np.float32).reshape(1, -1, 1, 1)
    return {"pixels": pixels}


def _pixels(file: bytes, size: list[int], mode: str, fit: str) -> np.ndarray[Any, Any]:
    """Return one image, uint8 [channels, height, width]."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width = size
    try:
        with Image.open(io.BytesIO(file)) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(f"the image has {opened.width} x {opened.height} pixels, more than {MAX_PIXELS}")
            found = opened.convert(mode)
    except UnidentifiedImageError:
        raise ValueError("the bytes are no image that pillow knows") from None
    except (OSError, Image.DecompressionBombError) as exc:
        raise ValueError(f"the image cannot be decoded: {exc}") from None
    if fit == "crop":
        found = ImageOps.fit(found, (width, height), Image.Resampling.BILINEAR)
    elif found.size != (width, height):
        found = found.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(found)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
