"""A transport that carries large tensors through shared memory where the server takes it, and all else as it is.

It stands before the transport of one server. A message that is :class:`Placeable` gets a slot of the arena and leaves
as a short message that refers to it; without a slot, it leaves with its tensors in it. A slot whose request failed in
a way that may have left it running is never used again.
"""

from __future__ import annotations

import asyncio
import atexit
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar, cast
from weakref import WeakSet, finalize

from naiad.client._protocol.placing import Placeable
from naiad.client._transport.arena import Arena
from naiad.client._transport.grpcio import AsyncGrpcioTransport, GrpcioTransport
from naiad.client._transport.lease import Carried, Held, Lease, Next
from naiad.client._transport.registry import Registry, Talk, is_local
from naiad.client._transport.seam import (
    AsyncStreamCall,
    AsyncTransport,
    Connection,
    Headers,
    PendingCall,
    RpcFailed,
    StreamCall,
    Transport,
)
from naiad.client._transport.talk import converse, converse_async, left_s
from naiad.client.options import SharedMemory

T = TypeVar("T")
_REGISTER_S: Final = 1.0
_LEAVE_S: Final = 1.0
_ATTEMPTS: Final = 2  # the second where the server had lost its regions
_STILL_IN_USE_S: Final = 0.02
_LONG_COPY_BYTES: Final = 4 << 20


class Leaving(Protocol):
    """A transport that has told its server something."""

    def leave(self) -> None:
        """Take it back."""
        ...


class _Base:
    """What the transports for threads and for event loops have in common: everything but waiting."""

    def __init__(self, inner: Any, connection: Connection, arena: Arena, *, everywhere: bool) -> None:
        self._inner = inner
        self._connection = connection
        self._arena = arena
        self._registry = Registry(arena, connection.endpoint.shown)
        self._registry.off = not (everywhere or is_local(connection.endpoint.target))
        self._headers: Headers = ()
        self._closed = False
        arena.attach()
        living.add(self)

    def forget(self) -> None:
        """Let go without touching connection or slots: they belong to the process that this one was forked from."""
        self._closed = True
        self._arena.forget()
        self._inner.forget()

    def leave(self) -> None:
        """Unregister everything, and remove the files if nobody else uses the arena."""
        if not self._closed:
            self._closed = True
            self._arena.detach()
            self._registry.owe_all()
            if self._registry.owing:
                unregister(self._connection, self._registry, self._headers)

    def _lease(self, message: Placeable, headers: Headers) -> Lease | None:
        if self._registry.off or self._closed:
            return None
        slot = self._arena.lease(message.room_bytes)
        if slot is None:
            return None
        self._headers = headers
        lease = Lease(message, slot, self._arena, self._registry)
        return lease if lease.memory else None  # it is gone where the arena was closed just then

    def _tell(self, lease: Lease) -> Talk[bool]:
        """Tell the server what it must know before the request; return whether it takes it."""
        if self._registry.due:
            yield from self._registry.settle()
        return self._registry.knows(lease.slot) or (yield from self._registry.introduce(lease.slot))


class SharedTransport(_Base):
    """For threads; see :class:`~naiad.client._transport.seam.Transport`."""

    _inner: Transport

    def call(self, method: str, message: bytes, timeout_s: float, headers: Headers) -> bytes:
        """Send one message, return one; both may stand for what is in shared memory."""
        if not isinstance(message, Placeable):
            return self._inner.call(method, message, timeout_s, headers)
        return self._call_placed(method, message, timeout_s, headers)

    def _call_placed(self, method: str, message: Carried, timeout_s: float, headers: Headers) -> bytes:
        deadline = time.monotonic() + timeout_s
        for _ in range(_ATTEMPTS):
            lease = self._place(message, deadline, headers)
            if lease is None:
                break
            try:
                return lease.land(self._inner.call(method, lease.message, left_s(deadline), headers))
            except RpcFailed as failure:
                following = lease.failed(failure)
                if following == "raise":
                    raise
                if following == "send":
                    break
            except BaseException:
                lease.abandon()
                raise
        return self._inner.call(method, message.wire(), left_s(deadline), headers)

    def begin(self, method: str, message: bytes, timeout_s: float, headers: Headers) -> PendingCall:
        """Send one message without waiting for the answer, though until the server knows the slot."""
        if not isinstance(message, Placeable):
            return self._inner.begin(method, message, timeout_s, headers)
        return self._begin_placed(method, message, timeout_s, headers)

    def _begin_placed(self, method: str, message: Carried, timeout_s: float, headers: Headers) -> PendingCall:
        deadline = time.monotonic() + timeout_s
        lease = self._place(message, deadline, headers)
        if lease is None:
            return self._inner.begin(method, message.wire(), left_s(deadline), headers)
        try:
            call = self._inner.begin(method, lease.message, left_s(deadline), headers)
        except BaseException:
            lease.abandon()
            raise

        def again(following: Next) -> bytes:
            whole = cast("bytes", message) if following == "place again" else message.wire()
            return self.call(method, whole, left_s(deadline), headers)

        return SharedCall(call, lease, again)

    def stream(self, method: str, messages: Iterable[bytes], timeout_s: float | None, headers: Headers) -> StreamCall:
        """Open a stream; its messages carry their tensors."""
        return self._inner.stream(method, messages, timeout_s, headers)

    def close(self) -> None:
        """Close the connection, then unregister; what was under way is waited for a moment at most."""
        self._inner.close()
        self.leave()

    def _place(self, message: Any, deadline: float, headers: Headers) -> Held | None:
        """Put the request into a slot that the server knows, if there is any."""
        lease = self._lease(message, headers)
        if lease is None:
            return None
        try:
            if not self._registry.knows(lease.slot) or self._registry.due:
                until = min(deadline, time.monotonic() + _REGISTER_S)
                if not converse(self._inner, self._tell(lease), until, headers):
                    lease.return_unused()
                    return None
            lease.place()
        except BaseException:
            lease.return_unused()
            raise
        return lease


