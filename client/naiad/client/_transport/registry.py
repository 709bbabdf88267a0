"""What one server knows of an arena's slots, and what there is to tell it.

Conversations with the server are generators: they yield the operations that somebody should carry out, and are sent the
answers or thrown the failures. So they are written once for threads and event loops.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

from naiad.client._protocol import operations, regions
from naiad.client._protocol.operations import Operation
from naiad.client._transport.seam import RpcFailed
from naiad.client._transport.segments import is_orphan
from naiad.client.metadata import ServerMetadata

T = TypeVar("T")
Talk = Generator[Operation[Any], Any, T]
"""A conversation: yields operations, receives their answers, returns what came of it."""

_log = logging.getLogger("naiad.client")
_FIRST_SAFE_VERSION: Final = (2, 50)
_NOBODY_ANSWERED: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})
_RESTRICTED: Final = "protocol is restricted"
_MOST_AT_ONCE: Final = 2  # a request gives up one slot at most: so the debts do not grow
_FIRST_S: Final = 0.02
_AGAIN_S: Final = 0.25
_MOST_LOSSES: Final = 3


class Registrable(Protocol):
    """What servers are told of."""

    @property
    def name(self) -> str:
        """What servers call it."""
        ...

    @property
    def size_bytes(self) -> int:
        """How much room it has."""
        ...

    @property
    def known_to(self) -> set[Registry[Any]]:
        """The servers that have it registered."""
        ...


S = TypeVar("S", bound=Registrable)
S_contra = TypeVar("S_contra", bound=Registrable, contravariant=True)


class Keeper(Protocol[S_contra]):
    """Whose slots they are."""

    def drop(self, slot: S_contra, /) -> None:
        """Note that no server knows a slot any more."""
        ...


class Registry(Generic[S]):
    """The registrations at one server. Threads share it without a lock: each slot is one request's at a time.

    Up to release 24.08, Triton (2.49) unmaps a region that is unregistered while a request still uses it, and dies of
    that. From 2.50 on such a region is refused ("it is currently in use"), from 2.53 on it goes with its last request.
    Older servers are therefore left alone: nobody can know when a request that was given up has ended.
    """

    extension: str = "system_shared_memory"
    """What a server's metadata must have."""

    def __init__(self, arena: Keeper[S], shown: str) -> None:
        self._arena = arena
        self._shown = shown
        self._listed: dict[str, S] = {}  # what it was told, also where the answer did not arrive
        self._known: set[str] = set()
        self._owed: dict[str, tuple[S, float]] = {}  # and when to try, in that order
        self._met = False
        self._meeting = False
        self._num_losses = 0
        self.off = False
        """Whether this server takes no shared memory from us."""
        self.why = ""
        """What it said, or did not."""

    @property
    def owing(self) -> bool:
        """Whether there are regions to unregister."""
        return bool(self._owed)

    @property
    def due(self) -> bool:
        """Whether the time has come to unregister one."""
        return bool(self._owed) and bool(self._ready(1))

    def knows(self, slot: S) -> bool:
        """Whether the server has the slot registered."""
        return slot.name in self._known

    def owe(self, slot: S) -> None:
        """Note that a slot is to be unregistered."""
        if self._listed.pop(slot.name, None) is not None:
            self._known.discard(slot.name)
            self._owed[slot.name] = slot, time.monotonic() + _FIRST_S

    def introduce(self, slot: S) -> Talk[bool]:
        """Register a slot; the first time, see whether the server takes it at all. Return whether it did."""
        if self.off or self._meeting:
            return False
        if self._met:
            return (yield from self._register(slot))
        self._meeting = True  # others use the connection meanwhile
        try:
            if (yield from self._meet()) and (yield from self._register(slot)):
                self._met = True
                yield from self._sweep()
            return self._met
        finally:
            self._meeting = False

    def owe_all(self) -> None:
        """Note that everything is to be unregistered."""
        for slot in list(self._listed.values()):
            self.owe(slot)

    def settle(self) -> Talk[bool]:
        """Unregister some of what is due; what is still in use stays owed. Return whether anybody answers."""
        return (yield from self._unregister(self._ready(_MOST_AT_ONCE)))

    def settle_all(self) -> Talk[bool]:
        """Unregister all that is owed now."""
        return (yield from self._unregister(list(self._owed)))

    def _ready(self, most: int) -> list[str]:
        now = time.monotonic()
        return [name for name, (_, at) in list(self._owed.items())[:most] if at <= now]

    def _unregister(self, names: list[str]) -> Talk[bool]:
        for name in names:
            try:
                yield from self._end(name)
            except RpcFailed as failure:
                if failure.status in _NOBODY_ANSWERED:
                    return False
                owed = self._owed.pop(name, None)
                if owed is not None:
                    self._owed[name] = owed[0], time.monotonic() + _AGAIN_S
            else:
                self._done(name)
        return True

    def lost(self, slot: S) -> None:
        """Note that the server does not know a slot any more: another one answers there, which knows none of ours.

        Other threads may have noticed that already, and registered theirs with it; so all stay listed. To unregister a
        name that a server does not know does no harm.
        """
        if slot.name in self._known:
            self._known.clear()
            self._num_losses += 1
            if self._num_losses >= _MOST_LOSSES:
                self._turn_off("regions that were registered are unknown again and again: do several servers answer?")

    def used(self) -> None:
        """Note that a request found its region."""
        self._num_losses = 0

    def _meet(self) -> Talk[bool]:
        try:
            metadata: ServerMetadata = yield operations.server_metadata()
        except RpcFailed as failure:
            self._refused(failure)
            return False
        if self.extension not in metadata.extensions:
            self._turn_off(f"it has no extension '{self.extension}'")
        elif metadata.name == "triton" and _version(metadata.version) < _FIRST_SAFE_VERSION:
            self._turn_off(f"Triton {metadata.version} dies when memory is unregistered that it still uses")
        return not self.off

    def _register(self, slot: S) -> Talk[bool]:
        self._listed[slot.name] = slot
        slot.known_to.add(self)
        try:
            yield self._registration(slot)
        except RpcFailed as failure:
            # The name is nobody else's: the same server was told so at another of its addresses. A second registration
            # of the same key under another name would make servers before 2026 use a descriptor that they have closed.
            if failure.status != "ALREADY_EXISTS":
                self._refused(failure)
                if self.off:
                    self._done(slot.name)
                return False
        self._known.add(slot.name)
        return True

    def _registration(self, slot: S) -> Operation[None]:
        return regions.register(slot.name, slot.size_bytes)

    def _end(self, name: str) -> Talk[None]:
        yield regions.unregister(name)

    def _sweep(self) -> Talk[None]:
        """Unregister what killed processes left behind; the server has just shown that it sees the files we see."""
        try:
            names: tuple[str, ...] = yield regions.registered()
        except RpcFailed:
            return
        num_removed = 0
        for name in filter(is_orphan, names):
            with suppress(RpcFailed):  # a request of the dead still runs: the next one who comes will do it
                yield regions.unregister(name)
                num_removed += 1
        if num_removed:
            _log.info("%s: unregistered %d regions of processes that are gone", self._shown, num_removed)

    def _done(self, name: str) -> None:
        self._known.discard(name)
        owed = self._owed.pop(name, None)
        slot = self._listed.pop(name, None) if owed is None else owed[0]
        if slot is not None:
            slot.known_to.discard(self)
            if not slot.known_to:
                self._arena.drop(slot)

    def _refused(self, failure: RpcFailed) -> None:
        if failure.status not in _NOBODY_ANSWERED or _RESTRICTED in failure.details:
            self._turn_off(failure.details)

    def _turn_off(self, why: str) -> None:
        self.off = True
        self.why = why
        _log.info("%s takes no shared memory, requests go over the connection: %s", self._shown, why)


def is_local(target: str) -> bool:
    """Whether a gRPC target names this machine: a loopback address, ``localhost`` or a Unix socket."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
