"""What one server knows of a client's regions of GPU memory, and the slices of them that one attempt has."""

from __future__ import annotations

from typing import Final, cast

from naiad.client._device.arena import DeviceArena
from naiad.client._device.devices import Devices
from naiad.client._device.region import Region, Slice
from naiad.client._device.request import DeviceRequest
from naiad.client._protocol import regions
from naiad.client._protocol.operations import Operation
from naiad.client._transport.lease import Next, has_ended
from naiad.client._transport.registry import Registry, Talk
from naiad.client._transport.seam import RpcFailed

_STILL_LISTED: Final = "in use by requests that are under way"


class CudaRegistry(Registry[Region]):
    """The regions that one server knows. Several requests share a region, so any of them may tell the server."""

    extension = "cuda_shared_memory"

    def __init__(self, devices: Devices, shown: str) -> None:
        super().__init__(_Keeper(), shown)
        self._numbers = devices.options.server_devices
        self.epoch = 0
        """Changes when the server is found to have lost its regions."""

    def introduce(self, slot: Region) -> Talk[bool]:
        """Register a region; the first time, see whether the server takes any at all. Return whether it did."""
        if self.off:
            return False
        if not self._met:
            if not (yield from self._meet()):
                return False
            self._met = True
        return (yield from self._register(slot))

    def lost_since(self, epoch: int, slot: Region) -> None:
        """Note that the server did not know a region any more, if nobody has noticed since ``epoch``."""
        if epoch == self.epoch:
            self.epoch += 1
            self.lost(slot)

    def give_up(self) -> None:
        """Count everything as unregistered: the server is gone."""
        for name in list(self._owed):
            self._done(name)

    def _turn_off(self, why: str) -> None:
        """Without a word: the request that is concerned raises an error, or says that it goes by the host."""
        self.off = True
        self.why = why

    def _registration(self, slot: Region) -> Operation[None]:
        device = self._numbers.get(slot.device, slot.device)
        return regions.register_cuda(slot.name, slot.handle, device, slot.size_bytes)

    def _end(self, name: str) -> Talk[None]:
        """Unregister a region. The server has closed it, so that it may be freed, when it does not list it any more."""
        yield regions.unregister_cuda(name)
        if name in (yield regions.registered_cuda()):
            raise RpcFailed("FAILED_PRECONDITION", _STILL_LISTED)


class _Keeper:
    """Tells regions' own arenas: a client may have had several, one after the other."""

    def drop(self, slot: Region, /) -> None:
        slot.arena.drop(slot)


class DeviceLease:
    """The slices that one attempt has, and what becomes of them when the attempt ends."""

    __slots__ = ("_arena", "_epoch", "_parts", "_registry", "_request", "message")

    def __init__(self, request: DeviceRequest, parts: list[Slice], arena: DeviceArena, registry: CudaRegistry) -> None:
        self._request, self._parts, self._arena, self._registry = request, parts, arena, registry
        self._epoch = registry.epoch
        self.message = b""

    @property
    def regions(self) -> set[Region]:
        """What the server must know."""
        return {part.region for part in self._parts}

    @property
    def ready(self) -> bool:
        """Whether the inputs are where the server expects them."""
        return self._request.ready

    @property
    def num_bytes_out(self) -> int:
        """How much there may be to copy out."""
        return self._request.num_bytes_copied_out

    def place(self) -> None:
        """Begin to copy the tensors into the slices."""
        self._epoch = self._registry.epoch
        self.message = self._request.place(self._parts)

    def wait(self) -> None:
        """Return when they are there."""
        self._request.wait()

    def land(self, answer: bytes) -> bytes:
        """Read the answer, and give back what its tensors do not need."""
        landed, kept = self._request.land(answer, self._parts)
        self._registry.used()
        parts, self._parts = [part for part in self._parts if part not in kept], []
        self._arena.give_back(parts)
        return cast("bytes", landed)

    def failed(self, failure: RpcFailed) -> Next:
        """Give the slices back or up; return what to do next."""
        if failure.status == "NOT_FOUND" and regions.UNKNOWN_REGION in failure.details:
            for region in self.regions:
                self._registry.lost_since(self._epoch, region)
            self.return_unused()
            return "place again"
        if has_ended(failure):
            self.return_unused()
            return "raise"
        self.abandon()
        if regions.TOO_SMALL in failure.details:
            self._request.distrust()
            if self._request.repeatable:
                return "send"
        return "raise"

    def return_unused(self) -> None:
        """Give the slices back: the server does not use them."""
        parts, self._parts = self._parts, []
        self._arena.give_back(parts)

    def abandon(self) -> None:
        """Give the slices up: the request may still run."""
        parts, self._parts = self._parts, []
        self._arena.retire(parts)

    def abandon_later(self) -> None:
        """Give the slices up from a finalizer."""
        parts, self._parts = self._parts, []
        self._arena.retire_later(parts)
