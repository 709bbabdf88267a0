"""What candidates are calibrated and timed with: the real samples."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from naiad.export._source.samples import Case, Samples

Feeds = dict[str, np.ndarray[Any, Any]]

FILE = "feeds.npz"
_CALIBRATION_ROWS = 128
_ROWS_AT_ONCE = 8


def timed(samples: Samples) -> dict[int, Feeds]:
    """Return one feed for batch 1, one between and the largest, at the length that samples typically have."""
    if not samples.batch:
        return {0: samples.typical(0).feeds()}
    middle = round(samples.max_batch_size**0.5)
    return {batch: samples.typical(batch).feeds() for batch in sorted({1, middle, samples.max_batch_size})}


def write_calibration(directory: Path, samples: Samples) -> None:
    """Write up to 128 rows of real samples, a few at a time, since calibration holds every tensor of a feed."""
    feeds = list(itertools.islice(_calibration_feeds(samples), _CALIBRATION_ROWS // _ROWS_AT_ONCE))
    arrays = {f"{index}/{name}": _plain(array) for index, feed in enumerate(feeds) for name, array in feed.items()}
    arrays["order"] = np.array(json.dumps(list(range(len(feeds)))))
    np.savez(directory / FILE, allow_pickle=False, **arrays)


def read_calibration(directory: Path) -> Iterator[Feeds]:
    """Yield what `write_calibration` wrote, one at a time."""
    with np.load(directory / FILE) as arrays:
        for index in json.loads(str(arrays["order"])):
            prefix = f"{index}/"
            yield {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}


def _calibration_feeds(samples: Samples) -> Iterator[Feeds]:
    for row in samples.rows:
        if not samples.batch:
            yield Case(sizes={}, inputs=row).feeds()
            continue
        for start in range(0, len(next(iter(row.values()))), _ROWS_AT_ONCE):
            part = {name: array[start : start + _ROWS_AT_ONCE] for name, array in row.items()}
            yield Case(sizes={}, inputs=part).feeds()


def _plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return text in a type that is written without pickling."""
    return array.astype(np.str_) if array.dtype == object else array
