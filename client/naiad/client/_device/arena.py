"""The GPU memory of one client: regions that grow in number, slices that are lent to requests and to their outputs.

Nothing here asks a server. CUDA is never touched from a finalizer, nor in a process that was forked from the one that
made the arena; regions are freed when no server knows them any more and no slice of them is lent.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from naiad.client._device.driver import DeviceError, Driver
from naiad.client._device.region import Region, Slice, aligned

_log = logging.getLogger("naiad.client")
_GRAIN: Final = 2 << 20  # of cudaMalloc: a smaller allocation would share its pages, and with them its IPC handle


class DeviceArena:
    """The regions of one client, for all its servers and GPUs; may be shared by threads.

    Args:
        driver: CUDA.
        max_bytes: what the regions have together at most, on all GPUs.
        region_bytes: how large a region is at least.
    """

    def __init__(self, driver: Driver, max_bytes: int, region_bytes: int) -> None:
        self._driver = driver
        self._max_bytes = max_bytes
        self._region_bytes = region_bytes
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._regions: list[Region] = []
        self._released: deque[Slice] = deque()
        self._given_up: deque[Slice] = deque()
        self._exported: list[Slice] = []  # released, but the GPU may still have work with them queued
        self._closed = False

    @property
    def size_bytes(self) -> int:
        """What all regions have together, retired ones included."""
        return sum(region.size_bytes for region in self._regions)

    @property
    def regions(self) -> tuple[Region, ...]:
        """All regions, retired ones included."""
        return tuple(self._regions)

    def lease(self, wanted: Sequence[tuple[int, int]]) -> list[Slice] | None:
        """Return a slice for each pair of a GPU and a size in bytes, or ``None`` where there is no room for all.

        Raises:
            DeviceError: the GPU has not that much memory, or does not exist.
        """
        with self._lock:
            self._collect()
            taken = list[Slice]()
            try:
                for device, size_bytes in wanted:
                    part = self._take(device, aligned(max(size_bytes, 1)))
                    if part is None:
                        break
                    taken.append(part)
            except BaseException:
                self._put_back(taken)
                raise
            if len(taken) == len(wanted):
                return taken
            self._put_back(taken)
            return None

    def give_back(self, parts: Sequence[Slice]) -> None:
        """Let others have slices: the caller is sure that nobody reads or writes them any more."""
        with self._lock:
            self._put_back(parts)

    def retire(self, parts: Sequence[Slice]) -> None:
        """Never lend these slices, nor others of their regions, again: a server may still use them."""
        with self._lock:
            self._give_up(parts)

    def retire_later(self, parts: Sequence[Slice]) -> None:
        """Retire slices with the next lease: for finalizers."""
        self._given_up.extend(parts)

    def retire_idle(self) -> bool:
        """Retire the regions of which nothing is lent, to make room for larger ones; return whether there are any."""
        with self._lock:
            idle = [region for region in self._regions if not region.num_lent and not region.retired]
            for region in idle:
                self._retire(region)
            self._free_unused()
            return bool(idle)

    def release_later(self, part: Slice) -> None:
        """Give a tensor's slice back with the next lease: for finalizers, which may run while their thread leases."""
        self._released.append(part)
        if self._closed and os.getpid() == self._process and self._lock.acquire(blocking=False):
            try:  # there is no next lease
                self._collect()
            finally:
                self._lock.release()

    def drop(self, region: Region) -> None:
        """Note that no server knows a region any more."""
        with self._lock:
            self._free_unused()

    def close(self) -> None:
        """Retire everything; what no server knows and no tensor has is freed now."""
        with self._lock:
            self._closed = True
            self._collect()
            for region in self._regions:
                self._retire(region)
            self._free_unused()

    def _take(self, device: int, size_bytes: int) -> Slice | None:
        part = self._find(device, size_bytes)
        if part is None and self._reclaim(device):
            part = self._find(device, size_bytes)
        if part is None:
            region_bytes = -(-max(size_bytes, self._region_bytes) // _GRAIN) * _GRAIN
            room = self._max_bytes - self.size_bytes
            if self._closed or size_bytes > room:
                return None
            part = self._grow(device, min(region_bytes, room)).take(size_bytes)
        return part

    def _find(self, device: int, size_bytes: int) -> Slice | None:
        for region in self._regions:
            if region.device == device and not region.retired:
                part = region.take(size_bytes)
                if part is not None:
                    return part
        return None

    def _grow(self, device: int, size_bytes: int) -> Region:
        with self._driver.using(device):
            address = self._driver.allocate(size_bytes)
            try:
                region = Region(self, device, address, size_bytes, self._driver.handle(address))
            except BaseException:
                self._driver.free(address)
                raise
        self._regions.append(region)
        return region

    def _reclaim(self, device: int) -> bool:
        """Take exported slices back once the GPU has done all that was queued with them."""
        ours = [part for part in self._exported if part.region.device == device]
        if ours:
            with self._driver.using(device):
                self._driver.synchronize()
            self._exported = [part for part in self._exported if part.region.device != device]
            self._put_back(ours)
        return bool(ours)

    def _give_up(self, parts: Sequence[Slice]) -> None:
        for part in parts:
            part.region.num_lent -= 1
            self._retire(part.region)
        self._free_unused()

    def _collect(self) -> None:
        while self._given_up:
            self._give_up([self._given_up.popleft()])
        while self._released:
            part = self._released.popleft()
            if part.exported and not part.region.retired:
                self._exported.append(part)
            else:
                self._put_back([part])

    def _put_back(self, parts: Sequence[Slice]) -> None:
        for part in parts:
            part.region.put_back(part)
        if any(part.region.retired for part in parts):
            self._free_unused()

    def _retire(self, region: Region) -> None:
        region.retired = True
        for part in [part for part in self._exported if part.region is region]:
            self._exported.remove(part)
            region.put_back(part)  # cudaFree waits for what is queued
        for registry in list(region.known_to):
            registry.owe(region)

    def _free_unused(self) -> None:
        for region in list(self._regions):
            if region.retired and not region.num_lent and not region.known_to:
                self._regions.remove(region)
                try:
                    with self._driver.using(region.device):
                        self._driver.free(region.address)
                except DeviceError as exc:
                    _log.info("%d bytes of GPU memory could not be freed: %s", region.size_bytes, exc)
