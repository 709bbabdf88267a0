"""Keeps the memory of large messages in the process from one call to the next.

glibc's malloc maps a block above its threshold (128 KiB at first) freshly from the kernel and returns it when it is
freed, and returns the end of its heap when 128 KiB there are free: every large message costs a page fault for each
4 KiB of every copy, more than all the copying, and so do several of 64 KiB at a time. Two remedies, for the rest of the
process's life:

* The threshold follows the largest mapped block that was ever freed, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD,
  "dynamic"), and the end of the heap that is kept is twice as large: freeing one such block, which is never written to
  and so costs nothing, lets the process reuse up to 62 MiB. No setting is changed.
* Larger messages need the setting itself. It is changed with the first of them, and bounded: up to 256 MiB of what was
  freed stay. A process whose environment says something about malloc is left alone.

Other allocators are not affected, nor are other threads than the main one above 32 MiB: their heaps end at 64 MiB.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Final

import numpy as np

LARGE_BYTES: Final = 1 << 15
_JUST_BELOW_THE_LIMIT: Final = 31 << 20
_REUSED_BYTES: Final = 128 << 20
_KEPT_BYTES: Final = 2 * _REUSED_BYTES
_SETTINGS: Final = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3


def reuse_large_blocks(size_bytes: int) -> None:
    """Make malloc keep what messages of that size free."""
    if size_bytes < _JUST_BELOW_THE_LIMIT:
        _free_a_large_block()
    else:
        _raise_the_limit()


@cache  # once in the life of the process
def _free_a_large_block() -> None:
    np.empty(_JUST_BELOW_THE_LIMIT, np.uint8)


@cache
def _raise_the_limit() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name in os.environ for name in _SETTINGS):
        return
    mallopt(_M_MMAP_THRESHOLD, _REUSED_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
