"""Keeps the memory of large messages in the process from one call to the next.

glibc's malloc maps a block above its threshold (128 KiB at first) freshly from the kernel and returns it when it
is freed,
so that every large message costs a page fault for each 4 KiB of every copy: more than all the copying. The threshold
follows the largest mapped block that was ever freed, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD, "dynamic"):
freeing one
such block, which is never written to and so costs nothing, lets the process reuse up to 64 MiB instead. Other
allocators
are not affected.
"""

from __future__ import annotations

from functools import cache

import numpy as np

LARGE_BYTES = 1 << 20
_JUST_BELOW_THE_LIMIT = 31 << 20


@cache  # once in the life of the process
def reuse_large_blocks() -> None:
    """Make malloc keep what large messages free."""
    np.empty(_JUST_BELOW_THE_LIMIT, np.uint8)
