"""Sequences of the asyncio client: :mod:`naiad.client._model.sequences` with ``await``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING, Any

from naiad.client._model.sequences import END_S, SequenceOptions, State
from naiad.client._protocol.request import InferOptions, Inputs, Output
from naiad.client._protocol.wire import Parameter
from naiad.client.errors import ClientError
from naiad.client.options import NOT_GIVEN, NotGiven
from naiad.client.result import Result

if TYPE_CHECKING:
    from types import TracebackType

    from naiad.client._model.async_model import AsyncModel


class AsyncSequence(State):
    """:class:`Sequence` with ``await``, made by :meth:`AsyncModel.sequence`.

    ::

        async with model.sequence() as seq:
            async for chunk in chunks:
                text = (await seq(audio=chunk))["text"]

    Tasks may share a sequence: their requests are sent one after the other.
    """

    def __init__(self, model: AsyncModel, options: SequenceOptions) -> None:
        super().__init__(model, options)
        self._model = model
        self._lock = asyncio.Lock()

    async def __call__(self, **inputs: Any) -> Result:
        """Infer with the inputs as keyword arguments: ``(await seq(x=batch))["y"]``."""
        return await self.infer(inputs)

    async def infer(
        self,
        inputs: Inputs,
        *,
        end: bool = False,
        timeout_s: float | NotGiven = NOT_GIVEN,
        outputs: Items[str | Output] | None = None,
        request_id: str = "",
        priority: int = 0,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Result:
        """Make the next request of the sequence, the last one with ``end``; the rest is as in :meth:`Model.infer`."""
        options = InferOptions(
            outputs=outputs, request_id=request_id, priority=priority, parameters=parameters, sequence_end=end
        )
        limit = self._options.timeout_s if isinstance(timeout_s, NotGiven) else timeout_s
        async with self._lock:
            return await self._infer(inputs, options, limit)

    async def aclose(self) -> None:
        """End the sequence, unless it has ended or nothing was sent; that this fails is only logged."""
        async with self._lock:
            zeros = self._zeros()
            if zeros is not None:
                try:
                    await self._infer(zeros, InferOptions(sequence_end=True), END_S)
                except ClientError as error:
                    self._not_ended(error)
            self._ended = True

    async def __aenter__(self) -> AsyncSequence:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _infer(self, inputs: Inputs, options: InferOptions, timeout_s: float | NotGiven) -> Result:
        client = self._model._client
        description, operation = await self._model._with_description(
            lambda description: (description, self._operation(description, inputs, options, timeout_s))
        )
        attempts = await client._caller.begin(
            operation, timeout_s, retry=self._retry(client._settings.retry), peer=self._peer or client._pinned
        )
        try:
            result: Result = await client._caller.complete(attempts)
        except BaseException as error:
            found = self._failed(attempts, description, inputs, error)
            if found is error:
                raise
            raise found from error
        self._answered(attempts, description, inputs, result)
        self._ended = options.sequence_end
        return result
