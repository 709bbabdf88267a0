"""A served model as an object: requests are checked against its metadata before a byte is sent."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Unpack

from naiad.client._protocol import operations
from naiad.client._protocol.codec import Codec
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.operations import Operation
from naiad.client._protocol.placing import placing_of
from naiad.client._protocol.request import NO_OPTIONS, InferKeywords, InferOptions, Inputs, options_of
from naiad.client.config import ModelConfig
from naiad.client.errors import InvalidInput, ModelNotFound
from naiad.client.metadata import ModelMetadata
from naiad.client.options import NOT_GIVEN, NotGiven, SharedMemory
from naiad.client.result import Result

if TYPE_CHECKING:
    from naiad.client._async_client import AsyncClient
    from naiad.client._call import Call
    from naiad.client._client import Client

_OLD_S = 1.0


class Description:
    """What a server said about a model, and the codec made from it."""

    __slots__ = ("codec", "config", "metadata", "placing", "taken_at", "versions")

    def __init__(
        self,
        name: str,
        version: str | None,
        metadata: ModelMetadata,
        config: ModelConfig,
        shared_memory: SharedMemory | None = None,
    ) -> None:
        self.metadata = metadata
        self.config = config
        self.codec = Codec(name, version or "", Contract.of(metadata, config))
        self.placing = placing_of(self.codec, metadata, config.max_batch_size, shared_memory)
        self.versions = set(metadata.versions)
        self.taken_at = time.monotonic()

    @property
    def old(self) -> bool:
        """Whether the model may have been replaced since."""
        return time.monotonic() - self.taken_at > _OLD_S


class Handle:
    """What :class:`Model` and :class:`AsyncModel` share: everything but waiting."""

    def __init__(self, name: str, version: str | None, *, idempotent: bool) -> None:
        self._described: Description | None = None
        self.idempotent = idempotent
        self.name = name
        self.version = version

    def refresh(self) -> None:
        """Fetch metadata and configuration again at the next use."""
        self._described = None

    def _operation(self, description: Description, inputs: Inputs, options: InferOptions) -> Operation[Result]:
        return operations.infer(
            self.name,
            self.version,
            inputs,
            options,
            description.codec,
            idempotent=self.idempotent,
            placing=description.placing,
        )

    def _notice(self, description: Description, result: Result) -> None:
        """Ask for the description again where another version answers than those that it spoke of."""
        if result.model_version not in description.versions:
            description.versions.add(result.model_version)  # once: servers may differ while a version is rolled out
            self.refresh()


class Model(Handle):
    """A model on a server, made by :meth:`Client.model`.

    Metadata and configuration are fetched at the first use and kept. They are fetched again when the server refuses a
    request, when another version answers, and before a request is refused here because of a description older than
    a second: a model that was replaced by another is noticed.
    """

    def __init__(self, client: Client, name: str, version: str | None, *, idempotent: bool = False) -> None:
        super().__init__(name, version, idempotent=idempotent)
        self._client = client

    def __call__(self, **inputs: Any) -> Result:
        """Infer with the inputs as keyword arguments: ``model(x=batch)["y"]``. See :meth:`infer`."""
        return self._infer(inputs, NO_OPTIONS, NOT_GIVEN)

    def infer(
        self,
        inputs: Inputs,
        *,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> Result:
        """Check the inputs, send them, return the outputs.

        Values are arrays, anything with DLPack (torch tensors on the CPU), or Python numbers, strings and lists,
        which take
        the model's data type. The type of an array is never changed silently.

        Keywords: ``outputs`` (names or :class:`Output`; all by default), ``request_id``, ``priority`` (1 is the
        highest), ``sequence_id`` with ``sequence_start`` and ``sequence_end``, ``parameters`` (passed to the model).

        Raises:
            InvalidInput: an input has a wrong name, type or shape; nothing was sent.
            ClientError: see :mod:`naiad.client.errors`.
        """
        return self._infer(inputs, options_of(keywords), timeout_s)

    def submit(
        self,
        inputs: Inputs,
        *,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> Call[Result]:
        """Send a request without waiting: ``call.result()`` waits, ``call.cancel()`` ends it on the server too.

        The arguments and errors are those of :meth:`infer`; wrong inputs are refused here, the rest in ``result()``.
        """
        _, operation = self._prepare(inputs, options_of(keywords))
        return self._client._start(operation, timeout_s)

    @property
    def metadata(self) -> ModelMetadata:
        """The model's tensors and ready versions."""
        return self._describe().metadata

    @property
    def config(self) -> ModelConfig:
        """The model's configuration as the server completed it."""
        return self._describe().config

    def __repr__(self) -> str:
        return f"<Model {self.name}{'/' + self.version if self.version else ''} at {self._client.url}>"

    def _infer(self, inputs: Inputs, options: InferOptions, timeout_s: float | NotGiven) -> Result:
        description, operation = self._prepare(inputs, options)
        try:
            result = self._client._run(operation, timeout_s)
        except (InvalidInput, ModelNotFound):
            self.refresh()
            raise
        self._notice(description, result)
        return result

    def _prepare(self, inputs: Inputs, options: InferOptions) -> tuple[Description, Operation[Result]]:
        description = self._described or self._describe()
        try:
            return description, self._operation(description, inputs, options)
        except InvalidInput:
            if not description.old:
                raise
        self.refresh()
        description = self._describe()
        return description, self._operation(description, inputs, options)

    def _describe(self) -> Description:
        description = self._described
        if description is None:
            metadata = self._client.model_metadata(self.name, self.version)
            config = self._client.model_config(self.name, self.version)
            shared_memory = self._client._settings.shared_memory
            description = self._described = Description(self.name, self.version, metadata, config, shared_memory)
        return description


class AsyncModel(Handle):
    """A model on a server, made by :meth:`AsyncClient.model`; :class:`Model` with ``await``."""

    def __init__(self, client: AsyncClient, name: str, version: str | None, *, idempotent: bool = False) -> None:
        super().__init__(name, version, idempotent=idempotent)
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

    async def metadata(self) -> ModelMetadata:
        """Return the model's tensors and ready versions."""
        return (await self._describe()).metadata

    async def config(self) -> ModelConfig:
        """Return the model's configuration as the server completed it."""
        return (await self._describe()).config

    def __repr__(self) -> str:
        return f"<AsyncModel {self.name}{'/' + self.version if self.version else ''} at {self._client.url}>"

    async def _infer(self, inputs: Inputs, options: InferOptions, timeout_s: float | NotGiven) -> Result:
        description, operation = await self._prepare(inputs, options)
        try:
            result = await self._client._run(operation, timeout_s)
        except (InvalidInput, ModelNotFound):
            self.refresh()
            raise
        self._notice(description, result)
        return result

    async def _prepare(self, inputs: Inputs, options: InferOptions) -> tuple[Description, Operation[Result]]:
        description = self._described or await self._describe()
        try:
            return description, self._operation(description, inputs, options)
        except InvalidInput:
            if not description.old:
                raise
        self.refresh()
        description = await self._describe()
        return description, self._operation(description, inputs, options)

    async def _describe(self) -> Description:
        description = self._described
        if description is None:
            metadata = await self._client.model_metadata(self.name, self.version)
            config = await self._client.model_config(self.name, self.version)
            shared_memory = self._client._settings.shared_memory
            description = self._described = Description(self.name, self.version, metadata, config, shared_memory)
        return description