class SharedCall:
    """A call that is under way, with its tensors in a slot."""

    def __init__(self, call: PendingCall, lease: Held, again: Callable[[Next], bytes]) -> None:
        self._call = call
        self._lease = lease
        self._again = again
        self._answer: bytes | None = None
        self._unread = finalize(self, lease.abandon_later)  # nobody asked for the answer: nobody knows when it came
        self._unread.atexit = False

    def result(self) -> bytes:
        """Wait for the answer, and read it out of the slot."""
        if self._answer is None:
            try:
                self._answer = self._lease.land(self._call.result())
            except RpcFailed as failure:
                following = self._lease.failed(failure)
                if following == "raise":
                    raise
                self._answer = self._again(following)
            except BaseException:
                self._lease.abandon()
                raise
            self._unread.detach()
        return self._answer

    def done(self) -> bool:
        """Whether ``result()`` returns or raises at once."""
        return self._call.done()

    def cancel(self) -> None:
        """End the call here and on the server."""
        self._call.cancel()
        self._lease.abandon()

    def when_done(self, function: Callable[[], None]) -> None:
        """Call ``function`` when the call has ended."""
        self._call.when_done(function)


class AsyncSharedTransport(_Base):
    """For an event loop; see :class:`~naiad.client._transport.seam.AsyncTransport`."""

    _inner: AsyncTransport

    def call(self, method: str, message: bytes, timeout_s: float, headers: Headers) -> Coroutine[Any, Any, bytes]:
        """Send one message, return one; both may stand for what is in shared memory."""
        if isinstance(message, Placeable):
            return self._call(method, message, timeout_s, headers)
        return self._inner.call(method, message, timeout_s, headers)

    async def _call(self, method: str, message: Carried, timeout_s: float, headers: Headers) -> bytes:
        deadline = time.monotonic() + timeout_s
        for _ in range(_ATTEMPTS):
            lease = await self._place(message, deadline, headers)
            if lease is None:
                break
            try:
                answer = await self._inner.call(method, lease.message, left_s(deadline), headers)
                return await _beside(lease.num_bytes_out, partial(lease.land, answer))
            except RpcFailed as failure:
                following = lease.failed(failure)
                if following == "raise":
                    raise
                if following == "send":
                    break
            except BaseException:
                lease.abandon()
                raise
        return await self._inner.call(method, message.wire(), left_s(deadline), headers)

    def stream(
        self, method: str, messages: Iterable[bytes], timeout_s: float | None, headers: Headers
    ) -> AsyncStreamCall:
        """Open a stream; its messages carry their tensors."""
        return self._inner.stream(method, messages, timeout_s, headers)

    async def close(self) -> None:
        """Close the connection, then unregister; what was under way is waited for a moment at most."""
        await self._inner.close()
        await asyncio.to_thread(self.leave)

    async def _place(self, message: Any, deadline: float, headers: Headers) -> Held | None:
        """Put the request into a slot that the server knows, if there is any."""
        lease = self._lease(message, headers)
        if lease is None:
            return None
        try:
            if not self._registry.knows(lease.slot) or self._registry.due:
                until = min(deadline, time.monotonic() + _REGISTER_S)
                if not await converse_async(self._inner, self._tell(lease), until, headers):
                    lease.return_unused()
                    return None
            await _beside(len(message), lease.place)
        except BaseException:
            lease.abandon()  # a thread may still copy into it
            raise
        return lease


def connector(options: SharedMemory | None) -> Callable[[Connection], Transport]:
    """Return what connects to one server after the other, all of them with one arena."""
    if options is None:
        return GrpcioTransport
    arena, everywhere = Arena(options.max_bytes), options.servers == "all"
    return lambda connection: SharedTransport(GrpcioTransport(connection), connection, arena, everywhere=everywhere)


def async_connector(options: SharedMemory | None) -> Callable[[Connection], AsyncTransport]:
    """Return what connects to one server after the other, all of them with one arena."""
    if options is None:
        return AsyncGrpcioTransport
    arena, everywhere = Arena(options.max_bytes), options.servers == "all"
    return lambda connection: AsyncSharedTransport(
        AsyncGrpcioTransport(connection), connection, arena, everywhere=everywhere
    )


def unregister(connection: Connection, registry: Registry[Any], headers: Headers) -> bool:
    """Unregister what is owed, over a connection of its own, and give up after a moment; return whether it answered."""
    deadline = time.monotonic() + _LEAVE_S
    transport = GrpcioTransport(connection)
    try:
        while converse(transport, registry.settle_all(), deadline, headers) and registry.owing:
            if time.monotonic() + _STILL_IN_USE_S > deadline:
                return True
            time.sleep(_STILL_IN_USE_S)  # the server may not have noticed yet that a call was cancelled
        return not registry.owing
    finally:
        transport.close()


async def _beside(size_bytes: int, function: Callable[[], T]) -> T:
    """Copy much in a thread, so that the event loop goes on; little at once, which is quicker."""
    return function() if size_bytes < _LONG_COPY_BYTES else await asyncio.to_thread(function)


living: WeakSet[Leaving] = WeakSet()
"""What is to be left when the process ends."""


@atexit.register
def _leave_all() -> None:
    for transport in list(living):
        with suppress(Exception):
            transport.leave()
