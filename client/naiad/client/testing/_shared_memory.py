"""System shared memory: regions under /dev/shm that a client made, mapped as Triton maps them."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

from naiad.client.testing._status import Refusal, invalid

_DIRECTORY = Path("/dev/shm")  # noqa: S108  (where shm_open puts its files)

Place = tuple[str, int, int]
"""Region, offset and size in bytes."""


class Region(NamedTuple):
    """A registered region."""

    name: str
    key: str
    offset: int
    size_bytes: int
    memory: mmap.mmap


class SharedMemory:
    """The regions that clients registered."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()

    def register(self, name: str, key: str, offset: int, size_bytes: int) -> None:
        """Map a region.

        Raises:
            Refusal: the name is taken, or there is no such memory.
        """
        with self._lock:
            if name in self._regions:
                raise Refusal(f"shared memory region '{name}' already in manager", "ALREADY_EXISTS")
            # Triton 2.51 closes the file of a key once it is mapped, and cannot map the same key again.
            if any(region.key == key for region in self._regions.values()):
                raise Refusal(f"Invalid shared memory region: '{key}'", "INTERNAL")
            self._regions[name] = Region(name, key, offset, size_bytes, _mapped(name, key, offset, size_bytes))

    def unregister(self, name: str) -> None:
        """Forget a region, or all of them with an empty name."""
        with self._lock:
            for known in [name] if name else list(self._regions):
                region = self._regions.pop(known, None)
                if region is not None:
                    region.memory.close()

    def status(self, name: str) -> list[Region]:
        """Return the region of that name, or all of them.

        Raises:
            Refusal: there is no such region.
        """
        with self._lock:
            if name and name not in self._regions:
                raise Refusal(f"Unable to find system shared memory region: '{name}'", "NOT_FOUND")
            return [self._regions[name]] if name else sorted(self._regions.values())

    def place(self, tensor: Any) -> Place | None:
        """Return where a tensor's bytes are, or shall go; ``None`` for in the message.

        Raises:
            Refusal: the parameters contradict each other.
        """
        given = {key: entry for key, entry in tensor.parameters.items() if key.startswith("shared_memory_")}
        for key, kind in (
            ("shared_memory_region", "string_param"),
            ("shared_memory_offset", "int64_param"),
            ("shared_memory_byte_size", "int64_param"),
        ):
            if key in given and given[key].WhichOneof("parameter_choice") != kind:
                raise invalid(f"invalid value type for '{key}' parameter for tensor '{tensor.name}', expected {kind}.")
        if "shared_memory_region" not in given:
            for key in given:
                raise invalid(
                    f"'{key}' can not be specified without 'shared_memory_region' parameter for tensor '{tensor.name}'"
                )
            return None
        if "shared_memory_byte_size" not in given:
            raise invalid(
                "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor "
                f"'{tensor.name}'"
            )
        offset = given["shared_memory_offset"].int64_param if "shared_memory_offset" in given else 0
        place = (given["shared_memory_region"].string_param, offset, given["shared_memory_byte_size"].int64_param)
        with self._lock:
            self._check(*place)
        return place

    def read(self, name: str, offset: int, size_bytes: int) -> bytes:
        """Copy bytes out of a region."""
        with self._lock:
            region = self._check(name, offset, size_bytes)
            start = region.offset + offset
            return region.memory[start : start + size_bytes]

    def write(self, output: str, data: bytes, name: str, offset: int, size_bytes: int) -> bytes:
        """Copy an output into a region, and return what is left for the message: nothing."""
        if len(data) > size_bytes:
            raise Refusal(
                f"shared memory size specified with the request for output '{output}' ({size_bytes} bytes) should be "
                f"at least {len(data)} bytes to hold the results",
                "INTERNAL",
            )
        with self._lock:
            region = self._check(name, offset, size_bytes)
            start = region.offset + offset
            region.memory[start : start + len(data)] = data
        return b""

    def _check(self, name: str, offset: int, size_bytes: int) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise Refusal(f"Unable to find shared memory region: '{name}'", "NOT_FOUND")
        if not 0 <= offset < region.size_bytes:
            raise invalid(f"Invalid offset for shared memory region: '{name}'")
        if not 0 < size_bytes <= region.size_bytes - offset:
            raise invalid(f"Invalid offset + byte size for shared memory region: '{name}'")
        return region


def _mapped(region: str, key: str, offset: int, size_bytes: int) -> mmap.mmap:
    name = key.removeprefix("/")
    missing = Refusal(f"Unable to open shared memory region: '{key}'", "INTERNAL")
    if not name or "/" in name or name in {".", ".."}:
        raise missing
    try:
        file = os.open(_DIRECTORY / name, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise missing from exc
    try:
        if offset + size_bytes > os.fstat(file).st_size:
            raise invalid(f"failed to register shared memory region '{region}': invalid args")
        if size_bytes < 1 or offset % mmap.PAGESIZE:
            raise invalid(
                f"failed to register shared memory region '{region}': unable to process address spaceInvalid argument"
            )
        return mmap.mmap(file, offset + size_bytes)
    finally:
        os.close(file)
