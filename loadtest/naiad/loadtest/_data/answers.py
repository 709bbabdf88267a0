"""Are the answers right, also under load? Comparison with the outputs that the data expects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from naiad.client import ClientError
from naiad.loadtest._data.codec import decode_answer
from naiad.loadtest._data.samples import Sample

__all__ = ["AnswerCheck", "answers_match", "checker"]

Tensors = Mapping[str, NDArray[Any]]
Decode = Callable[[bytes, int], Tensors]
"""Takes an answer and the slot that its request had."""

_MAX_KNOWN: Final = 16  # per sample
# The same row computed in another batch differs in the last bits: kernels sum in another order.
_TOLERANCES: Final = {2: (2e-2, 2e-2), 4: (1e-3, 1e-4), 8: (1e-3, 1e-4)}  # by item size in bytes: relative, absolute


class AnswerCheck(Protocol):
    """Says whether an answer is right."""

    def __call__(self, index: int, answer: bytes, slot: int = 0) -> bool:
        """Compare the ModelInferResponse ``answer`` with what sample ``index`` expects.

        ``slot`` is the one whose memory the request's outputs went to, where there is shared memory.
        """
        ...


def _decode(answer: bytes, _: int) -> Tensors:
    return decode_answer(answer)


def checker(
    samples: Sequence[Sample], decode: Decode = _decode, *, key: Callable[[bytes], bytes] | None = bytes
) -> AnswerCheck:
    """Return the function that compares answers with the outputs of ``samples``.

    A model gives few different answers to one sample; those found right are recognised by their ``key``, ``None`` where
    the outputs are not in the answers.
    """
    known: list[set[bytes]] = [set() for _ in samples]

    def check(index: int, answer: bytes, slot: int = 0) -> bool:
        message = bytes(answer)  # connections give large ones as bytearrays
        name = key(message) if key is not None else b""
        if name in known[index]:
            return True
        try:
            right = answers_match(decode(message, slot), samples[index].outputs)
        except ClientError:
            return False
        if right and key is not None and len(known[index]) < _MAX_KNOWN:
            known[index].add(name)
        return right

    return check


def answers_match(found: Tensors, expected: Tensors) -> bool:
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
