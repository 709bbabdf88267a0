"""Sequences: requests that a stateful model counts together, sent to one server and in order."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from naiad.client._protocol.request import InferOptions, Inputs, Output
from naiad.client._protocol.tensors import as_array
from naiad.client._protocol.wire import Parameter
from naiad.client.errors import (
    Cancelled,
    ClientError,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    InvalidResponse,
    ModelNotFound,
    Overloaded,
    SequenceLost,
    ServerUnavailable,
)
from naiad.client.options import NOT_GIVEN, NotGiven
from naiad.client.result import Result

if TYPE_CHECKING:
    from types import TracebackType

    from naiad.client._model.handle import Description, Handle
    from naiad.client._model.model import Model
    from naiad.client._protocol.operations import Operation
    from naiad.client._routing.attempts import Attempts
    from naiad.client.config import ModelConfig
    from naiad.client.options import Retry

_log = logging.getLogger("naiad.client")
END_S: Final = 5.0
_CORRELATION_ID: Final = 3  # of model_config.proto's ModelSequenceBatching.Control.Kind
_STRING: Final = 13  # of its DataType
_BITS: Final = {4: 32, 5: 63, 8: 31, 9: 63}  # UINT32, UINT64, INT32, INT64; Triton takes no request with more
_MAY_HAVE_RUN: Final = (Cancelled, DeadlineExceeded, InferenceFailed, InvalidResponse)


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceOptions:
    """How a sequence behaves."""

    sequence_id: int | str | None
    end_on_exit: bool
    retry: bool
    timeout_s: float | NotGiven

    def __post_init__(self) -> None:
        given = self.sequence_id
        if given is None or (isinstance(given, str) and given):
            return
        if isinstance(given, bool) or not isinstance(given, int) or not 0 < given < 2**63:
            raise InvalidInput(f"a sequence_id is a number above 0 of at most 63 bits, or a text, found {given!r}")


class State:
    """What a sequence knows between its requests; shared by both clients, never waits."""

    def __init__(self, model: Handle, options: SequenceOptions) -> None:
        self._handle = model
        self._options = options
        self._id = options.sequence_id
        self._peer: Any = None
        """The server that has the state, or may have it."""
        self._began = self._ended = False
        self._lost: SequenceLost | None = None
        self._last: tuple[Description, Inputs] | None = None

    @property
    def sequence_id(self) -> int | str | None:
        """The correlation ID that the model sees; ``None`` before the first request if it was not given."""
        return self._id

    def _operation(
        self, description: Description, inputs: Inputs, options: InferOptions, timeout_s: float | NotGiven
    ) -> Operation[Result]:
        if self._lost is not None:
            raise self._lost
        if self._ended:
            raise InvalidInput(f"the sequence {self._id!r} of model '{self._handle.name}' has ended: begin a new one")
        if self._id is None:
            self._id = random_id(description.config)
        check_id(self._id, description.config)
        options = replace(options, sequence_id=self._id, sequence_start=not self._began)
        return self._handle._operation(description, inputs, options, timeout_s)

    def _retry(self, usual: Retry) -> Retry:
        """Return the rules for the next request: the first one may go elsewhere while no server has it."""
        return replace(usual, sequences=True) if self._options.retry or not self._began else usual

    def _answered(self, attempts: Attempts, description: Description, inputs: Inputs, result: Result) -> None:
        self._began = True
        self._peer = attempts.tried[-1]
        self._last = description, inputs
        self._handle._notice(description, result)

    def _failed(
        self, attempts: Attempts, description: Description, inputs: Inputs, error: BaseException
    ) -> BaseException:
        """Note a failure, and return what to raise."""
        if self._began:
            if isinstance(error, ClientError) and _says_lost(error):
                self._lost = self._loss(error)
                return self._lost
        elif attempts.tried and (isinstance(error, _MAY_HAVE_RUN) or not isinstance(error, ClientError)):
            self._peer = attempts.tried[-1]
            self._last = description, inputs
        if isinstance(error, (InvalidInput, ModelNotFound)):
            self._handle.refresh()
        return error

    def _loss(self, error: ClientError) -> SequenceLost:
        return SequenceLost(
            f"{self._peer.shown} has lost the state of sequence {self._id!r} of model '{self._handle.name}' ({error}): "
            "begin a new sequence",
            model=self._handle.name,
            version=error.version,
            endpoint=self._peer.shown,
            request_id=error.request_id,
            status=error.status,
            unprocessed=error.unprocessed,
        )

    def _zeros(self) -> Inputs | None:
        """Return the inputs of a last request, ``None`` where none is due."""
        if self._last is None or self._ended or self._lost is not None or not self._options.end_on_exit:
            return None
        description, inputs = self._last
        types = {tensor.name: tensor.datatype for tensor in description.metadata.inputs}
        return {name: _zeros_like(as_array(value, types.get(name))) for name, value in inputs.items()}

    def _not_ended(self, error: ClientError) -> None:
        _log.warning("sequence %r of model '%s' was not ended: %s", self._id, self._handle.name, error)


class Sequence(State):
    """Requests that a stateful model counts together, made by :meth:`Model.sequence`.

    ::

        with model.sequence() as seq:
            for chunk in chunks:
                text = seq(audio=chunk)["text"]

    All of them go to one server, chosen at the first; the first starts the sequence. At the end of the block the
    server is told with one more request, whose tensors are zeros in the shapes of the last one, so that the model's
    slot is free for others; give ``end=True`` with the last real request to spare that. Threads may share a sequence:
    their requests are sent one after the other.

    A request that timed out may have been counted by the model. Requests are not retried, except the first as long as
    no server has it, and with ``retry=True`` those that surely did not run.

    Raises, where a request is made:
        SequenceLost: the server went away, was restarted or forgot the sequence in an idle time; nothing more works.
        InvalidInput: the sequence has ended.
        ClientError: see :mod:`naiad.client.errors`.
    """

    def __init__(self, model: Model, options: SequenceOptions) -> None:
        super().__init__(model, options)
        self._model = model
        self._lock = threading.Lock()

    def __call__(self, **inputs: Any) -> Result:
        """Infer with the inputs as keyword arguments: ``seq(x=batch)["y"]``."""
        return self.infer(inputs)

    def infer(
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
        with self._lock:
            return self._infer(inputs, options, limit)

    def close(self) -> None:
        """End the sequence, unless it has ended or nothing was sent; that this fails is only logged."""
        with self._lock:
            zeros = self._zeros()
            if zeros is not None:
                try:
                    self._infer(zeros, InferOptions(sequence_end=True), END_S)
                except ClientError as error:
                    self._not_ended(error)
            self._ended = True

    def __enter__(self) -> Sequence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _infer(self, inputs: Inputs, options: InferOptions, timeout_s: float | NotGiven) -> Result:
        client = self._model._client
        description, operation = self._model._with_description(
            lambda description: (description, self._operation(description, inputs, options, timeout_s))
        )
        attempts = client._caller.begin(
            operation, timeout_s, retry=self._retry(client._settings.retry), peer=self._peer or client._pinned
        )
        try:
            result: Result = client._caller.complete(attempts)
        except BaseException as error:
            found = self._failed(attempts, description, inputs, error)
            if found is error:
                raise
            raise found from error
        self._answered(attempts, description, inputs, result)
        self._ended = options.sequence_end
        return result


def random_id(config: ModelConfig) -> int | str:
    """Return a correlation ID that no other sequence has, of the type that the model declares."""
    datatype = _datatype_of_id(config)
    if datatype == _STRING:
        return secrets.token_hex(16)
    return 1 + secrets.randbelow(2 ** _BITS[datatype] - 1)


def check_id(given: int | str, config: ModelConfig) -> None:
    """Raise :class:`InvalidInput` unless the model can tell ``given`` from others: Triton would make it a 0."""
    datatype = _datatype_of_id(config, None)
    if datatype is None:
        return
    if isinstance(given, str) != (datatype == _STRING):
        wanted = "a text" if datatype == _STRING else "a number"
        raise InvalidInput(f"model '{config.name}' declares {wanted} as its correlation ID, found {given!r}")
    if isinstance(given, int) and given >= 2 ** _BITS[datatype]:
        raise InvalidInput(f"model '{config.name}' declares a correlation ID of {_BITS[datatype]} bits, found {given}")


def _datatype_of_id(config: ModelConfig, default: Any = 5) -> Any:
    for control in config.sequence_batching.control_input:
        for use in control.control:
            if use.kind == _CORRELATION_ID:
                return use.data_type
    return default


def _zeros_like(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind in "OSUT":
        return np.full(array.shape, b"", np.object_)
    return np.zeros(array.shape, array.dtype)


def _says_lost(error: ClientError) -> bool:
    """Whether the server that answered so cannot have the state any more."""
    if isinstance(error, ServerUnavailable):
        return not isinstance(error, Overloaded)
    if isinstance(error, InvalidInput):
        return "must specify the START flag" in str(error)
    return isinstance(error, InferenceFailed) and error.retryable  # the model's process died
