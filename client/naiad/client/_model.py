"""A served model as an object: requests are checked against its metadata before a byte is sent."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Unpack

from naiad.client._protocol import operations
from naiad.client._protocol.codec import Codec
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.request import NO_OPTIONS, InferKeywords, InferOptions, Inputs, options_of
from naiad.client.errors import InvalidInput, ModelNotFound
from naiad.client.metadata import ModelMetadata
from naiad.client.options import NOT_GIVEN, NotGiven
from naiad.client.result import Result

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    from naiad.client._async_client import AsyncClient
    from naiad.client._client import Client


class Model:
    """A model on a server, made by :meth:`Client.model`.

    Metadata and configuration are fetched at the first use and kept; a request that the server refuses makes the
    next one
    fetch them again, so that a model that was replaced by another is noticed.
    """

    def __init__(self, client: Client, name: str, version: str | None) -> None:
        self._client = client
        self._described: tuple[ModelMetadata, ModelConfig, Codec] | None = None
        self.name = name
        self.version = version

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

    @property
    def metadata(self) -> ModelMetadata:
        """The model's tensors and ready versions."""
        return self._describe()[0]

    @property
    def config(self) -> ModelConfig:
        """The model's configuration as the server completed it."""
        return self._describe()[1]

    def refresh(self) -> None:
        """Fetch metadata and configuration again at the next use."""
        self._described = None

    def __repr__(self) -> str:
        return f"<Model {self.name}{'/' + self.version if self.version else ''} at {self._client.url}>"

    def _infer(self, inputs: Inputs, options: InferOptions, timeout_s: float | NotGiven) -> Result:
        _, _, codec = self._described or self._describe()
        operation = operations.infer(self.name, self.version, inputs, options, codec)
        try:
            return self._client._run(operation, timeout_s)
        except (InvalidInput, ModelNotFound):
            self.refresh()
            raise

    def _describe(self) -> tuple[ModelMetadata, ModelConfig, Codec]:
        if self._described is None:
            metadata = self._client.model_metadata(self.name, self.version)
            config = self._client.model_config(self.name, self.version)
            self._described = metadata, config, _codec(self, metadata, config)
        return self._described


class AsyncModel:
    """A model on a server, made by :meth:`AsyncClient.model`; :class:`Model` with ``await``."""

    def __init__(self, client: AsyncClient, name: str, version: str | None) -> None:
        self._client = client
        self._described: tuple[ModelMetadata, ModelConfig, Codec] | None = None
        self.name = name
        self.version = version

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
        return (await self._describe())[0]

    async def config(self) -> ModelConfig:
        """Return the model's configuration as the server completed it."""
        return (await self._describe())[1]

    def refresh(self) -> None:
        """Fetch metadata and configuration again at the next use."""
        self._described = None

    def __repr__(self) -> str:
        return f"<AsyncModel {self.name}{'/' + self.version if self.version else ''} at {self._client.url}>"

    async def _infer(self, inputs: Inputs, options: InferOptions, timeout_s: float | NotGiven) -> Result:
        _, _, codec = self._described or await self._describe()
        operation = operations.infer(self.name, self.version, inputs, options, codec)
        try:
            return await self._client._run(operation, timeout_s)
        except (InvalidInput, ModelNotFound):
            self.refresh()
            raise

    async def _describe(self) -> tuple[ModelMetadata, ModelConfig, Codec]:
        if self._described is None:
            metadata = await self._client.model_metadata(self.name, self.version)
            config = await self._client.model_config(self.name, self.version)
            self._described = metadata, config, _codec(self, metadata, config)
        return self._described


def _codec(model: Model | AsyncModel, metadata: ModelMetadata, config: ModelConfig) -> Codec:
    return Codec(model.name, model.version or "", Contract.of(metadata, config))
