"""Streams of the asyncio client: :mod:`naiad.client._model.streams` with ``await``."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from naiad.client._model.flow import SETTLE_S, Flow, Wish, cancelled
from naiad.client._protocol.stream import Refused
from naiad.client._transport.seam import AsyncStreamCall, RpcFailed, TransportClosed
from naiad.client.errors import ClientError, InvalidInput, InvalidResponse, ModelNotFound
from naiad.client.result import Result

if TYPE_CHECKING:
    from types import TracebackType

    from naiad.client._model.async_model import AsyncModel
    from naiad.client._model.handle import Description


class AsyncStream(AsyncIterator[Result]):
    """The parts of one answer, made by :meth:`AsyncModel.stream`: ``async for part in model.stream(prompt="hi")``.

    Behaviour and errors are those of :class:`Stream`. Leaving the loop cancels the stream at once, not when some
    generator is finalised; cancelling the task does so too.
    """

    def __init__(self, model: AsyncModel, wish: Wish) -> None:
        self._model = model
        self._wish = wish
        self._flow: Flow[AsyncStreamCall] | None = None
        self._call: AsyncStreamCall | None = None
        self._description: Description | None = None
        self._over = self._cancelled = False

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Result:
        if self._cancelled:
            raise cancelled(self._model.name)
        if self._over:
            raise StopAsyncIteration
        try:
            flow = self._flow or await self._begin()
            part = await self._receive(flow)
        except BaseException as error:
            self._fail(error)
            raise
        if flow.parts.final:
            self._over = True
            flow.finished()
        if part is None:
            raise StopAsyncIteration
        return part

    def cancel(self) -> None:
        """End the stream here and on the server; the next part that is asked for raises :class:`Cancelled`."""
        if not self._over:
            self._cancelled = True
            self._leave()

    async def aclose(self) -> None:
        """Leave the stream, as :func:`contextlib.aclosing` does; nothing more comes."""
        self._over = True
        self._leave()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _begin(self) -> Flow[AsyncStreamCall]:
        model, wish = self._model, self._wish
        caller = model._client._caller
        limit_s = wish.limit_s(model._client._settings.timeout.stream_s)
        self._description, operation = await model._with_description(
            lambda description: (description, wish.operation(model, description, limit_s))
        )
        attempts = await caller.begin(operation, limit_s, peer=model._client._pinned)
        await caller.acquire(attempts)
        self._flow = flow = Flow[AsyncStreamCall](attempts, caller.release)
        weakref.finalize(self, _drop, flow, asyncio.get_running_loop()).atexit = False  # the loop is gone by then
        if self._cancelled:
            raise flow.cancelled()
        return flow

    async def _receive(self, flow: Flow[AsyncStreamCall]) -> Result | None:
        """Return the next part, ``None`` at the end; go to another server if this one surely did not begin."""
        while True:
            try:
                return await self._advance(flow, self._call or self._open(flow))
            except ClientError as error:
                self._call = None
                pause_s = flow.pause_s(error)
            await asyncio.sleep(pause_s)

    def _open(self, flow: Flow[AsyncStreamCall]) -> AsyncStreamCall:
        attempts, peer = flow.attempts, flow.pick()
        operation = attempts.operation
        try:
            call: AsyncStreamCall = peer.transport.stream(
                operation.method, (operation.request,), attempts.remaining_s(), attempts.headers(peer)
            )
        except TransportClosed as exc:
            raise self._model._client._caller.gone(attempts, peer) from exc
        except BaseException:
            attempts.pool.left(peer)
            raise
        flow.opened(call)
        self._call = call
        return call

    async def _advance(self, flow: Flow[AsyncStreamCall], call: AsyncStreamCall) -> Result | None:
        try:
            if self._wish.idle_timeout_s is None:
                message = await call.__anext__()
            else:
                async with asyncio.timeout(self._wish.idle_timeout_s):
                    message = await call.__anext__()
            part = flow.read(message)
        except StopAsyncIteration:
            flow.ended()
            return None
        except TimeoutError as exc:
            call.cancel()
            raise await self._failure(flow, RpcFailed("DEADLINE_EXCEEDED", ""), idle=True) from exc
        except RpcFailed as failure:
            raise await self._failure(flow, failure) from failure
        except Refused as refusal:
            await _settle(call)
            raise await self._failure(flow, RpcFailed(refusal.status, refusal.details)) from None
        except InvalidResponse as error:
            call.cancel()
            raise flow.broken(error) from error.__cause__
        except TransportClosed as exc:
            if not flow.closed():
                raise flow.cancelled() from exc
            raise self._model._client._caller.gone(flow.attempts, flow.peer) from exc
        if flow.parts.final:
            await _settle(call)
        if part is not None and flow.parts.num_parts == 1 and self._description is not None:
            self._model._notice(self._description, part)
        return part

    async def _failure(self, flow: Flow[AsyncStreamCall], failure: RpcFailed, *, idle: bool = False) -> ClientError:
        """Return what the end of an attempt means, after it was counted."""
        if not flow.closed():
            return flow.cancelled()
        slow = flow.slow(failure, self._wish.idle_timeout_s if idle else None)
        if slow is not None:
            return slow
        error = await self._model._client._caller.failure(flow.attempts, flow.peer, failure)
        if isinstance(error, (InvalidInput, ModelNotFound)):
            self._model.refresh()
        return error

    def _fail(self, error: BaseException) -> None:
        self._leave()
        self._over = True
        if self._flow is not None:
            self._flow.failed(error)

    def _leave(self) -> None:
        if self._flow is not None:
            self._flow.leave()


async def _settle(call: AsyncStreamCall) -> None:
    """Let a stream that has nothing more to say end by itself; cancel it if it does not."""
    try:
        async with asyncio.timeout(SETTLE_S):
            while True:
                await call.__anext__()
    except (StopAsyncIteration, RpcFailed, TransportClosed):
        pass
    except TimeoutError:
        call.cancel()


def _drop(flow: Flow[AsyncStreamCall], loop: asyncio.AbstractEventLoop) -> None:
    """End a stream that nobody can read any more; the garbage collector may run in any thread."""
    if loop.is_closed():
        return
    if _running_loop() is loop:
        if flow.drop() is not None:
            loop.call_soon(flow.settle)
    else:
        loop.call_soon_threadsafe(flow.leave)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
