"""Images and what their pixels did, as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["write_heat"]

_SIDE: Final = 28
_ZOOM: Final = 5
_GAP: Final = 12
_CAPTION: Final = 18
_GROUND: Final = (255, 255, 255)
_FOR: Final = (178, 24, 43)
_AGAINST: Final = (33, 102, 172)


def write_heat(path: Path, images: Any, answer: Mapping[str, Any]) -> None:
    """Write a PNG: each image, [784] from 0 to 255, and below it its attribution, red for the digit, blue against it.

    White is no part in it at all. Each image has a scale of its own, which ends at its 99th percentile: a few pixels
    would otherwise make the others pale.
    """
    from PIL import Image, ImageDraw

    large = _SIDE * _ZOOM
    size = (len(images) * (large + _GAP) + _GAP, 2 * (large + _GAP) + _CAPTION + _GAP)
    picture = Image.new("RGB", size, _GROUND)
    draw = ImageDraw.Draw(picture)
    for number, (image, probabilities, attribution) in enumerate(
        zip(images, answer["probabilities"], answer["attribution"], strict=True)
    ):
        left = _GAP + number * (large + _GAP)
        picture.paste(_enlarged(_ink(image)), (left, _GAP))
        picture.paste(_enlarged(_heat(attribution)), (left, 2 * _GAP + large))
        caption = f"{probabilities.argmax()}: {probabilities.max():.1%}"
        draw.text((left, 2 * (_GAP + large) + 4), caption, fill="black")
    picture.save(path)


def _ink(image: Any) -> Any:
    import numpy as np

    return np.repeat(image.reshape(_SIDE, _SIDE, 1), 3, axis=2).clip(0, 255)


def _heat(attribution: Any) -> Any:
    """Return colours, [28, 28, 3] from 0 to 255."""
    import numpy as np

    scale = np.percentile(np.abs(attribution), 99) or 1.0
    strength = (attribution / scale).clip(-1, 1).reshape(_SIDE, _SIDE, 1)
    colour = np.where(strength > 0, np.array(_FOR), np.array(_AGAINST))
    return np.array(_GROUND) + np.abs(strength) * (colour - np.array(_GROUND))


def _enlarged(colours: Any) -> Any:
    import numpy as np
    from PIL import Image

    small = Image.fromarray(np.round(colours).astype(np.uint8))
    return small.resize((_SIDE * _ZOOM, _SIDE * _ZOOM), Image.Resampling.NEAREST)
