"""The asyncio client: :class:`naiad.client.Client` with ``await``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from naiad.client._model import AsyncModel
from naiad.client._protocol import operations
from naiad.client._protocol.operations import Operation
from naiad.client._protocol.request import InferKeywords, Inputs, options_of
from naiad.client._routing.attempts import Attempts
from naiad.client._settings import DEFAULT_URL, Settings, version_text
from naiad.client._transport.grpcio import AsyncGrpcioTransport
from naiad.client._transport.seam import AsyncTransport
from naiad.client.errors import ClientError, DeadlineExceeded, ModelNotFound, ServerUnavailable
from naiad.client.metadata import ModelMetadata, ModelState, ServerMetadata
from naiad.client.options import NOT_GIVEN, TLS, NotGiven, Retry, Timeout, check_timeout
from naiad.client.result import Result
from naiad.client.statistics import ModelStatistics

if TYPE_CHECKING:
    from types import TracebackType

    from tritonclient.grpc.model_config_pb2 import ModelConfig

T = TypeVar("T")
_POLL_S = 0.05
_PROBE_S = 2.0


class AsyncClient:
    """Calls one Triton server from an event loop; arguments and errors are those of :class:`naiad.client.Client`.

    Cancelling the task cancels the call, on the server too.

    Example::

        async with AsyncClient("grpc://localhost:8001", timeout=2.0) as triton:
            digits = triton.model("digits")
            answers = await asyncio.gather(*(digits(x=batch) for batch in batches))
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: Timeout | float = Timeout(),
        retry: Retry = Retry(),
        tls: TLS | None = None,
        admin_secret: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = Settings.of(
            url, timeout=timeout, retry=retry, tls=tls, admin_secret=admin_secret, metadata=metadata
        )
        self._transport: AsyncTransport = AsyncGrpcioTransport(self._settings.connection)

    @property
    def url(self) -> str:
        """The server's address, without secrets."""
        return self._settings.shown

    def model(self, name: str, version: str | int | None = None) -> AsyncModel:
        """Return a handle that checks requests before they are sent; the server is asked at its first use."""
        return AsyncModel(self, name, version_text(version))

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | int | None = None,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> Result:
        """Send one request as it is, without asking for the model's metadata before (:meth:`model` does).

        The keywords are those of :meth:`Model.infer`.

        Raises:
            InvalidInput: the server refused the request, or a value has no Triton data type.
            ClientError: see :mod:`naiad.client.errors`.
        """
        return await self._run(operations.infer(model, version_text(version), inputs, options_of(keywords)), timeout_s)

    async def live(self) -> bool:
        """Whether the server runs and answers; ``False`` if nobody answers."""
        return await self._probe(operations.live())

    async def ready(self, model: str | None = None, version: str | int | None = None) -> bool:
        """Whether the server, or the named model, takes requests; ``False`` if nobody answers or it is unknown."""
        return await self._probe(operations.ready(model, version_text(version)))

    async def wait_ready(
        self, timeout_s: float = 30.0, model: str | None = None, version: str | int | None = None
    ) -> None:
        """Return as soon as the server, or the named model, takes requests.

        Raises:
            DeadlineExceeded: it does not within ``timeout_s``.
        """
        deadline = time.monotonic() + check_timeout(timeout_s)
        while not await self.ready(model, version):
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"{model or 'the server'} at {self.url} is not ready after {timeout_s:g} s",
                    model=model,
                    endpoint=self.url,
                )
            await asyncio.sleep(_POLL_S)

    async def server_metadata(self, *, timeout_s: float | NotGiven = NOT_GIVEN) -> ServerMetadata:
        """Ask for the server's version and protocol extensions."""
        return await self._run(operations.server_metadata(), timeout_s)

    async def model_metadata(
        self, model: str, version: str | int | None = None, *, timeout_s: float | NotGiven = NOT_GIVEN
    ) -> ModelMetadata:
        """Ask for a model's tensors and ready versions."""
        return await self._run(operations.model_metadata(model, version_text(version)), timeout_s)

    async def model_config(
        self, model: str, version: str | int | None = None, *, timeout_s: float | NotGiven = NOT_GIVEN
    ) -> ModelConfig:
        """Ask for a model's configuration as the server completed it."""
        return await self._run(operations.model_config(model, version_text(version)), timeout_s)

    async def statistics(
        self, model: str | None = None, version: str | int | None = None, *, timeout_s: float | NotGiven = NOT_GIVEN
    ) -> tuple[ModelStatistics, ...]:
        """Ask for the counters of one model, or of all, one entry for each version."""
        return await self._run(operations.statistics(model, version_text(version)), timeout_s)

    async def models(self, *, timeout_s: float | NotGiven = NOT_GIVEN) -> tuple[ModelState, ...]:
        """List the models of the server's repository and their states (needs the admin secret where one is set)."""
        return await self._run(operations.repository_index(), timeout_s)

    async def load(
        self,
        model: str,
        *,
        config: ModelConfig | Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout_s: float | NotGiven = NOT_GIVEN,
    ) -> None:
        """Load a model, or load it again after a change; the versions served before go on until the new ones are ready.

        ``config`` and ``files`` (``{"1/model.onnx": data}``) replace what lies in the repository, for this server
        only.

        Raises:
            InvalidInput: the model does not load; the message has the server's reason.
        """
        await self._run(operations.load(model, config, files), timeout_s)

    async def unload(
        self, model: str, *, unload_dependents: bool = False, timeout_s: float | NotGiven = NOT_GIVEN
    ) -> None:
        """Stop serving a model; with ``unload_dependents``, the models of an ensemble too."""
        await self._run(operations.unload(model, unload_dependents), timeout_s)

    async def close(self) -> None:
        """Close the connection; calls that wait are cancelled. Closing twice does nothing."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def _probe(self, operation: Operation[bool]) -> bool:
        try:
            return await self._run(operation, min(_PROBE_S, self._settings.timeout.total_s), Retry(attempts=1))
        except (DeadlineExceeded, ModelNotFound, ServerUnavailable):
            return False

    async def _run(
        self, operation: Operation[T], timeout_s: float | NotGiven = NOT_GIVEN, retry: Retry | None = None
    ) -> T:
        settings = self._settings
        attempts = Attempts.begin(operation, settings.shown, timeout_s, settings.timeout, retry or settings.retry)
        while True:
            try:
                return operation.decode(await self._transport.call(attempts, attempts.remaining_s()))
            except ClientError as error:
                pause_s = attempts.pause_s(error)
            await asyncio.sleep(pause_s)
