"""Images, converted to what the model's input says: layout, size and type."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from naiad.client import TensorMetadata
from naiad.loadtest._data.codec import numpy_dtype
from naiad.loadtest._data.fitting import Found, Reading, Where
from naiad.loadtest._data.samples import Rows

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["read_image"]

_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's, by number of channels
_WHITE: Final = 255.0


def read_image(reading: Reading, path: Path, _: int | None) -> list[list[Rows]]:
    """Read an image for the model's one input.

    An input of strings gets the file as it is. UINT8 and other whole numbers are 0 to 255, floating-point ones 0 to 1;
    mean and standard deviation are the model's affair. Where height and width are fixed, images are resized to them.
    """
    where = Where(path)
    tensor = reading.sole_input(where)
    array = _file(reading, where, tensor) if tensor.datatype == "BYTES" else _pixels(reading, where, tensor)
    return [[reading.rows(Found(inputs={tensor.name: array[np.newaxis]}, where=where))]]


def _file(reading: Reading, where: Where, tensor: TensorMetadata) -> NDArray[Any]:
    try:
        content = where.path.read_bytes()
    except OSError as exc:
        raise reading.wrong(where, f"could not be read: {exc}") from exc
    array = np.empty(tuple(1 for _ in reading.signature.row_shape(tensor)), np.object_)
    array.reshape(-1)[0] = content
    return array


def _pixels(reading: Reading, where: Where, tensor: TensorMetadata) -> NDArray[Any]:
    row = reading.signature.row_shape(tensor)
    layout = _layout(row, reading.signature.layouts.get(tensor.name))
    if layout is None:
        raise reading.wrong(
            where,
            "expected an input with the shape of an image: height × width × channels, channels × height × width (1, 3 "
            f"or 4 channels), or height × width, found {tensor}",
        )
    order, num_channels, height, width = layout
    image = _open(reading, where).convert(_MODES[num_channels])
    wanted = (image.width if width < 0 else width, image.height if height < 0 else height)
    if image.size != wanted:
        reading.num_resized += 1
        image = image.resize(wanted)
    pixels: NDArray[Any] = np.asarray(image).reshape(*image.size[::-1], num_channels)  # height, width, channels
    dtype = numpy_dtype(tensor.datatype)
    if dtype is not None and dtype.kind not in "biu":  # bfloat16 is of kind V
        pixels = (pixels / np.float32(_WHITE)).astype(dtype)
    if order == "CHW":
        pixels = pixels.transpose(2, 0, 1)
    return pixels.reshape(pixels.shape[:2] if len(row) == 2 else (*(1 for _ in row[:-3]), *pixels.shape))


def _open(reading: Reading, where: Where) -> Image:
    try:
        from PIL import Image, ImageOps
    except ImportError as exc:
        raise reading.wrong(where, "images need Pillow: pip install 'naiad[loadtest]'") from exc
    try:
        with Image.open(where.path) as image:
            turned = ImageOps.exif_transpose(image)  # as viewers show it
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise reading.wrong(where, f"expected an image, could not read it: {exc}") from exc
    if turned.mode.startswith(("I", "F")):
        raise reading.wrong(where, f"expected 8 bits for each channel, found mode {turned.mode}: save it as .npy")
    return turned


def _layout(row: tuple[int, ...], said: str | None) -> tuple[str, int, int, int] | None:
    """Return the order of the axes, and channels, height and width (-1 is any) of an input, ``None`` if it has none."""
    leading, row = row[:-3], row[-3:]
    if any(size not in (1, -1) for size in leading):
        return None
    if len(row) == 2:
        return "HWC", 1, row[0], row[1]
    if len(row) != 3:
        return None
    for likely in ((1, 3), (4,)):  # a size of 4 is rather a tiny image's than a number of channels
        if row[0] in likely and said != "NHWC":
            return "CHW", row[0], row[1], row[2]
        if row[2] in likely and said != "NCHW":
            return "HWC", row[2], row[0], row[1]
    return None
