"""The asyncio client: :class:`naiad.client.Client` with ``await``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack

from naiad.client._calling.async_caller import AsyncCaller
from naiad.client._device.model import device_model
from naiad.client._model.async_model import AsyncModel
from naiad.client._observe import Observer
from naiad.client._protocol import operations
from naiad.client._protocol.operations import Operation
from naiad.client._protocol.placing import unchecked_placing
from naiad.client._protocol.request import InferKeywords, Inputs, options_of
from naiad.client._routing.endpoint import Servers
from naiad.client._routing.pool import Peer
from naiad.client._settings import DEFAULT_URL, Settings, version_text, with_others
from naiad.client._transport.seam import AsyncTransport
from naiad.client.config import ModelConfig
from naiad.client.control import LogChanges, LogSettings, TraceChanges, TraceSettings
from naiad.client.errors import ClientError, DeadlineExceeded, ModelNotFound, ServerUnavailable
from naiad.client.metadata import ModelMetadata, ModelState, ServerMetadata
from naiad.client.options import (
    NOT_GIVEN,
    TLS,
    Balancing,
    CudaMemory,
    Hedge,
    Limits,
    NotGiven,
    Retry,
    SharedMemory,
    Timeout,
    check_timeout,
)
from naiad.client.result import Result
from naiad.client.statistics import ModelStatistics, ServerState, sums

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")
_POLL_S = 0.05
_PROBE_S = 2.0
_ONCE = Retry(attempts=1)


class AsyncClient:
    """Calls Triton servers from an event loop; arguments and errors are those of :class:`naiad.client.Client`.

    Cancelling the task cancels the call, on the server too.

    Example::

        async with AsyncClient("grpc://gpu1:8001,gpu2:8001", timeout=2.0) as triton:
            digits = triton.model("digits")
            answers = await asyncio.gather(*(digits(x=batch) for batch in batches))
    """

    def __init__(
        self,
        url: Servers = DEFAULT_URL,
        *,
        timeout: Timeout | float = Timeout(),
        retry: Retry = Retry(),
        balancing: Balancing = Balancing(),
        hedge: Hedge | None = None,
        limits: Limits = Limits(),
        tls: TLS | None = None,
        admin_secret: str | None = None,
        metadata: Mapping[str, str] | None = None,
        observers: Sequence[Observer] = (),
        shared_memory: SharedMemory | Literal["auto"] | bool = "auto",
        cuda_memory: CudaMemory | Literal["auto"] | bool = False,
    ) -> None:
        self._settings = Settings.of(
            url,
            timeout=timeout,
            retry=retry,
            balancing=balancing,
            hedge=hedge,
            limits=limits,
            tls=tls,
            admin_secret=admin_secret,
            metadata=metadata,
            observers=observers,
            shared_memory=shared_memory,
            cuda_memory=cuda_memory,
        )
        self._caller = AsyncCaller(self._settings)
        self._pinned: Peer[AsyncTransport] | None = None

    @property
    def url(self) -> str:
        """The address of the server, or servers, without secrets."""
        return self._pinned.shown if self._pinned is not None else self._caller.router.shown

    @property
    def servers(self) -> tuple[ServerState, ...]:
        """The servers as this client sees them now; empty before the first look-up of ``dns:///`` or a function."""
        return self._caller.router.pool.states()

    def only(self, address: str) -> AsyncClient:
        """Return a client for one of this client's servers, over the same connection; closing it does nothing.

        Raises:
            InvalidInput: ``address`` (``host:port``) is none of them.
        """
        view = object.__new__(type(self))
        view._settings, view._caller = self._settings, self._caller
        view._pinned = self._caller.router.find(address)
        return view

    def model(
        self,
        name: str,
        version: str | int | None = None,
        *,
        idempotent: bool = False,
        cast: Literal["safe"] | None = None,
    ) -> AsyncModel:
        """Return a handle that checks requests before they are sent; the server is asked at its first use.

        ``idempotent`` says that a server may run the same request twice: a call whose connection broke is then sent
        again to the same server too. ``cast`` is that of :meth:`Model.infer`, for every request.
        """
        return AsyncModel(self, name, version_text(version), idempotent=idempotent, cast=cast)

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | int | None = None,
        idempotent: bool = False,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> Result:
        """Send one request as it is, without asking for the model's metadata before (:meth:`model` does).

        The keywords are those of :meth:`Model.infer`, ``idempotent`` is that of :meth:`model`.

        Raises:
            InvalidInput: the server refused the request, or a value has no Triton data type.
            ClientError: see :mod:`naiad.client.errors`.
        """
        number = version_text(version)
        operation = operations.infer(
            model,
            number,
            inputs,
            options_of(keywords),
            idempotent=idempotent,
            placing=unchecked_placing(model, number, self._settings.shared_memory),
            on_gpu=device_model(self._settings.devices, model, number),
        )
        return await self._run(operation, timeout_s)

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
        """Ask for the counters of one model, or of all, one entry for each version; of several servers, the sums.

        :meth:`only` asks one of several servers.
        """
        answers = await self._run_everywhere(operations.statistics(model, version_text(version)), timeout_s)
        return answers[0] if len(answers) == 1 else sums(answers)

    async def models(self, *, timeout_s: float | NotGiven = NOT_GIVEN) -> tuple[ModelState, ...]:
        """List the models of a server's repository and their states (needs the admin secret where one is set)."""
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

        Every server of this client loads it; :meth:`only` addresses one. ``config`` and ``files``
        (``{"1/model.onnx": data}``) replace what lies in the repository, for these servers only.

        Raises:
            InvalidInput: the model does not load; the message has the server's reason.
        """
        await self._run_everywhere(operations.load(model, config, files), timeout_s)

    async def unload(
        self, model: str, *, unload_dependents: bool = False, timeout_s: float | NotGiven = NOT_GIVEN
    ) -> None:
        """Stop serving a model, on every server; with ``unload_dependents``, the models of an ensemble too."""
        await self._run_everywhere(operations.unload(model, unload_dependents), timeout_s)

    async def trace_settings(
        self, model: str | None = None, *, timeout_s: float | NotGiven = NOT_GIVEN
    ) -> TraceSettings:
        """Ask which requests are traced, of all models or of one (needs the admin secret where one is set)."""
        return await self._run(operations.trace_settings(model, {}), timeout_s)

    async def update_trace_settings(
        self, model: str | None = None, *, timeout_s: float | NotGiven = NOT_GIVEN, **changes: Unpack[TraceChanges]
    ) -> TraceSettings:
        """Change which requests every server traces, of all models or of one, and return what holds now.

        Keywords: ``levels`` (``["TIMESTAMPS", "TENSORS"]``, empty for none), ``rate`` (one request in so many),
        ``count`` (how many more, -1 for no end), ``log_frequency`` (traces in a file); ``None`` goes back to what holds
        for all models, or held at the server's start. Where the traces go is said at its start only.

        Raises:
            InvalidInput: a value is wrong, or the server was started without a place for traces.
            ModelNotFound: no such model is served.
        """
        return (await self._run_everywhere(operations.trace_settings(model, changes), timeout_s))[0]

    async def log_settings(self, *, timeout_s: float | NotGiven = NOT_GIVEN) -> LogSettings:
        """Ask what the server logs (needs the admin secret where one is set)."""
        return await self._run(operations.log_settings({}), timeout_s)

    async def update_log_settings(
        self, *, timeout_s: float | NotGiven = NOT_GIVEN, **changes: Unpack[LogChanges]
    ) -> LogSettings:
        """Change what every server logs, and return what holds now.

        Keywords: ``info``, ``warning``, ``error`` (whether they are logged), ``verbose_level`` (0 for none), ``format``
        (``"default"`` or ``"ISO8601"``).

        Raises:
            InvalidInput: a value is wrong.
        """
        return (await self._run_everywhere(operations.log_settings(changes), timeout_s))[0]

    async def close(self) -> None:
        """Close the connections; calls that wait are cancelled. Closing twice does nothing."""
        if self._pinned is None:
            await self._caller.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def _probe(self, operation: Operation[bool]) -> bool:
        timeout_s = min(_PROBE_S, self._settings.timeout.total_s)
        try:
            return await self._caller.run(operation, timeout_s, retry=_ONCE, peer=self._pinned)
        except (DeadlineExceeded, ModelNotFound, ServerUnavailable):
            return False

    async def _run(self, operation: Operation[T], timeout_s: float | NotGiven = NOT_GIVEN) -> T:
        return await self._caller.run(operation, timeout_s, peer=self._pinned)

    async def _run_everywhere(self, operation: Operation[T], timeout_s: float | NotGiven = NOT_GIVEN) -> list[T]:
        """Ask all servers at once, and raise the first error after all have answered."""
        peers = await self._caller.peers() if self._pinned is None else (self._pinned,)
        calls = [self._caller.run(operation, timeout_s, peer=peer) for peer in peers]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        errors = [error for error in ended if isinstance(error, ClientError)]
        answers = [answer for answer in ended if not isinstance(answer, BaseException)]
        if errors:
            raise with_others(errors, len(answers))
        for other in ended:
            if isinstance(other, BaseException):
                raise other
        return answers
