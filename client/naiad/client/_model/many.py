"""Many rows, or many requests, in one call: several are in flight at once, the answers come back in order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from naiad.client._protocol.request import InferKeywords, Inputs, check_on_host, options_of
from naiad.client._protocol.rows import Arrays, Whole, arrays_of, check_arrays, no_rows, part_of, spans
from naiad.client.errors import ClientError, InvalidInput
from naiad.client.result import Result

if TYPE_CHECKING:
    from naiad.client._calling.call import Call
    from naiad.client._model.async_model import AsyncModel
    from naiad.client._model.handle import Description
    from naiad.client._model.model import Model
    from naiad.client.options import NotGiven

_AT_LEAST_S = 1e-3  # a request whose time is over fails by itself


class Division:
    """A request of any number of rows as requests that the model takes, under one deadline."""

    def __init__(
        self, description: Description, inputs: Inputs, keywords: InferKeywords, *, rows: int | None, limit_s: float
    ) -> None:
        """Check all of it.

        Raises:
            InvalidInput: the model does not take these inputs, whatever the number of rows.
        """
        self._began = time.monotonic()
        self._deadline = self._began + limit_s
        self._keywords = keywords
        self._contract = contract = description.codec.contract
        if not contract.max_batch_size:
            raise InvalidInput(
                f"model '{contract.model}' has no batch dimension (max_batch_size is 0), so that its inputs cannot be "
                "divided: give a list of inputs, one for each request",
                model=contract.model,
            )
        self._arrays = arrays_of(inputs, description.codec, keywords)
        check_arrays(self._arrays, contract)
        self.num_rows = next(iter(self._arrays.values())).shape[0]
        self._rows = min(rows or contract.max_batch_size, contract.max_batch_size)
        outputs = keywords.get("outputs")
        plain = contract.outputs if outputs is None else [output for output in outputs if isinstance(output, str)]
        known = [contract.outputs[name] for name in plain if name in contract.outputs]
        self._whole = Whole(self.num_rows, self._rows, keywords.get("out") or {}, known)

    def spans(self) -> Iterator[range]:
        """Return the rows of each request."""
        return spans(self.num_rows, self._rows)

    def inputs(self, span: range) -> Arrays:
        """Return the inputs of one request."""
        return part_of(self._arrays, span)

    def keywords(self, span: range) -> InferKeywords:
        """Return the keywords of one request."""
        out = self._whole.out(span)
        return {**self._keywords, "out": out} if out else self._keywords

    def remaining_s(self) -> float:
        """Return how much time is left for all."""
        return max(self._deadline - time.monotonic(), _AT_LEAST_S)

    def put(self, span: range, answer: Result) -> None:
        """Add the answer to one request."""
        self._whole.put(span, answer)

    def result(self) -> Result:
        """Return the answer to all."""
        if not self.num_rows:
            return no_rows(self._contract, self._keywords.get("outputs"), self._keywords.get("out") or {})
        return self._whole.result(time.monotonic() - self._began)

    @contextmanager
    def concerning(self, span: range) -> Iterator[None]:
        """Let an error say which rows it is about."""
        try:
            yield
        except ClientError as error:
            error.rows = span
            error.add_note(f"concerning the rows {span.start}:{span.stop} of {self.num_rows}")
            raise


def check(inflight: int, rows: int | None, keywords: InferKeywords, *, divided: bool) -> None:
    """Raise :class:`InvalidInput` where an argument of ``infer_many`` is wrong."""
    if inflight < 1:
        raise InvalidInput(f"inflight is 1 or more, found {inflight}")
    if rows is not None and (rows < 1 or not divided):
        raise InvalidInput(f"rows is 1 or more and divides one mapping of arrays, found {rows}")
    if keywords.get("sequence_id"):
        raise InvalidInput("requests of a sequence follow one another, found sequence_id: use `model.infer` for each")
    if divided:
        check_on_host(options_of(keywords))
    if keywords.get("out") is not None and not divided:
        raise InvalidInput("out receives one answer, found several requests: leave it out")


def infer_rows(model: Model, division: Division, inflight: int) -> Result:
    """Send a request in parts and return the answers as one."""
    calls: deque[tuple[range, Call[Result]]] = deque()
    try:
        for span in division.spans():
            if len(calls) == inflight:
                _put_first(model, division, calls)
            with division.concerning(span):
                call = model.submit(division.inputs(span), timeout_s=division.remaining_s(), **division.keywords(span))
            calls.append((span, call))
        while calls:
            _put_first(model, division, calls)
    finally:
        _cancel(call for _, call in calls)
    return division.result()


def _put_first(model: Model, division: Division, calls: deque[tuple[range, Call[Result]]]) -> None:
    span, call = calls.popleft()
    with division.concerning(span):
        division.put(span, model._result(call))


def infer_each(
    model: Model, requests: Iterable[Inputs], *, inflight: int, timeout_s: float | NotGiven, keywords: InferKeywords
) -> Iterator[Result]:
    """Send requests ahead of the answers that are taken, and yield these in order."""
    calls: deque[tuple[int, Call[Result] | ClientError]] = deque()
    try:
        for number, inputs in enumerate(requests):
            try:
                calls.append((number, model.submit(_mapping(inputs), timeout_s=timeout_s, **keywords)))
            except ClientError as error:  # raised when its turn comes
                calls.append((number, error))
            first = calls[0][1]
            if len(calls) == inflight or isinstance(first, ClientError) or first.done():
                yield _first(model, calls)
        while calls:
            yield _first(model, calls)
    finally:
        _cancel(call for _, call in calls if not isinstance(call, ClientError))


def _first(model: Model, calls: deque[tuple[int, Call[Result] | ClientError]]) -> Result:
    number, call = calls.popleft()
    with _concerning(number):
        if isinstance(call, ClientError):
            raise call
        return model._result(call)


def _cancel(calls: Iterable[Call[Result]]) -> None:
    ended = list(calls)
    for call in ended:
        call.cancel()
    for call in ended:
        with suppress(ClientError):
            call.result()


async def infer_rows_async(model: AsyncModel, division: Division, inflight: int) -> Result:
    """Send a request in parts and return the answers as one."""
    left = division.spans()

    async def work() -> None:
        for span in left:
            with division.concerning(span):
                keywords = division.keywords(span)
                answer = await model.infer(division.inputs(span), timeout_s=division.remaining_s(), **keywords)
                division.put(span, answer)

    if not division.num_rows:
        return division.result()
    tasks = [asyncio.create_task(work()) for _ in range(min(inflight, division.num_rows))]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await _end(tasks)
    return division.result()


async def infer_each_async(
    model: AsyncModel,
    requests: Iterable[Inputs] | AsyncIterable[Inputs],
    *,
    inflight: int,
    timeout_s: float | NotGiven,
    keywords: InferKeywords,
) -> AsyncIterator[Result]:
    """Send requests ahead of the answers that are taken, and yield these in order."""

    async def infer(number: int, inputs: Inputs) -> Result:
        with _concerning(number):
            return await model.infer(_mapping(inputs), timeout_s=timeout_s, **keywords)

    tasks: deque[asyncio.Task[Result]] = deque()
    number = 0
    try:
        async for inputs in _each(requests):
            tasks.append(asyncio.create_task(infer(number, inputs)))
            number += 1
            if len(tasks) == inflight or tasks[0].done():
                yield await tasks[0]
                tasks.popleft()
        while tasks:
            yield await tasks[0]
            tasks.popleft()
    finally:
        await _end(tasks)


async def _each(requests: Iterable[Inputs] | AsyncIterable[Inputs]) -> AsyncIterator[Inputs]:
    if isinstance(requests, AsyncIterable):
        async for inputs in requests:
            yield inputs
    else:
        for inputs in requests:
            yield inputs


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    ended = list(tasks)
    for task in ended:
        task.cancel()
    await asyncio.gather(*ended, return_exceptions=True)


def _mapping(inputs: Inputs) -> Inputs:
    if not isinstance(inputs, Mapping):
        raise InvalidInput(f"each request is a mapping of inputs by name, found {type(inputs).__name__}")
    return inputs


@contextmanager
def _concerning(number: int) -> Iterator[None]:
    """Let an error say which request it is about."""
    try:
        yield
    except ClientError as error:
        error.add_note(f"concerning the request {number} of infer_many, counted from 0")
        raise
