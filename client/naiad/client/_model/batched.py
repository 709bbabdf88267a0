"""Concurrent callers' requests joined into few: the blocking face.

No thread works behind it, the callers do. Who finds a place for a batch free sends one for all who wait. When its
answer is there, gRPC's thread wakes one of those whom it is for, who reads it, wakes them, and one of those who wait to
send the next. Whoever does something for others has the latest deadline of them all.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from naiad.client._model.batching import Batch, Queue, Request, expired, may_be_one_of_them, own, remaining_s
from naiad.client._protocol.request import InferKeywords, Inputs
from naiad.client._protocol.rows import join, split
from naiad.client.errors import Cancelled, ClientError, InvalidInput
from naiad.client.options import NOT_GIVEN, NotGiven
from naiad.client.result import Result

if TYPE_CHECKING:
    from types import TracebackType

    from naiad.client._calling.call import Call
    from naiad.client._model.model import Model

T = TypeVar("T")
_Outcome = Result | BaseException


class _Waiting(Request):
    """``duties`` are what its thread shall do for others, ``outcome`` is what it gets; both belong to the lock."""

    __slots__ = ("duties", "outcome", "wake")
    duties: list[Callable[[_Waiting], None]]
    outcome: _Outcome | None
    wake: threading.Lock


class Batched:
    """A model whose concurrent callers share requests, made by :meth:`Model.batched`.

    ``num_requests`` callers were served with ``num_batches`` requests, of ``mean_rows`` rows each; ``num_waiting`` wait
    to be sent. May be shared by threads and greenlets.
    """

    def __init__(
        self, model: Model, *, max_rows: int | None, max_wait_s: float, inflight: int, max_waiting: int
    ) -> None:
        if inflight < 1:
            raise InvalidInput(f"inflight is 1 or more, found {inflight}")
        self._model = model
        self._new_queue = partial(
            Queue[_Waiting], model.name, max_rows=max_rows, max_wait_s=max_wait_s, max_waiting=max_waiting
        )
        self._inflight = inflight
        self._begin()

    def _begin(self) -> None:
        """Begin, in a forked process once more: those who wait are threads of the other."""
        self._process = os.getpid()
        self._queue = self._new_queue()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._num_sent = 0  # with those that are about to be
        self._gathering: _Waiting | None = None

    def __call__(self, *, timeout_s: float | NotGiven = NOT_GIVEN, **inputs: Any) -> Result:
        """Infer with the inputs as keyword arguments: ``batched(x=row)["y"]``. See :meth:`infer`."""
        return self._infer(inputs, {}, timeout_s)

    def infer(
        self, inputs: Inputs, *, timeout_s: float | NotGiven = NOT_GIVEN, **keywords: Unpack[InferKeywords]
    ) -> Result:
        """Send the inputs together with other callers', return their own outputs.

        The arguments are those of :meth:`Model.infer`; requests with different keywords, inputs, data types or shapes
        but for the rows travel apart. Inputs must not be changed before the answer is there.

        Raises:
            InvalidInput: the inputs are wrong; nobody else is concerned.
            Overloaded: ``max_waiting`` requests wait already.
            ClientError: see :mod:`naiad.client.errors`.
        """
        return self._infer(inputs, keywords, timeout_s)

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

    def close(self) -> None:
        """Take no more requests, and wait until those that were taken have ended."""
        with self._lock:
            self._queue.closed = True
            if self._gathering is not None:
                _wake(self._gathering)
            while self._num_sent:
                self._idle.wait()

    def __enter__(self) -> Batched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<batched {self._model!r}>"

    def _infer(self, inputs: Inputs, keywords: InferKeywords, timeout_s: float | NotGiven) -> Result:
        if self._process != os.getpid():
            self._begin()
        model = self._model
        kind, arrays = model._with_description(lambda known: self._queue.kind_of(known.codec, inputs, keywords))
        request = _Waiting(kind, arrays, time.monotonic(), model._limit_s(timeout_s))
        request.wake, request.duties, request.outcome = threading.Lock(), [], None
        request.wake.acquire()
        with self._lock:
            self._queue.add(request)
            if self._num_sent < self._inflight:
                self._num_sent += 1
                request.duties.append(self._send)
            elif self._gathering is not None and request.lane.num_rows >= request.lane.max_rows:
                _wake(self._gathering)
        return self._wait(request)

    def _wait(self, request: _Waiting) -> Result:
        try:
            while True:
                with self._lock:
                    duty = request.duties.pop(0) if request.duties else None
                    outcome = request.outcome
                if duty is not None:
                    duty(request)
                elif outcome is not None:
                    request.outcome = None
                    break
                elif not request.wake.acquire(timeout=max(request.deadline - time.monotonic(), 0.0)):
                    self._give_up(request)
        except BaseException:
            self._abandon(request)
            raise
        if isinstance(outcome, Result):
            return outcome
        try:
            raise outcome
        finally:
            del outcome  # an error knows this frame: no circle, no garbage

    def _give_up(self, request: _Waiting) -> None:
        with self._lock:
            if request.outcome is not None or request.duties:
                return  # it came in this moment
            abandoned = self._queue.leave(request)
        if abandoned is not None and abandoned.call is not None:
            abandoned.call.cancel()
        raise expired(request, self._model.name, self._model._client.url)

    def _abandon(self, request: _Waiting) -> None:
        """Leave for a reason that has nothing to do with the answer (Ctrl-C); others do what was to be done."""
        with self._lock:
            abandoned = self._queue.leave(request) if request.open else None
            self._pass_on_sending(request)
            reading = bool(request.duties)
        if reading:
            assert request.batch is not None
            self._arrived(request.batch)
        elif abandoned is not None and abandoned.call is not None:
            abandoned.call.cancel()

    def _send(self, request: _Waiting) -> None:
        """Send the next batch; when its answer is there, one of those whom it is for reads it."""
        try:
            batch = self._gather(request)
        except BaseException:  # it leaves, see `_abandon`
            request.duties.append(self._send)
            raise
        if batch is None:
            return
        try:
            batch.call = self._submit(batch, batch.requests)
        except Exception as error:  # noqa: BLE001  (its callers get it)
            self._settle(batch, self._each(batch, error))
            return
        except BaseException:
            self._settle(batch, [_interrupted() for _ in batch.requests])
            raise
        batch.call.when_done(partial(self._arrived, batch))
        if not batch.num_open:  # they left before there was a call to cancel
            batch.call.cancel()

    def _gather(self, request: _Waiting) -> Batch[_Waiting] | None:
        """Take the next batch as soon as it is due, ``None`` if there is none, or another one shall do it.

        Raises:
            DeadlineExceeded: that is later than this caller waits.
        """
        time.sleep(0)  # threads that are about to add theirs, as those of the last batch often are, come along
        while True:
            with self._lock:
                now, due_at = time.monotonic(), self._queue.due_at()
                self._gathering = None
                if due_at is None or not request.open:  # it has its answer: another one gathers
                    self._pass_on()
                    return None
                if due_at <= now:
                    return self._queue.take(now)
                if request.deadline <= now:
                    raise expired(request, self._model.name, self._model._client.url)
                self._gathering = request
            request.wake.acquire(timeout=min(due_at, request.deadline) - now)

    def _submit(self, batch: Batch[_Waiting], requests: list[_Waiting]) -> Call[Result]:
        return self._model.submit(
            join([request.arrays for request in requests]),
            timeout_s=remaining_s(requests, time.monotonic()),
            **batch.keywords,
        )

    def _arrived(self, batch: Batch[_Waiting]) -> None:
        """Let one of those who wait read the answer; called in gRPC's thread, which has other things to do."""
        with self._lock:
            requests = batch.still_open()
            if requests:
                _charge(requests, self._read)
                return
        batch.call.cancel()
        with suppress(ClientError):
            batch.call.result()
        self._settle(batch, [])

    def _read(self, request: _Waiting) -> None:
        """Read the answer and give everybody theirs."""
        batch = request.batch
        assert batch is not None
        try:
            outcomes = self._outcomes(batch)
        except BaseException:
            self._settle(batch, [_interrupted() for _ in batch.requests])
            raise
        self._settle(batch, outcomes)

    def _outcomes(self, batch: Batch[_Waiting]) -> Sequence[_Outcome]:
        try:
            return split(self._model._result(batch.call), [request.num_rows for request in batch.requests])
        except Exception as error:  # noqa: BLE001  (its callers get it)
            return self._each(batch, error)

    def _each(self, batch: Batch[_Waiting], error: Exception) -> list[_Outcome]:
        """Return what everybody gets from a batch that failed, after another try by themselves if that may help."""
        if len(batch.requests) == 1:
            return [error]
        if not may_be_one_of_them(error, idempotent=self._model.idempotent):
            return [own(error) for _ in batch.requests]
        calls = [_attempt(partial(self._submit, batch, [request])) for request in batch.requests]
        return [call if isinstance(call, Exception) else _attempt(partial(self._model._result, call)) for call in calls]

    def _settle(self, batch: Batch[_Waiting], outcomes: Sequence[_Outcome]) -> None:
        """Let the next batch go, and give everybody their outcome."""
        now = time.monotonic()
        with self._lock:
            self._pass_on()
            for request, outcome in zip(batch.requests, outcomes, strict=False):
                if request.open:
                    request.open = False
                    request.outcome = request.timed(outcome, now) if isinstance(outcome, Result) else outcome
                    self._pass_on_sending(request)
                    _wake(request)
            batch.end()

    def _pass_on(self) -> None:
        """Give the place of a batch that has ended to those who wait; the lock is held."""
        requests = self._queue.next(math.inf)
        if requests:
            _charge(requests, self._send)
        else:
            self._num_sent -= 1
            self._idle.notify_all()

    def _pass_on_sending(self, request: _Waiting) -> None:
        """Let others send what this one was to send."""
        while self._send in request.duties:
            request.duties.remove(self._send)
            self._pass_on()


def _charge(requests: list[_Waiting], duty: Callable[[_Waiting], None]) -> None:
    """Give a duty to the one with the latest deadline, so that it is never what keeps it beyond its own."""
    request = max(requests, key=lambda request: request.deadline)
    request.duties.append(duty)
    _wake(request)


def _wake(request: _Waiting) -> None:
    """Let a request's thread look what there is for it; the lock is held, so that nobody else does the same."""
    if request.wake.locked():
        request.wake.release()


def _attempt(function: Callable[[], T]) -> T | Exception:
    try:
        return function()
    except Exception as error:  # noqa: BLE001  (it is raised in the thread that it concerns)
        return error


def _interrupted() -> Cancelled:
    return Cancelled("the batch was interrupted in the thread that worked for all of it", status="CANCELLED")
