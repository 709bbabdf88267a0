"""Streams of the blocking client: the parts of one answer as they are made."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from naiad.client._model import idle
from naiad.client._model.flow import SETTLE_S, Flow, Wish, cancelled
from naiad.client._protocol.stream import Refused
from naiad.client._transport.seam import RpcFailed, StreamCall, TransportClosed
from naiad.client.errors import ClientError, InvalidInput, InvalidResponse, ModelNotFound
from naiad.client.result import Result

if TYPE_CHECKING:
    from types import TracebackType

    from naiad.client._model.handle import Description
    from naiad.client._model.model import Model


class Stream(Iterator[Result]):
    """The parts of one answer, made by :meth:`Model.stream`: ``for part in model.stream(prompt="hi")``.

    The request leaves when the first part is asked for. Parts are read one by one: a slow reader holds the connection
    back, and the client keeps no more than what is in flight. Leaving the loop (``break``, an error, the last reference
    dropped) cancels the stream, on the server too; a ``with`` block does so at its end even if a traceback keeps the
    stream alive. One thread reads at a time; :meth:`cancel` may come from any.

    Raises, where a part is asked for:
        ClientError: the server's or the model's error, also after parts that came; see :mod:`naiad.client.errors`. A
            stream is tried again, at another server, only if it surely did not run.
        DeadlineExceeded: the whole took longer than ``timeout_s``, or a part longer than ``idle_timeout_s``.
        Cancelled: after :meth:`cancel`.
    """

    def __init__(self, model: Model, wish: Wish) -> None:
        self._model = model
        self._wish = wish
        self._flow: Flow[StreamCall] | None = None
        self._call: StreamCall | None = None
        self._description: Description | None = None
        self._over = self._cancelled = False

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Result:
        if self._cancelled:
            raise cancelled(self._model.name)
        if self._over:
            raise StopIteration
        try:
            flow = self._flow or self._begin()
            part = self._receive(flow)
        except BaseException as error:
            self._fail(error)
            raise
        if flow.parts.final:
            self._over = True
            _unwatch(flow)
            flow.finished()
        if part is None:
            raise StopIteration
        return part

    def cancel(self) -> None:
        """End the stream here and on the server; the next part that is asked for raises :class:`Cancelled`."""
        if not self._over:
            self._cancelled = True
            self._leave()

    def close(self) -> None:
        """Leave the stream, as ``yield from`` and :func:`contextlib.closing` do; nothing more comes."""
        self._over = True
        self._leave()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> Flow[StreamCall]:
        model, wish = self._model, self._wish
        caller = model._client._caller
        limit_s = wish.limit_s(model._client._settings.timeout.stream_s)
        self._description, operation = model._with_description(
            lambda description: (description, wish.operation(model, description, limit_s))
        )
        attempts = caller.begin(operation, limit_s, peer=model._client._pinned)
        caller.acquire(attempts)
        self._flow = flow = Flow[StreamCall](attempts, caller.release)
        weakref.finalize(self, _drop, flow)
        if self._cancelled:
            raise flow.cancelled()
        return flow

    def _receive(self, flow: Flow[StreamCall]) -> Result | None:
        """Return the next part, ``None`` at the end; go to another server if this one surely did not begin."""
        while True:
            try:
                return self._advance(flow, self._call or self._open(flow))
            except ClientError as error:
                self._call = None
                _unwatch(flow)
                pause_s = flow.pause_s(error)
            time.sleep(pause_s)

    def _open(self, flow: Flow[StreamCall]) -> StreamCall:
        attempts, peer = flow.attempts, flow.pick()
        operation = attempts.operation
        try:
            call: StreamCall = peer.transport.stream(
                operation.method, (operation.request,), attempts.remaining_s(), attempts.headers(peer)
            )
        except TransportClosed as exc:
            raise self._model._client._caller.gone(attempts, peer) from exc
        except BaseException:
            attempts.pool.left(peer)
            raise
        flow.opened(call)
        self._call = call
        if self._wish.idle_timeout_s is not None:
            flow.guard = idle.Guard(self._wish.idle_timeout_s, call.cancel)
            idle.watch(flow.guard)
        return call

    def _advance(self, flow: Flow[StreamCall], call: StreamCall) -> Result | None:
        try:
            if flow.guard is None:
                message = next(call)
            else:
                with flow.guard:
                    message = next(call)
            part = flow.read(message)
        except StopIteration:
            flow.ended()
            return None
        except RpcFailed as failure:
            raise self._failure(flow, failure) from failure
        except Refused as refusal:
            _settle(call)
            raise self._failure(flow, RpcFailed(refusal.status, refusal.details)) from None
        except InvalidResponse as error:
            call.cancel()
            raise flow.broken(error) from error.__cause__
        except TransportClosed as exc:
            if not flow.closed():
                raise flow.cancelled() from exc
            raise self._model._client._caller.gone(flow.attempts, flow.peer) from exc
        if flow.parts.final:
            _settle(call)
        if part is not None and flow.parts.num_parts == 1 and self._description is not None:
            self._model._notice(self._description, part)
        return part

    def _failure(self, flow: Flow[StreamCall], failure: RpcFailed) -> ClientError:
        """Return what the end of an attempt means, after it was counted."""
        expired = flow.guard is not None and flow.guard.expired
        if not flow.closed():
            return flow.cancelled()
        slow = flow.slow(failure, self._wish.idle_timeout_s if expired else None)
        if slow is not None:
            return slow
        error = self._model._client._caller.failure(flow.attempts, flow.peer, failure)
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
            _unwatch(self._flow)
            self._flow.leave()


def _settle(call: StreamCall) -> None:
    """Let a stream that has nothing more to say end by itself; cancel it if it does not."""
    guard = idle.Guard(SETTLE_S, call.cancel)
    idle.watch(guard)
    try:
        with guard:
            while True:
                next(call)
    except (StopIteration, RpcFailed, TransportClosed):
        pass
    finally:
        idle.unwatch(guard)


def _unwatch(flow: Flow[StreamCall]) -> None:
    guard, flow.guard = flow.guard, None
    if guard is not None:
        idle.unwatch(guard)


def _drop(flow: Flow[StreamCall]) -> None:
    """End a stream that nobody can read any more."""
    _unwatch(flow)
    call = flow.drop()
    if call is not None:
        call.when_done(flow.settle)
