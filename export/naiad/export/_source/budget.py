"""How much time and memory the subject's own answers may take; what goes beyond is left out and said."""

import os
import time
from typing import Any

import numpy as np

from naiad.export._source.samples import Case

TOTAL_S = 120.0
"""For the answers of one subject; a case that surely runs longer than what is left is not begun."""
_MAX_BYTES = 4_000_000_000
_SHARE_OF_MEMORY = 4


class Budget:
    """Predicts what a case takes from what those before took, by the number of elements that go in."""

    def __init__(self, total_s: float = TOTAL_S, total_bytes: int | None = None) -> None:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self.left_s = total_s
        self.left_bytes = min(memory // _SHARE_OF_MEMORY, _MAX_BYTES) if total_bytes is None else total_bytes
        self._s_per_element = 0.0
        self._bytes_per_element = 0.0
        self._begun_at = 0.0

    def begin(self) -> None:
        """Note the time before a case is run."""
        self._begun_at = time.perf_counter()

    def end(self, case: Case, outputs: dict[str, np.ndarray[Any, Any]]) -> None:
        """Note what a case took."""
        elapsed_s, size = time.perf_counter() - self._begun_at, _bytes(case.inputs) + _bytes(outputs)
        self.left_s -= elapsed_s
        self.left_bytes -= size
        elements = _elements(case)
        # The least of all: the first calls of a model are slow, and a small case says little about a large one.
        known = self._s_per_element
        self._s_per_element = min(known, elapsed_s / elements) if known else elapsed_s / elements
        self._bytes_per_element = max(self._bytes_per_element, size / elements)

    def lacks(self, case: Case) -> str:
        """Return what a case would need too much of, in words; empty where it fits."""
        elements = _elements(case)
        size, seconds = self._bytes_per_element * elements, self._s_per_element * elements
        if size > self.left_bytes:
            return (
                f"it would hold about {size / 1e9:.2g} GB, and {max(self.left_bytes, 0) / 1e9:.2g} GB were left for it"
            )
        if seconds > self.left_s:
            return f"it would take about {seconds:.0f} s, and {max(self.left_s, 0):.0f} s were left for it"
        return ""


def _elements(case: Case) -> int:
    return max(sum(array.size for array in case.inputs.values()), 1)


def _bytes(arrays: dict[str, np.ndarray[Any, Any]]) -> int:
    return sum(array.nbytes for array in arrays.values())
