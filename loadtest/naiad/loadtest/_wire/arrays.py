"""Memory for large answers, used again when nobody looks at them any more: fresh memory costs as much as receiving."""

from __future__ import annotations

import sys
from collections import deque
from typing import Final

__all__ = ["Arrays"]

_MAX_KEPT_BYTES: Final = 64 << 20
_UNUSED: Final = 3
"""References to an array that only :class:`Arrays` has: its queue, a variable, and the argument of the count."""


class Arrays:
    """Arrays that were handed out."""

    def __init__(self) -> None:
        self._kept: deque[bytearray] = deque()
        self._kept_bytes = 0

    def take(self, size: int) -> bytearray:
        """Return an array of ``size`` bytes with any content."""
        for _ in range(len(self._kept)):
            array = self._kept.popleft()
            self._kept.append(array)
            if len(array) == size and sys.getrefcount(array) <= _UNUSED:
                return array
        return bytearray(size)

    def keep(self, array: bytearray) -> None:
        """Remember an array that is handed out now, for when it comes back."""
        if any(array is kept for kept in self._kept):
            return
        self._kept.append(array)
        self._kept_bytes += len(array)
        while self._kept_bytes > _MAX_KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft())
