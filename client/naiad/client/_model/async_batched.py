"""Concurrent callers' requests joined into few: the asyncio face."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Unpack

from naiad.client._model.batching import Batch, Queue, Request, expired, may_be_one_of_them, own, remaining_s
from naiad.client._protocol.request import InferKeywords, Inputs
from naiad.client._protocol.rows import join, split
from naiad.client.errors import InvalidInput
from naiad.client.options import NOT_GIVEN, NotGiven
from naiad.client.result import Result

if TYPE_CHECKING:
    from types import TracebackType

    from naiad.client._model.async_model import AsyncModel


class _Waiting(Request):
    __slots__ = ("answer",)
    answer: asyncio.Future[Result]


class AsyncBatched:
    """A model whose concurrent callers share requests, made by :meth:`AsyncModel.batched`.

    ``num_requests`` callers were served with ``num_batches`` requests, of ``mean_rows`` rows each; ``num_waiting`` wait
    to be sent. It belongs to the event loop of its first call.
    """

    def __init__(
        self, model: AsyncModel, *, max_rows: int | None, max_wait_s: float, inflight: int, max_waiting: int
    ) -> None:
        if inflight < 1:
            raise InvalidInput(f"inflight is 1 or more, found {inflight}")
        self._model = model
        self._queue: Queue[_Waiting] = Queue(
            model.name, max_rows=max_rows, max_wait_s=max_wait_s, max_waiting=max_waiting
        )
        self._inflight = inflight
        self._sent: dict[Batch[_Waiting], asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin()

    def _begin(self) -> None:
        self._sent.clear()
        self._queue.clear()
        self._sending_soon = False
        self._sending_later: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._expiry_at = math.inf

    def __call__(self, *, timeout_s: float | NotGiven = NOT_GIVEN, **inputs: Any) -> Coroutine[Any, Any, Result]:
        """Infer with the inputs as keyword arguments: ``(await batched(x=row))["y"]``. See :meth:`Batched.infer`."""
        return self._infer(inputs, {}, timeout_s)

    async def infer(
        self, inputs: Inputs, *, timeout_s: float | NotGiven = NOT_GIVEN, **keywords: Unpack[InferKeywords]
    ) -> Result:
        """Send the inputs together with other callers', return their own outputs; see :meth:`Batched.infer`."""
        return await self._infer(inputs, keywords, timeout_s)

    @property
    def num_requests(self) -> int:
        """How many callers' requests were sent."""
        return self._queue.num_requests

    @property
    def num_batches(self) -> int:
        """How many requests the server got instead."""
        return self._queue.num_batches

    @property
    def num_waiting(self) -> int:
        """How many requests wait to be sent."""
        return self._queue.num_waiting

    @property
    def mean_rows(self) -> float:
        """How many rows a request to the server had, on average."""
        return self._queue.num_rows / max(self._queue.num_batches, 1)

    async def close(self) -> None:
        """Take no more requests, and wait until those that were taken have ended."""
        self._queue.closed = True
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            if self._has_place():
                self._send_soon(loop)
            while self._sending_soon or self._sent:
                await (asyncio.wait(self._sent.values()) if self._sent else asyncio.sleep(0))
            if self._expiry is not None:
                self._expiry.cancel()

    async def __aenter__(self) -> AsyncBatched:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<batched {self._model!r}>"

    async def _infer(self, inputs: Inputs, keywords: InferKeywords, timeout_s: float | NotGiven) -> Result:
        model = self._model
        try:
            kind, arrays = self._queue.kind_of((model._described or await model._describe()).codec, inputs, keywords)
        except InvalidInput:  # again, with a new description where that one is old
            kind, arrays = await model._with_description(lambda new: self._queue.kind_of(new.codec, inputs, keywords))
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._move_to(loop)
        request = _Waiting(kind, arrays, loop.time(), model._limit_s(timeout_s))
        answer: asyncio.Future[Result] = loop.create_future()
        request.answer = answer
        self._queue.add(request)
        if request.deadline < self._expiry_at:
            self._expire_at(request.deadline, loop)
        if self._has_place():
            self._send_soon(loop)
        try:
            return await answer
        except asyncio.CancelledError:
            if request.open:
                self._leave(request)
            raise
        finally:
            del answer, request  # an error knows this frame, and they know the error: no circle, no garbage

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None and not self._loop.is_closed():
            raise InvalidInput("batching belongs to the event loop of its first call: make one for each loop")
        self._loop = loop
        self._begin()

    def _send_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send in the next turn of the loop, so that all callers of this one come along."""
        self._sending_soon = True
        loop.create_task(self._send(loop))

    def _send_later(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send when something is due."""
        if self._sending_later is not None:
            self._sending_later.cancel()
            self._sending_later = None
        due_at = self._queue.due_at()
        if due_at is not None:
            self._sending_later = loop.call_at(due_at, self._send_soon, loop)

    def _has_place(self) -> bool:
        return not self._sending_soon and len(self._sent) < self._inflight

    async def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send the next batch and give everybody their answer."""
        self._sending_soon = False
        batch = self._queue.take(loop.time())
        if batch is None:
            self._send_later(loop)
            return
        self._sent[batch] = _this_task()
        if self._queue.num_waiting and self._has_place():
            self._send_soon(loop)
        try:
            await self._answer(batch, batch.requests, loop)
        except Exception as error:  # noqa: BLE001  (its callers get it)
            if len(batch.requests) > 1 and may_be_one_of_them(error, idempotent=self._model.idempotent):
                await asyncio.gather(*[self._answer_one(batch, request, loop) for request in batch.still_open()])
            else:
                _fail(batch.still_open(), error)
        finally:
            for request in batch.still_open():  # this task was cancelled from outside, as a loop that ends does
                request.answer.cancel()
            del self._sent[batch]
            batch.end()
            if self._queue.num_waiting and self._has_place():
                self._send_soon(loop)

    async def _answer(self, batch: Batch[_Waiting], requests: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        result = await self._model.infer(
            join([request.arrays for request in requests]),
            timeout_s=remaining_s(requests, loop.time()),
            **batch.keywords,
        )
        answers, now = split(result, [request.num_rows for request in requests]), loop.time()
        for request, answer in zip(requests, answers, strict=True):
            if request.open:
                _end(request, request.timed(answer, now))

    async def _answer_one(self, batch: Batch[_Waiting], request: _Waiting, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await self._answer(batch, [request], loop)
        except Exception as error:  # noqa: BLE001  (its caller gets it)
            if request.open:
                _fail([request], error)

    def _leave(self, request: _Waiting) -> None:
        abandoned = self._queue.leave(request)
        if abandoned is not None:
            self._sent[abandoned].cancel()

    def _expire_at(self, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry_at = deadline
        self._expiry = loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        """End those whose deadline has passed. One timer serves all: it is set for the earliest of those left."""
        loop = asyncio.get_running_loop()
        now, self._expiry_at = loop.time(), math.inf
        everybody = [*self._queue, *(request for batch in self._sent for request in batch.still_open())]
        for request in everybody:
            if request.deadline <= now:
                self._leave(request)
                _end(request, expired(request, self._model.name, self._model._client.url))
        next_at = min((request.deadline for request in everybody if request.open), default=math.inf)
        if next_at < math.inf:
            self._expire_at(next_at, loop)


def _fail(requests: list[_Waiting], error: Exception) -> None:
    for request in requests:
        _end(request, error if len(requests) == 1 else own(error))


def _end(request: _Waiting, outcome: Result | BaseException) -> None:
    """Give a caller its outcome and forget it."""
    request.open = False
    answer = request.answer
    del request.answer
    if answer.done():  # cancelled in this turn of the loop: its task does not know it yet
        return
    if isinstance(outcome, Result):
        answer.set_result(outcome)
    else:
        answer.set_exception(outcome)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
