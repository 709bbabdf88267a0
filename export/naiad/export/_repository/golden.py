"""`golden.npz`: request and response pairs from the verification, to be replayed against any server.

Arrays are named `input/<case>/<tensor>` and `output/<case>/<tensor>`; cases count from 0. The outputs are PyTorch's.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples

FILE = "golden.npz"
_CASE_BYTES = 4_000_000
_TOTAL_BYTES = 16_000_000


def write(path: Path, samples: Samples, answers: Sequence[Answer]) -> int:
    """Write one small case for each batch size that was verified, and return how many; the first is always there."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    count = total = 0
    for case in _by_batch(samples, answers):
        size = sum(array.nbytes for _, array in case)
        if count and (size > _CASE_BYTES or total + size > _TOTAL_BYTES):
            continue
        arrays |= {f"{kind.partition('/')[0]}/{count}/{kind.partition('/')[2]}": _plain(array) for kind, array in case}
        count, total = count + 1, total + size
    with path.open("xb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return count


def _plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return text as fixed-width characters: objects would need a pickle."""
    return array.astype(np.str_) if array.dtype == object else array


def _by_batch(samples: Samples, answers: Sequence[Answer]) -> Iterator[list[tuple[str, np.ndarray[Any, Any]]]]:
    seen = set()
    for answer in answers:
        batch = tuple(answer.case.sizes.items())
        if batch not in seen and answer.case.required:
            seen.add(batch)
            inputs = ((f"input/{name}", array) for name, array in answer.case.feeds().items())
            yield [*inputs, *((f"output/{name}", array) for name, array in answer.outputs.items())]
