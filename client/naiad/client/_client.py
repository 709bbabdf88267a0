"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from naiad.client._model import Model
from naiad.client._protocol import operations
from naiad.client._protocol.operations import Operation
from naiad.client._protocol.request import InferKeywords, Inputs, options_of
from naiad.client._routing.attempts import Attempts
from naiad.client._settings import DEFAULT_URL, Settings, version_text
from naiad.client._transport.grpcio import GrpcioTransport
from naiad.client._transport.seam import Transport
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


class Client:
    """Calls one Triton server; blocks, and may be shared by threads.

    Example::

        with Client("grpc://localhost:8001", timeout=2.0) as triton:
            probabilities = triton.model("digits")(x=images)["probabilities"]

    Args:
        url: ``grpc://host:port``, ``grpcs://host:port`` for TLS; ``grpc://:SECRET@host:port`` carries the admin
        secret.
        timeout: seconds over all attempts of a call, or a :class:`Timeout`.
        retry: which failures are tried again.
        tls: certificates, where the system's are not the right ones.
        admin_secret: opens the restricted calls (load, unload, repository index).
        metadata: headers sent with every call.

    Raises:
        InvalidInput: an argument is wrong. Nothing is contacted before the first call.
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
        self._transport: Transport = GrpcioTransport(self._settings.connection)

    @property
    def url(self) -> str:
        """The server's address, without secrets."""
        return self._settings.shown

    def model(self, name: str, version: str | int | None = None) -> Model:
        """Return a handle that checks requests before they are sent; the server is asked at its first use."""
        return Model(self, name, version_text(version))

    def infer(
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
        return self._run(operations.infer(model, version_text(version), inputs, options_of(keywords)), timeout_s)

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
        """Ask for the counters of one model, or of all, one entry for each version."""
        return self._run(operations.statistics(model, version_text(version)), timeout_s)

    def models(self, *, timeout_s: float | NotGiven = NOT_GIVEN) -> tuple[ModelState, ...]:
        """List the models of the server's repository and their states (needs the admin secret where one is set)."""
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

        ``config`` and ``files`` (``{"1/model.onnx": data}``) replace what lies in the repository, for this server
        only.

        Raises:
            InvalidInput: the model does not load; the message has the server's reason.
        """
        self._run(operations.load(model, config, files), timeout_s)

    def unload(self, model: str, *, unload_dependents: bool = False, timeout_s: float | NotGiven = NOT_GIVEN) -> None:
        """Stop serving a model; with ``unload_dependents``, the models of an ensemble too."""
        self._run(operations.unload(model, unload_dependents), timeout_s)

    def close(self) -> None:
        """Close the connection; calls that wait are cancelled. Closing twice does nothing."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def _probe(self, operation: Operation[bool]) -> bool:
        try:
            return self._run(operation, min(_PROBE_S, self._settings.timeout.total_s), Retry(attempts=1))
        except (DeadlineExceeded, ModelNotFound, ServerUnavailable):
            return False

    def _run(self, operation: Operation[T], timeout_s: float | NotGiven = NOT_GIVEN, retry: Retry | None = None) -> T:
        settings = self._settings
        attempts = Attempts.begin(operation, settings.shown, timeout_s, settings.timeout, retry or settings.retry)
        while True:
            try:
                return operation.decode(self._transport.call(attempts, attempts.remaining_s()))
            except ClientError as error:
                pause_s = attempts.pause_s(error)
            time.sleep(pause_s)
