"""A transport that carries tensors through a GPU's memory where the server takes it, and all else as it is.

It stands before the transport of one server, as :mod:`naiad.client._transport.shm` does for the host's memory: a
message that is a :class:`DeviceRequest` gets slices of the client's regions and leaves as a short message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

from naiad.client._device.devices import Devices
from naiad.client._device.driver import DeviceError
from naiad.client._device.request import DeviceRequest
from naiad.client._transport.cuda_lease import CudaRegistry, DeviceLease
from naiad.client._transport.registry import Talk, is_local
from naiad.client._transport.seam import AsyncTransport, Connection, Headers, PendingCall, RpcFailed, Transport
from naiad.client._transport.shm import AsyncSharedTransport, SharedTransport, living, unregister
from naiad.client._transport.talk import converse, converse_async
from naiad.client.errors import Unsupported

_REGISTER_S: Final = 5.0  # the server may have to wake its GPU up


class _Base:
    """What the transports for threads and for event loops have in common: everything but waiting."""

    def __init__(self, inner: Any, connection: Connection, devices: Devices) -> None:
        self._inner = inner
        self._connection = connection
        self._devices = devices
        self._known = CudaRegistry(devices, connection.endpoint.shown)
        if devices.options.servers == "local" and not is_local(connection.endpoint.target):
            self._known.off = True
            self._known.why = "it is not on this machine (CudaMemory(servers='all') tries it all the same)"
        self._headers: Headers = ()
        self._closed = False
        devices.attach()
        living.add(self)

    def forget(self) -> None:
        """Let go without touching connection or GPU: they belong to the process that this one was forked from."""
        self._closed = True
        self._devices.forget()
        self._inner.forget()

    def leave(self) -> None:
        """Unregister everything; the last one frees what no tensor has."""
        if self._closed:
            return
        self._closed = True
        if self._devices.detach():
            self._devices.close()
        self._known.owe_all()
        if self._known.owing and not unregister(self._connection, self._known, self._headers):
            self._known.give_up()

    def _prepare(self, message: DeviceRequest, headers: Headers) -> Talk[DeviceLease | None]:
        """Find slices that the server knows; ``None`` is for requests that shall go by the host."""
        self._headers = headers
        if self._known.off:
            self._decline(self._known.why)
            return None
        try:
            arena = self._devices.arena
            parts = arena.lease(message.wanted)
            if parts is None and arena.retire_idle():
                yield from self._known.settle_all()
                parts = arena.lease(message.wanted)
        except DeviceError as exc:
            self._decline(str(exc))
            return None
        if parts is None:
            self._decline(self._devices.full(sum(size for _, size in message.wanted)), server=False)
            return None
        lease = DeviceLease(message, parts, arena, self._known)
        try:
            if (yield from self._inform(lease)):
                return lease
        except BaseException:
            lease.return_unused()
            raise
        lease.return_unused()
        if not self._known.off:
            raise RpcFailed("UNAVAILABLE", "nobody answered when CUDA memory was to be registered")
        self._decline(self._known.why)
        return None

    def _inform(self, lease: DeviceLease) -> Talk[bool]:
        if self._known.due:
            yield from self._known.settle()
        for region in lease.regions:
            if not self._known.knows(region) and not (yield from self._known.introduce(region)):
                return False
        return True

    def _decline(self, why: str, *, server: bool = True) -> None:
        """Go by the host, or raise :class:`Unsupported`."""
        if server:
            why = f"{self._connection.endpoint.shown}: {why}"
        if self._devices.options.fallback:
            self._devices.say_once(why)
            return
        advice = (
            "expected a server on this machine that takes CUDA shared memory, sees the same GPU under the same number "
            "(CUDA_VISIBLE_DEVICES; else CudaMemory.server_devices) and allows it to this client (the admin secret), "
            f"found {why}"
        )
        raise Unsupported(
            f"{advice if server else why}; cuda_memory='auto' goes by the host's memory instead",
            endpoint=self._connection.endpoint.shown,
        )


class CudaTransport(_Base, SharedTransport):
    """For threads; see :class:`~naiad.client._transport.seam.Transport`."""

    _inner: Transport

    def call(self, method: str, message: bytes, timeout_s: float, headers: Headers) -> bytes:
        """Send one message, return one; both may stand for what is on a GPU."""
        if not isinstance(message, DeviceRequest):
            return self._inner.call(method, message, timeout_s, headers)
        return self._call_placed(method, message, timeout_s, headers)

    def begin(self, method: str, message: bytes, timeout_s: float, headers: Headers) -> PendingCall:
        """Send one message without waiting for the answer, though until the server knows the slices."""
        if not isinstance(message, DeviceRequest):
            return self._inner.begin(method, message, timeout_s, headers)
        return self._begin_placed(method, message, timeout_s, headers)

    def _place(self, message: Any, deadline: float, headers: Headers) -> DeviceLease | None:
        if self._closed:
            return None
        until = min(deadline, time.monotonic() + _REGISTER_S)
        lease = converse(self._inner, self._prepare(message, headers), until, headers)
        if lease is not None:
            with _given_up(lease):
                lease.place()
                lease.wait()
        return lease


class AsyncCudaTransport(_Base, AsyncSharedTransport):
    """For an event loop; see :class:`~naiad.client._transport.seam.AsyncTransport`."""

    _inner: AsyncTransport

    def call(self, method: str, message: bytes, timeout_s: float, headers: Headers) -> Coroutine[Any, Any, bytes]:
        """Send one message, return one; both may stand for what is on a GPU."""
        if isinstance(message, DeviceRequest):
            return self._call(method, message, timeout_s, headers)
        return self._inner.call(method, message, timeout_s, headers)

    async def _place(self, message: Any, deadline: float, headers: Headers) -> DeviceLease | None:
        if self._closed:
            return None
        until = min(deadline, time.monotonic() + _REGISTER_S)
        lease = await converse_async(self._inner, self._prepare(message, headers), until, headers)
        if lease is not None:
            with _given_up(lease):
                lease.place()
                if not lease.ready:  # its producers still compute
                    await asyncio.to_thread(lease.wait)
        return lease


def over(connect: Callable[[Connection], Transport], devices: Devices | None) -> Callable[[Connection], Transport]:
    """Return what connects to one server after the other, with the GPUs of one client."""
    if devices is None:
        return connect
    return lambda connection: CudaTransport(connect(connection), connection, devices)


def async_over(
    connect: Callable[[Connection], AsyncTransport], devices: Devices | None
) -> Callable[[Connection], AsyncTransport]:
    """Return what connects to one server after the other, with the GPUs of one client."""
    if devices is None:
        return connect
    return lambda connection: AsyncCudaTransport(connect(connection), connection, devices)


@contextmanager
def _given_up(lease: DeviceLease) -> Iterator[None]:
    """Give slices up that may still be copied into."""
    try:
        yield
    except DeviceError as exc:
        lease.abandon()
        raise Unsupported(f"copying inputs on the GPU failed: {exc}") from exc
    except BaseException:
        lease.abandon()
        raise
