"""A piece of GPU memory that servers know as a whole, and the slices that it is lent in."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from naiad.client._device.arena import DeviceArena
    from naiad.client._transport.registry import Registry

ALIGNMENT: Final = 256  # what cudaMalloc gives, and kernels expect


class Slice:
    """A part of a region, for one request or one tensor at a time."""

    __slots__ = ("exported", "offset", "region", "size_bytes")

    def __init__(self, region: Region, offset: int, size_bytes: int) -> None:
        self.region: Region = region
        self.offset: int = offset
        self.size_bytes: int = size_bytes
        self.exported: bool = False
        """Whether others had its address: the GPU may have work with it queued when they have let go of it."""

    @property
    def address(self) -> int:
        """Where it is in the GPU's memory."""
        return self.region.address + self.offset


class Region:
    """One allocation; ``known_to`` are the servers that have it registered. Not for several threads at a time."""

    __slots__ = (
        "_gaps",
        "address",
        "arena",
        "device",
        "handle",
        "known_to",
        "name",
        "num_lent",
        "retired",
        "size_bytes",
    )

    def __init__(self, arena: DeviceArena, device: int, address: int, size_bytes: int, handle: bytes) -> None:
        self.arena: DeviceArena = arena
        self.name: str = f"naiad-client-cuda-{secrets.token_hex(8)}"
        self.device: int = device
        self.address: int = address
        self.size_bytes: int = size_bytes
        self.handle: bytes = handle
        self.known_to: set[Registry[Region]] = set()
        self.num_lent: int = 0
        self.retired: bool = False
        """Whether it gives no slices any more."""
        self._gaps = [(0, size_bytes)]  # by offset; never two that touch

    def take(self, size_bytes: int) -> Slice | None:
        """Return a slice of that size, a multiple of the alignment; ``None`` if there is no gap of that size."""
        for at, (offset, gap_bytes) in enumerate(self._gaps):
            if gap_bytes >= size_bytes:
                rest = (offset + size_bytes, gap_bytes - size_bytes)
                self._gaps[at : at + 1] = [rest] if rest[1] else []
                self.num_lent += 1
                return Slice(self, offset, size_bytes)
        return None

    def put_back(self, part: Slice) -> None:
        """Make a slice part of the gaps again."""
        self.num_lent -= 1
        gaps, merged = sorted([*self._gaps, (part.offset, part.size_bytes)]), list[tuple[int, int]]()
        for offset, size in gaps:
            if merged and sum(merged[-1]) == offset:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((offset, size))
        self._gaps = merged


def aligned(size_bytes: int) -> int:
    """Round up to a multiple of the alignment."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT
