"""A served model as an object, in an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from naiad.client._model import many
from naiad.client._model.async_batched import AsyncBatched
from naiad.client._model.async_sequences import AsyncSequence
from naiad.client._model.async_streams import AsyncStream
from naiad.client._model.flow import Wish
from naiad.client._model.handle import Description, Handle
from naiad.client._model.sequences import SequenceOptions
from naiad.client._protocol.operations import Operation
from naiad.client._protocol.request import NO_OPTIONS, InferKeywords, InferOptions, Inputs, options_of
from naiad.client.config import ModelConfig
from naiad.client.errors import InvalidInput, ModelNotFound
from naiad.client.metadata import ModelMetadata
from naiad.client.options import NOT_GIVEN, NotGiven
from naiad.client.result import Result

if TYPE_CHECKING:
    from naiad.client._async_client import AsyncClient

T = TypeVar("T")


class AsyncModel(Handle):
    """A model on a server, made by :meth:`AsyncClient.model`; :class:`Model` with ``await``."""

    def __init__(
        self,
        client: AsyncClient,
        name: str,
        version: str | None,
        *,
        idempotent: bool = False,
        cast: Literal["safe"] | None = None,
    ) -> None:
        super().__init__(name, version, idempotent=idempotent, cast=cast, total_s=client._settings.timeout.total_s)
        self._client = client

    def __call__(self, **inputs: Any) -> Coroutine[Any, Any, Result]:
        """Infer with the inputs as keyword arguments: ``(await model(x=batch))["y"]``. See :meth:`Model.infer`."""
        return self._infer(inputs, NO_OPTIONS, NOT_GIVEN)

    async def infer(
        self,
        inputs: Inputs,
        *,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> Result:
        """Check the inputs, send them, return the outputs; see :meth:`Model.infer`."""
        return await self._infer(inputs, options_of(keywords), timeout_s)

    def stream(self, **inputs: Any) -> AsyncStream:
        """Iterate over the parts of one answer: ``async for part in model.stream(prompt="hi")``."""
        return AsyncStream(self, Wish(inputs=inputs, options=NO_OPTIONS, timeout_s=NOT_GIVEN, idle_timeout_s=None))

    def stream_infer(
        self,
        inputs: Inputs,
        *,
        timeout_s: float | NotGiven = NOT_GIVEN,
        idle_timeout_s: float | None = None,
        **keywords: Unpack[InferKeywords],
    ) -> AsyncStream:
        """Iterate over the parts of one answer; see :meth:`Model.stream_infer`."""
        options = options_of(keywords)
        wish = Wish(inputs=inputs, options=options, timeout_s=timeout_s, idle_timeout_s=idle_timeout_s)
        return AsyncStream(self, wish)

    @overload
    def infer_many(
        self,
        inputs: Inputs,
        *,
        inflight: int = 4,
        rows: int | None = None,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> Coroutine[Any, Any, Result]: ...

    @overload
    def infer_many(
        self,
        inputs: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        inflight: int = 4,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> AsyncIterator[Result]: ...

    def infer_many(
        self,
        inputs: Inputs | Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        inflight: int = 4,
        rows: int | None = None,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> Coroutine[Any, Any, Result] | AsyncIterator[Result]:
        """Infer with more rows than fit a request, or with many requests; see :meth:`Model.infer_many`.

        ``await`` it for arrays, iterate with ``async for`` over the answers to an iterable, asynchronous ones included.
        """
        many.check(inflight, rows, keywords, divided=isinstance(inputs, Mapping))
        if not isinstance(inputs, Mapping):
            return many.infer_each_async(self, inputs, inflight=inflight, timeout_s=timeout_s, keywords=keywords)
        return self._infer_rows(inputs, inflight, rows, timeout_s, keywords)

    async def _infer_rows(
        self, inputs: Inputs, inflight: int, rows: int | None, timeout_s: float | NotGiven, keywords: InferKeywords
    ) -> Result:
        limit_s = self._limit_s(timeout_s)
        division = await self._with_description(
            lambda description: many.Division(description, inputs, keywords, rows=rows, limit_s=limit_s)
        )
        return await many.infer_rows_async(self, division, inflight)

    def batched(
        self, *, max_rows: int | None = None, max_wait_s: float = 0.0, inflight: int = 2, max_waiting: int = 10_000
    ) -> AsyncBatched:
        """Return this model for many concurrent callers, whose requests are sent joined; see :meth:`Model.batched`."""
        return AsyncBatched(self, max_rows=max_rows, max_wait_s=max_wait_s, inflight=inflight, max_waiting=max_waiting)

    def sequence(
        self,
        sequence_id: int | str | None = None,
        *,
        end_on_exit: bool = True,
        retry: bool = False,
        timeout_s: float | NotGiven = NOT_GIVEN,
    ) -> AsyncSequence:
        """Begin a sequence of requests to a stateful model; see :meth:`Model.sequence`."""
        return AsyncSequence(
            self,
            SequenceOptions(sequence_id=sequence_id, end_on_exit=end_on_exit, retry=retry, timeout_s=timeout_s),
        )

    async def metadata(self) -> ModelMetadata:
        """Return the model's tensors and ready versions."""
        return (await self._describe()).metadata

    async def config(self) -> ModelConfig:
        """Return the model's configuration as the server completed it."""
        return (await self._describe()).config

    def __repr__(self) -> str:
        return f"<AsyncModel {self.name}{'/' + self.version if self.version else ''} at {self._client.url}>"

    async def _infer(self, inputs: Inputs, options: InferOptions, timeout_s: float | NotGiven) -> Result:
        description = self._described
        if description is None:
            description = await self._describe()
        try:
            operation = self._operation(description, inputs, options, timeout_s)
        except InvalidInput:  # again, with a new description where that one is old
            description, operation = await self._prepare(inputs, options, timeout_s)
        client = self._client
        try:
            result = await client._caller.run(operation, timeout_s, None, client._pinned)
        except (InvalidInput, ModelNotFound):
            self.refresh()
            raise
        self._notice(description, result)
        return result

    async def _prepare(
        self, inputs: Inputs, options: InferOptions, timeout_s: float | NotGiven
    ) -> tuple[Description, Operation[Result]]:
        return await self._with_description(
            lambda description: (description, self._operation(description, inputs, options, timeout_s))
        )

    async def _with_description(self, check: Callable[[Description], T]) -> T:
        """Return what ``check`` makes of the model's description; of a new one, where it refuses an old one."""
        description = self._described or await self._describe()
        try:
            return check(description)
        except InvalidInput:
            if not description.old:
                raise
        self.refresh()
        return check(await self._describe())

    async def _describe(self) -> Description:
        description = self._described
        if description is None:
            metadata = await self._client.model_metadata(self.name, self.version)
            config = await self._client.model_config(self.name, self.version)
            settings = self._client._settings
            description = self._described = Description(
                self.name, self.version, metadata, config, settings.shared_memory, self._cast, settings.devices
            )
        return description
