"""The arena: shared memory in slots, which are made once and lent to one request after the other.

What a server was told about a slot is kept in that server's :class:`~naiad.client._transport.registry.Registry`; the
arena knows files and sizes only. It never waits for a server.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

from naiad.client._transport.segments import DIRECTORY, Owner, Segment, sweep

if TYPE_CHECKING:
    from naiad.client._transport.registry import Registry

_log = logging.getLogger("naiad.client")
_SMALLEST: Final = 1 << 18
_IDLE_S: Final = 60.0
_RETIRED_S: Final = 60.0


class Slot:
    """A segment that is lent to one request at a time; ``known_to`` are the servers that have it registered."""

    __slots__ = ("known_to", "segment", "since")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.known_to: set[Registry[Slot]] = set()
        self.since = 0.0
        """When it was given back or retired, on the monotonic clock."""

    @property
    def name(self) -> str:
        """What servers call it, and its key for shm_open(3)."""
        return self.segment.name

    @property
    def size_bytes(self) -> int:
        """How much room it has."""
        return self.segment.size_bytes


class Arena:
    """The slots of one client, for all its servers; may be shared by threads.

    Args:
        max_bytes: what its slots have together at most, retired ones included.
        directory: where the files lie; servers see those in ``/dev/shm`` only.
    """

    def __init__(self, max_bytes: int, directory: Path = DIRECTORY) -> None:
        self._max_bytes = max_bytes
        self._directory = directory
        self._num_users = 0
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._owner: Owner | None = None
        self._free: list[Slot] = []  # the longest unused first
        self._lent: set[Slot] = set()
        self._retired: set[Slot] = set()
        self._dropped: deque[Slot] = deque()
        self._being_made_bytes = 0
        self._broken = False
        self._said_full = False

    @property
    def size_bytes(self) -> int:
        """What all slots have together, retired ones included."""
        slots = (*self._free, *self._lent, *self._retired)
        return self._being_made_bytes + sum(slot.size_bytes for slot in slots)

    def attach(self) -> None:
        """Count a user: the connection to one server."""
        with self._lock:
            self._num_users += 1

    def detach(self) -> None:
        """Count one user less; with the last one, all files are removed."""
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0:
                self._remove_files()

    def lease(self, size_bytes: int) -> Slot | None:
        """Return a slot with that much room, for the caller alone; ``None`` if there is none to be had now."""
        with self._lock:
            self._grow_old(time.monotonic())
            slot = self._take(size_bytes)
            if slot is not None:
                return slot
            size_bytes = slot_size(size_bytes)
            owner = self._make_room(size_bytes)
            if owner is None:
                return None
            self._being_made_bytes += size_bytes
        made: Slot | None = None
        try:
            made = Slot(owner.segment(size_bytes))  # the kernel clears the memory meanwhile, which takes its time
        except OSError as exc:
            if not self._said_full:
                _log.info("no shared memory of %d bytes, such requests go over the connection: %s", size_bytes, exc)
            self._said_full = True
        with self._lock:
            self._being_made_bytes -= size_bytes
            if made is not None:
                self._said_full = False
                self._lent.add(made)
                if self._owner is not owner:  # closed meanwhile
                    made.segment.unlink()
        return made

    def give_back(self, slot: Slot) -> None:
        """Let others have the slot: the caller is sure that no server reads or writes it any more."""
        with self._lock:
            if slot in self._lent:
                self._lent.remove(slot)
                slot.since = time.monotonic()
                self._free.append(slot)

    def retire(self, slot: Slot) -> None:
        """Never lend the slot again: a server may still use it. It counts until the servers have unregistered it."""
        with self._lock:
            self._retire(slot)

    def retire_later(self, slot: Slot) -> None:
        """Retire the slot with the next lease: for finalizers, which may run while this very thread has the lock."""
        self._dropped.append(slot)

    def drop(self, slot: Slot) -> None:
        """Stop counting a slot that no server knows any more."""
        with self._lock:
            self._retired.discard(slot)

    def remove_files(self) -> None:
        """Remove all names from the file system; what is lent stays usable by those who have it."""
        with self._lock:
            self._remove_files()

    def forget(self) -> None:
        """Count one user less in a forked process, and let go of the slots that are the parent's."""
        if self._process != os.getpid():
            owner, slots = self._owner, (*self._free, *self._lent)
            self._begin()
            for slot in slots:
                slot.segment.let_go()
            if owner is not None:
                owner.forget()
        self._num_users -= 1

    def _take(self, size_bytes: int) -> Slot | None:
        most = 2 * slot_size(size_bytes)  # a small request should not keep a big one waiting
        for at in range(len(self._free) - 1, -1, -1):  # the latest first: its memory is warm, and the others grow old
            if size_bytes <= self._free[at].size_bytes <= most:
                slot = self._free.pop(at)
                self._lent.add(slot)
                return slot
        return None

    def _make_room(self, size_bytes: int) -> Owner | None:
        """Return who will own a new slot of that size, ``None`` if there is to be none."""
        if self._broken or size_bytes > self._max_bytes:
            return None
        while self.size_bytes + size_bytes > self._max_bytes:
            if not self._free:
                return None
            self._discard(self._free.pop(0))
        if self._owner is None:
            try:
                _sweep_once(self._directory)
                self._owner = Owner(self._directory)
            except OSError as exc:
                _log.info("no shared memory, requests go over the connection: %s", exc)
                self._broken = True
        return self._owner

    def _retire(self, slot: Slot) -> None:
        if slot in self._lent:
            self._lent.remove(slot)
            self._discard(slot)

    def _grow_old(self, now: float) -> None:
        while self._dropped:
            self._retire(self._dropped.popleft())
        while self._free and now - self._free[0].since > _IDLE_S:
            self._discard(self._free.pop(0))
        # What servers did not unregister within a minute does not count any more: they are gone, or stuck with it.
        self._retired -= {slot for slot in self._retired if now - slot.since > _RETIRED_S}

    def _discard(self, slot: Slot) -> None:
        slot.segment.unlink()
        slot.segment.let_go()
        slot.since = time.monotonic()
        if slot.known_to:
            self._retired.add(slot)
            for registry in list(slot.known_to):
                registry.owe(slot)

    def _remove_files(self) -> None:
        slots = (*self._free, *self._lent)
        self._free.clear()
        self._lent.clear()
        for slot in slots:
            self._discard(slot)
        if self._owner is not None:
            self._owner.close()
            self._owner = None


def slot_size(size_bytes: int) -> int:
    """Round up to one of four sizes between a power of two and the next, so that slots fit other requests as well."""
    if size_bytes <= _SMALLEST:
        return _SMALLEST
    step = 1 << (size_bytes - 1).bit_length() - 3
    return -(-size_bytes // step) * step


_swept: set[Path] = set()


def _sweep_once(directory: Path) -> None:
    """Remove what killed processes left behind, at the first arena of this process."""
    if directory not in _swept:
        _swept.add(directory)
        num_removed = sweep(directory)
        if num_removed:
            _log.info("removed %d shared-memory segments of processes that are gone", num_removed)
