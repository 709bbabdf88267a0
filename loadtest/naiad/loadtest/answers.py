"""Are the answers right, also under load? Comparison with golden outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from naiad.client import ClientError
from naiad.loadtest._codec import decode_answer
from naiad.loadtest.data import Sample

__all__ = ["AnswerCheck", "answers_match", "checker"]

AnswerCheck = Callable[[int, bytes], bool]
"""Takes the index of a sample and the answer's bytes; says whether the answer is right."""

_MAX_KNOWN: Final = 16  # per sample
# The same row computed in another batch differs in the last bits: kernels sum in another order.
_TOLERANCES: Final = {2: (2e-2, 2e-2), 4: (1e-3, 1e-4), 8: (1e-3, 1e-4)}  # by item size in bytes: relative, absolute


def checker(samples: Sequence[Sample]) -> AnswerCheck:
    """Return the function that compares answers with the outputs of ``samples``.

    A model gives few different answers to one sample; those found right are recognised by their bytes.
    """
    known: list[set[bytes]] = [set() for _ in samples]

    def check(index: int, answer: bytes) -> bool:
        if answer in known[index]:
            return True
        right = _is_right(answer, samples[index])
        if right and len(known[index]) < _MAX_KNOWN:
            known[index].add(answer)
        return right

    return check


def _is_right(answer: bytes, sample: Sample) -> bool:
    try:
        return answers_match(decode_answer(answer), sample.outputs)
    except ClientError:
        return False


def answers_match(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> bool:
    """Say whether all ``expected`` outputs were found: numbers within a tolerance, everything else exactly."""
    return all(name in found and _equal(found[name], array) for name, array in expected.items())


def _equal(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if expected.dtype.kind in "OSUbiu":
        return bool(np.array_equal(found, expected))
    relative, absolute = _TOLERANCES[expected.dtype.itemsize]
    wide = np.float64
    return bool(np.allclose(found.astype(wide), expected.astype(wide), rtol=relative, atol=absolute, equal_nan=True))
