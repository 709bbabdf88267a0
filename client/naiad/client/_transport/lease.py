"""A slot that one attempt has, and what becomes of it when the attempt ends."""

from __future__ import annotations

from typing import Final, Literal, Protocol, cast

from naiad.client._protocol import regions
from naiad.client._protocol.placing import Placeable, Placed
from naiad.client._transport.arena import Arena, Slot
from naiad.client._transport.memory import LARGE_BYTES, reuse_large_blocks
from naiad.client._transport.registry import Registry
from naiad.client._transport.seam import RpcFailed
from naiad.client.errors import CallContext, from_status

Next = Literal["raise", "place again", "send"]
"""What follows a failure: nothing, another slot, or the message with its tensors in it."""

# What Triton says before it runs a request.
_REFUSED: Final = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"})


class Carried(Protocol):
    """A request that may leave with its tensors elsewhere than in its message."""

    def wire(self) -> bytes:
        """Return what to send where they are in it."""
        ...


class Held(Protocol):
    """The memory that one attempt has."""

    @property
    def message(self) -> bytes:
        """What to send."""
        ...

    @property
    def num_bytes_out(self) -> int:
        """How much there may be to copy out."""
        ...

    def land(self, answer: bytes) -> bytes:
        """Read the answer, and give the memory back."""
        ...

    def failed(self, failure: RpcFailed) -> Next:
        """Give the memory back or up; return what to do next."""
        ...

    def abandon(self) -> None:
        """Give the memory up: its request may still run."""
        ...

    def abandon_later(self) -> None:
        """Give the memory up from a finalizer."""
        ...


class Lease:
    """A slot that one attempt has, and what becomes of it when the attempt ends."""

    __slots__ = ("_arena", "_message", "_placed", "_registry", "memory", "slot")

    def __init__(self, message: Placeable, slot: Slot, arena: Arena, registry: Registry[Slot]) -> None:
        self._message, self.slot, self._arena, self._registry = message, slot, arena, registry
        self.memory = slot.segment.memory
        self._placed: Placed | None = None

    def place(self) -> None:
        """Copy the tensors into the slot."""
        self._placed = self._message.place(self.slot.name, self.memory)

    @property
    def message(self) -> bytes:
        """What to send once the tensors are there."""
        assert self._placed is not None
        return self._placed.message

    @property
    def num_bytes_out(self) -> int:
        """How much there may be to copy out."""
        return self._message.room_bytes - len(self._message)

    def land(self, answer: bytes) -> bytes:
        """Read the answer, and give the slot back."""
        assert self._placed is not None
        if self.num_bytes_out >= LARGE_BYTES:
            reuse_large_blocks(self.num_bytes_out)
        landed = self._placed.land(answer)
        self._registry.used()
        self._arena.give_back(self.slot)
        return cast("bytes", landed)  # what reads answers takes it, too: Placing.reader

    def failed(self, failure: RpcFailed) -> Next:
        """Give the slot back or up; return what to do next."""
        if failure.status == "NOT_FOUND" and regions.UNKNOWN_REGION in failure.details:
            self._registry.lost(self.slot)
            self._arena.give_back(self.slot)
            return "place again"
        if has_ended(failure):
            self._arena.give_back(self.slot)
            return "raise"
        self.abandon()
        if regions.TOO_SMALL not in failure.details:
            return "raise"
        if self._message.repeatable:
            self._message.distrust()
            return "send"
        if self._message.has_buffers:
            raise RpcFailed("INVALID_ARGUMENT", failure.details) from failure
        self._message.distrust()
        return "raise"

    def return_unused(self) -> None:
        """Give the slot back: the request did not leave. Where the server takes none, nobody may want it: it goes."""
        if self._registry.off:
            self._arena.retire(self.slot)
        else:
            self._arena.give_back(self.slot)

    def abandon(self) -> None:
        """Give the slot up: its request may still run."""
        self._arena.retire(self.slot)

    def abandon_later(self) -> None:
        """Give the slot up from a finalizer."""
        self._arena.retire_later(self.slot)


def has_ended(failure: RpcFailed) -> bool:
    """Whether a request that failed like this is surely not read or answered by the server any more."""
    context = CallContext(endpoint="", method="")
    return failure.status in _REFUSED or from_status(failure.status, failure.details, context).unprocessed
