"""How an asyncio client makes a call: :mod:`naiad.client._calling.caller` with ``await``."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

from naiad.client._protocol import operations
from naiad.client._protocol.operations import Operation
from naiad.client._routing.attempts import Attempts
from naiad.client._routing.pool import Peer
from naiad.client._routing.router import Router
from naiad.client._settings import Settings
from naiad.client._transport import cuda
from naiad.client._transport.seam import AsyncTransport, RpcFailed, TransportClosed
from naiad.client._transport.shm import async_connector
from naiad.client.errors import ClientError
from naiad.client.options import NOT_GIVEN, NotGiven, Retry

T = TypeVar("T")
_PROBE_S = 2.0
_Leg = tuple[Peer[AsyncTransport], "asyncio.Task[bytes]"]


class AsyncCaller:
    """Makes the calls of one client, in one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.router: Router[AsyncTransport] = Router(
            settings, cuda.async_over(async_connector(settings.shared_memory), settings.devices)
        )
        self._limit = settings.limits.inflight
        self._slots = asyncio.Semaphore(self._limit) if self._limit else None
        self._closed = False
        self._closing: set[asyncio.Task[None]] = set()

    async def run(
        self,
        operation: Operation[T],
        timeout_s: float | NotGiven = NOT_GIVEN,
        retry: Retry | None = None,
        peer: Peer[AsyncTransport] | None = None,
    ) -> T:
        """Make a call and return its answer; with ``peer``, that server alone is asked."""
        if self.router.lookup_due():
            await self._look_up()
        attempts = self.router.begin(operation, timeout_s, retry, peer)
        answer: T = await (self._finish(attempts) if self._slots is None else self.complete(attempts))
        return answer

    async def begin(
        self,
        operation: Operation[Any],
        timeout_s: float | NotGiven = NOT_GIVEN,
        *,
        retry: Retry | None = None,
        peer: Peer[AsyncTransport] | None = None,
    ) -> Attempts:
        """Start the clock of a call, with the addresses of its servers at hand."""
        if self.router.lookup_due():
            await self._look_up()
        return self.router.begin(operation, timeout_s, retry, peer)

    async def complete(self, attempts: Attempts) -> Any:
        """Make the attempts of a call that :meth:`begin` began, and return its answer."""
        if self._slots is None:
            return await self._finish(attempts)
        await self._acquire(self._slots, attempts)
        try:
            return await self._finish(attempts)
        finally:
            self._slots.release()

    async def acquire(self, attempts: Attempts) -> None:
        """Wait for a place among the calls in flight, where there is a limit."""
        if self._slots is not None:
            await self._acquire(self._slots, attempts)

    def release(self) -> None:
        """Give the place back."""
        if self._slots is not None:
            self._slots.release()

    async def peers(self) -> tuple[Peer[AsyncTransport], ...]:
        """Return all servers."""
        if self.router.lookup_due():
            await self._look_up()
        return self.router.pool.peers

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for task in tuple(self._closing):
            task.cancel()
        for peer in self.router.pool.peers:
            await peer.transport.close()

    async def failure(self, attempts: Attempts, peer: Peer[AsyncTransport], failure: RpcFailed) -> ClientError:
        """Return what an attempt's end means, after it was counted."""
        error = attempts.error(peer, failure.status, failure.details)
        if attempts.may_be_draining(error) and not await self._live(peer):
            error = attempts.draining(peer, error)
        attempts.failed(peer, error)
        return error

    def gone(self, attempts: Attempts, peer: Peer[AsyncTransport]) -> ClientError:
        """Return what a closed transport means: the client was closed, or the server left the list just then."""
        attempts.pool.left(peer)
        return self.router.closed() if self._closed else attempts.withdrawn(peer)

    async def _acquire(self, slots: asyncio.Semaphore, attempts: Attempts) -> None:
        try:
            async with asyncio.timeout(attempts.remaining_s()):
                await slots.acquire()
        except TimeoutError:
            error = self.router.limited(attempts)
            attempts.ended(error)
            raise error from None

    async def _finish(self, attempts: Attempts) -> Any:
        try:
            while True:
                try:
                    return await self._attempt(attempts)
                except ClientError as error:
                    pause_s = attempts.pause_s(error)
                await asyncio.sleep(pause_s)
        except BaseException as error:
            attempts.ended(error)
            raise

    async def _attempt(self, attempts: Attempts) -> Any:
        peer: Peer[AsyncTransport] = attempts.pick()
        if attempts.latencies is not None and attempts.may_hedge():
            return await self._hedged_attempt(attempts, peer)
        operation = attempts.operation
        began = time.monotonic()
        try:
            message = await peer.transport.call(
                operation.method,
                operation.request,
                attempts.remaining_s(),
                peer.headers if attempts.watch is None else attempts.headers(peer),
            )
        except RpcFailed as failure:
            raise await self.failure(attempts, peer, failure) from failure
        except TransportClosed as exc:
            raise self.gone(attempts, peer) from exc
        except BaseException:
            attempts.pool.left(peer)
            raise
        return attempts.answered(peer, message, began)

    async def _hedged_attempt(self, attempts: Attempts, first: Peer[AsyncTransport]) -> Any:
        """Ask ``first``, and a second server too if it takes longer than usual; the first good answer counts."""
        assert attempts.latencies is not None
        assert self.router.hedges is not None
        delay_s = attempts.latencies.delay_s(attempts.operation.model or "")
        began = time.monotonic()
        legs = [self._leave(attempts, first)]
        try:
            done, _ = await asyncio.wait([legs[0][1]], timeout=delay_s)
            if not done and self.router.hedges.withdraw():
                legs.append(self._leave(attempts, attempts.pick_second()))
            while True:
                await asyncio.wait([task for _, task in legs], return_when=asyncio.FIRST_COMPLETED)
                leg = next(leg for leg in legs if leg[1].done())
                legs.remove(leg)
                try:
                    message = await self._arrive(attempts, *leg)
                except ClientError:
                    if not legs:
                        raise
                    continue
                return attempts.answered(leg[0], message, began)
        finally:
            for peer, task in legs:
                task.cancel()
                attempts.pool.left(peer)

    def _leave(self, attempts: Attempts, peer: Peer[AsyncTransport]) -> _Leg:
        operation = attempts.operation
        call = peer.transport.call(operation.method, operation.request, attempts.remaining_s(), attempts.headers(peer))
        return peer, asyncio.ensure_future(call)

    async def _arrive(self, attempts: Attempts, peer: Peer[AsyncTransport], task: asyncio.Task[bytes]) -> bytes:
        try:
            return task.result()
        except RpcFailed as failure:
            raise await self.failure(attempts, peer, failure) from failure
        except TransportClosed as exc:
            raise self.gone(attempts, peer) from exc

    async def _live(self, peer: Peer[AsyncTransport]) -> bool:
        operation = operations.live()  # readiness is lost by a model that loads or is broken, liveness by the end alone
        try:
            message = await peer.transport.call(operation.method, operation.request, _PROBE_S, peer.headers)
            return operation.decode(message)
        except (RpcFailed, TransportClosed, ClientError):
            return False

    async def _look_up(self) -> None:
        try:
            gone = self.router.looked_up(await asyncio.to_thread(self.router.settings.directory.lookup))
        except ClientError as error:
            self.router.lookup_failed(error)
            return
        for peer in gone:
            task = asyncio.ensure_future(_close_when_idle(peer))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _close_when_idle(peer: Peer[AsyncTransport]) -> None:
    """Close the connection to a server that is gone from the list as soon as it has answered what it was asked."""
    try:
        while peer.outstanding:
            await asyncio.sleep(0.1)
    finally:
        await peer.transport.close()
