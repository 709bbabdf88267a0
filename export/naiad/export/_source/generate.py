"""Samples that are made up, for a model that comes without real ones: of the right types, sizes and ranges."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from naiad.export._source.datatypes import as_array
from naiad.export._source.samples import Dynamic, Inputs
from naiad.export.errors import InvalidExport
from naiad.export.inputs import Input
from naiad.export.report import Finding

_SIZES = (7, 12)
"""Of a dynamic dimension, one for each sample."""
_BATCH = 8
_WORDS = ("a", "b", "unknown", "")

Ranges = Mapping[str, tuple[int, int | None]]


def generate(inputs: Mapping[str, Input], ranges: Ranges | None = None) -> list[Inputs]:
    """Return two samples, of different sizes where sizes vary; the same values every time."""
    return [{name: _values(name, each, _sizes(size, ranges or {})) for name, each in inputs.items()} for size in _SIZES]


def dynamic(inputs: Mapping[str, Input]) -> Dynamic:
    """Return the dimensions that have names."""
    found = {
        name: {axis: size for axis, size in enumerate(each.shape) if isinstance(size, str)}
        for name, each in inputs.items()
    }
    return {name: axes for name, axes in found.items() if axes}


def finding(inputs: Mapping[str, Input]) -> Finding:
    """Say that the samples were made up, and how."""
    described = "; ".join(f"{name}: {_describe(each)}" for name, each in inputs.items())
    return Finding(
        check="generated samples",
        message=f"no samples were given, so the checks ran on made-up values ({described}); give real samples for a "
        "check that means something",
    )


def _sizes(size: int, ranges: Ranges) -> Any:
    def pick(symbol: str) -> int:
        low, high = ranges.get(symbol, (1, None))
        wanted = _BATCH if symbol == "batch" else size
        return max(low, min(wanted, high if high is not None else wanted))

    return pick


def _values(name: str, each: Input, pick: Any) -> np.ndarray[Any, Any]:
    shape = [pick(size) if isinstance(size, str) else size for size in each.shape]
    random = np.random.default_rng(zlib.crc32(f"{name} {shape}".encode()))
    dtype = np.dtype(each.dtype)
    if dtype.kind in "OUS":
        return as_array(random.choice(np.array(each.words or _WORDS, dtype=np.str_), shape))
    low, high = each.low, each.high
    if dtype.kind == "b":
        return random.random(shape) < 0.5
    if dtype.kind in "iu":
        if low is not None and low != int(low):
            raise InvalidExport(f"input {name!r} is {dtype}; expected whole numbers as its low and high")
        return random.integers(int(low or 0), int(1 if high is None else high), shape, dtype=dtype, endpoint=True)
    values = random.standard_normal(shape) if low is None else random.uniform(low, high or 0.0, shape)
    return values.astype(dtype)


def _describe(each: Input) -> str:
    dtype = np.dtype(each.dtype)
    if dtype.kind in "OUS":
        return f"text from {list(each.words or _WORDS)}"
    if dtype.kind == "b":
        return "true or false"
    if each.low is not None:
        return f"{dtype} from {each.low:g} to {each.high:g}"
    return f"{dtype} 0 or 1" if dtype.kind in "iu" else f"{dtype}, normally distributed"
