"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack

from naiad.client._calling.call import Call
from naiad.client._calling.caller import Caller
from naiad.client._device.model import device_model
from naiad.client._model.model import Model
from naiad.client._observe import Observer
from naiad.client._protocol import operations
from naiad.client._protocol.operations import Operation
from naiad.client._protocol.placing import unchecked_placing
from naiad.client._protocol.request import InferKeywords, Inputs, options_of
from naiad.client._routing.endpoint import Servers
from naiad.client._routing.pool import Peer
from naiad.client._settings import DEFAULT_URL, Settings, version_text, with_others
from naiad.client._transport.seam import Transport
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


class Client:
    """Calls Triton servers; blocks, and may be shared by threads, greenlets and forked processes.

    Example::

        with Client("grpc://gpu1:8001,gpu2:8001", timeout=2.0) as triton:
            probabilities = triton.model("digits")(x=images)["probabilities"]

    Args:
        url: ``grpc://host:port``, ``grpcs://host:port`` for TLS; several servers with commas or as a list,
            ``dns:///name:port`` for all addresses of a name, or a function that returns the URLs of the moment;
            ``grpc://:SECRET@host:port`` carries the admin secret.
        timeout: seconds over all attempts of a call, or a :class:`Timeout`.
        retry: which failures are tried again, and how often.
        balancing: which server gets a call, and when one is left alone.
        hedge: ask a second server when the first is slow; never, by default.
        limits: calls in flight, size of answers.
        tls: certificates, where the system's are not the right ones.
        admin_secret: opens the restricted calls (load, unload, repository index).
        metadata: headers sent with every call.
        observers: what sees every call; :mod:`naiad.client.telemetry` has some.
        shared_memory: large tensors reach a server on this machine through memory, by default where it allows that;
            ``True`` tries it with every server, ``False`` with none, a :class:`SharedMemory` says more.
        cuda_memory: tensors on a GPU go in and come out through CUDA shared memory; ``True`` makes it an error where
            that cannot be, ``"auto"`` goes by the host's memory then, a :class:`CudaMemory` says more. By default such
            tensors are refused.

    Raises:
        InvalidInput: an argument is wrong. Nothing is contacted before the first call.
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
        self._caller = Caller(self._settings)
        self._pinned: Peer[Transport] | None = None

    @property
    def url(self) -> str:
        """The address of the server, or servers, without secrets."""
        return self._pinned.shown if self._pinned is not None else self._caller.router.shown

    @property
    def servers(self) -> tuple[ServerState, ...]:
        """The servers as this client sees them now."""
        return self._caller.router.pool.states()

    def only(self, address: str) -> Client:
        """Return a client for one of this client's servers, over the same connection; closing it does nothing.

        Raises:
            InvalidInput: ``address`` (``host:port``) is none of them.
        """
        assert self._caller.peers
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
    ) -> Model:
        """Return a handle that checks requests before they are sent; the server is asked at its first use.

        ``idempotent`` says that a server may run the same request twice: a call whose connection broke is then sent
        again to the same server too. ``cast`` is that of :meth:`Model.infer`, for every request.
        """
        return Model(self, name, version_text(version), idempotent=idempotent, cast=cast)

    def infer(
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
        return self._run(operation, timeout_s)

    def live(self) -> bool:
        """Whether the server runs and answers; ``False`` if nobody answers."""
        return self._probe(operations.live())

    def ready(self, model: str | None = None, version: str | int | None = None) -> bool:
        """Whether the server, or the named model, takes requests; ``False`` if nobody answers or it is unknown."""
        return self._probe(operations.ready(model, version_text(version)))

    def wait_ready(self, timeout_s: float = 30.0, model: str | None = None, version: str | int | None = None) -> None:
        """Return as soon as the server, or the named model, takes requests.

        Raises:
            DeadlineExceeded: it does not within ``timeout_s``.
        """
        deadline = time.monotonic() + check_timeout(timeout_s)
        while not self.ready(model, version):
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"{model or 'the server'} at {self.url} is not ready after {timeout_s:g} s",
                    model=model,
                    endpoint=self.url,
                )
            time.sleep(_POLL_S)

    def server_metadata(self, *, timeout_s: float | NotGiven = NOT_GIVEN) -> ServerMetadata:
        """Ask for the server's version and protocol extensions."""
        return self._run(operations.server_metadata(), timeout_s)

    def model_metadata(
        self, model: str, version: str | int | None = None, *, timeout_s: float | NotGiven = NOT_GIVEN
    ) -> ModelMetadata:
        """Ask for a model's tensors and ready versions."""
        return self._run(operations.model_metadata(model, version_text(version)), timeout_s)

    def model_config(
        self, model: str, version: str | int | None = None, *, timeout_s: float | NotGiven = NOT_GIVEN
    ) -> ModelConfig:
        """Ask for a model's configuration as the server completed it."""
        return self._run(operations.model_config(model, version_text(version)), timeout_s)

    def statistics(
        self, model: str | None = None, version: str | int | None = None, *, timeout_s: float | NotGiven = NOT_GIVEN
    ) -> tuple[ModelStatistics, ...]:
        """Ask for the counters of one model, or of all, one entry for each version; of several servers, the sums.

        :meth:`only` asks one of several servers.
        """
        answers = self._run_everywhere(operations.statistics(model, version_text(version)), timeout_s)
        return answers[0] if len(answers) == 1 else sums(answers)

    def models(self, *, timeout_s: float | NotGiven = NOT_GIVEN) -> tuple[ModelState, ...]:
        """List the models of a server's repository and their states (needs the admin secret where one is set)."""
        return self._run(operations.repository_index(), timeout_s)

    def load(
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
        self._run_everywhere(operations.load(model, config, files), timeout_s)

    def unload(self, model: str, *, unload_dependents: bool = False, timeout_s: float | NotGiven = NOT_GIVEN) -> None:
        """Stop serving a model, on every server; with ``unload_dependents``, the models of an ensemble too."""
        self._run_everywhere(operations.unload(model, unload_dependents), timeout_s)

    def trace_settings(self, model: str | None = None, *, timeout_s: float | NotGiven = NOT_GIVEN) -> TraceSettings:
        """Ask which requests are traced, of all models or of one (needs the admin secret where one is set)."""
        return self._run(operations.trace_settings(model, {}), timeout_s)

    def update_trace_settings(
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
        return self._run_everywhere(operations.trace_settings(model, changes), timeout_s)[0]

    def log_settings(self, *, timeout_s: float | NotGiven = NOT_GIVEN) -> LogSettings:
        """Ask what the server logs (needs the admin secret where one is set)."""
        return self._run(operations.log_settings({}), timeout_s)

    def update_log_settings(
        self, *, timeout_s: float | NotGiven = NOT_GIVEN, **changes: Unpack[LogChanges]
    ) -> LogSettings:
        """Change what every server logs, and return what holds now.

        Keywords: ``info``, ``warning``, ``error`` (whether they are logged), ``verbose_level`` (0 for none), ``format``
        (``"default"`` or ``"ISO8601"``).

        Raises:
            InvalidInput: a value is wrong.
        """
        return self._run_everywhere(operations.log_settings(changes), timeout_s)[0]

    def close(self) -> None:
        """Close the connections; calls that wait are cancelled. Closing twice does nothing."""
        if self._pinned is None:
            self._caller.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def _probe(self, operation: Operation[bool]) -> bool:
        timeout_s = min(_PROBE_S, self._settings.timeout.total_s)
        try:
            return self._caller.run(operation, timeout_s, retry=_ONCE, peer=self._pinned)
        except (DeadlineExceeded, ModelNotFound, ServerUnavailable):
            return False

    def _run(self, operation: Operation[T], timeout_s: float | NotGiven = NOT_GIVEN) -> T:
        return self._caller.run(operation, timeout_s, peer=self._pinned)

    def _start(self, operation: Operation[T], timeout_s: float | NotGiven = NOT_GIVEN) -> Call[T]:
        return Call(self._caller, self._caller.begin(operation, timeout_s, peer=self._pinned))

    def _run_everywhere(self, operation: Operation[T], timeout_s: float | NotGiven = NOT_GIVEN) -> list[T]:
        """Ask all servers, one after the other, and raise the first error after all were asked."""
        answers, errors = list[T](), list[ClientError]()
        for peer in self._caller.peers if self._pinned is None else (self._pinned,):
            try:
                answers.append(self._caller.run(operation, timeout_s, peer=peer))
            except ClientError as error:
                errors.append(error)
        if errors:
            raise with_others(errors, len(answers))
        return answers
