"""What a stream holds while a server answers it, and what its end means; shared by both clients, never waits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from naiad.client._protocol import operations
from naiad.client._protocol.request import InferOptions, Inputs, check_on_host
from naiad.client._protocol.stream import METHOD, Parts, asking_for_final
from naiad.client._routing.attempts import Attempts
from naiad.client._transport.seam import RpcFailed
from naiad.client.errors import Cancelled, ClientError, DeadlineExceeded, InvalidInput, InvalidResponse
from naiad.client.options import NotGiven, check_timeout
from naiad.client.result import Result

if TYPE_CHECKING:
    from naiad.client._model.handle import Description, Handle
    from naiad.client._protocol.operations import Operation

SETTLE_S: Final = 0.1
"""How long to wait for the orderly end of a stream that has nothing more to say. A stream of Triton 24.10 that is
cancelled in the moment in which its model ends it can take the whole server down."""


class Cancellable(Protocol):
    """What a flow needs of a call."""

    def cancel(self) -> None:
        """End the stream here and on the server."""
        ...


CallT = TypeVar("CallT", bound=Cancellable)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What the caller of a stream asked for."""

    inputs: Inputs
    options: InferOptions
    timeout_s: float | NotGiven
    idle_timeout_s: float | None

    def __post_init__(self) -> None:
        if self.options.out is not None:
            raise InvalidInput("out receives one answer; the parts of a stream come in arrays of their own")
        check_on_host(self.options)
        if self.idle_timeout_s is not None:
            check_timeout(self.idle_timeout_s, "idle_timeout_s")

    def limit_s(self, default_s: float) -> float:
        """Return how long the whole stream may take."""
        return default_s if isinstance(self.timeout_s, NotGiven) else check_timeout(self.timeout_s)

    def operation(self, model: Handle, description: Description, limit_s: float) -> Operation[Result]:
        """Build the request.

        Raises:
            InvalidInput: an input has a wrong name, type or shape.
        """
        unary = operations.infer(
            model.name,
            model.version,
            self.inputs,
            asking_for_final(self.options),
            description.codec,
            idempotent=model.idempotent,
            queue_timeout_us=int(limit_s * 1e6) if description.codec.queue_timeout else 0,
        )
        return unary._replace(method=METHOD)


class Flow(Generic[CallT]):
    """One stream from its first attempt to its end, which happens once, whoever brings it about."""

    __slots__ = (
        "_call",
        "_given_back",
        "_lock",
        "_over",
        "_pid",
        "_release",
        "attempts",
        "began",
        "guard",
        "parts",
        "peer",
    )

    def __init__(self, attempts: Attempts, release: Callable[[], None]) -> None:
        attempts.attempt_s = None  # the limit of one attempt is meant for one answer
        self._lock = threading.Lock()
        self._call: CallT | None = None
        self._over = self._given_back = False
        self._pid = os.getpid()
        self._release = release
        self.attempts = attempts
        self.parts = Parts(attempts.operation.decode)
        self.guard: Any = None
        """What watches for a part that does not come, in the blocking client."""
        self.peer: Any = None
        self.began = 0.0

    @property
    def over(self) -> bool:
        """Whether the stream has ended, in whatever way."""
        return self._over

    def pick(self) -> Any:
        """Choose the server of the next attempt."""
        if self._over:
            raise self.cancelled()
        self.peer = self.attempts.pick()
        self.began = time.monotonic()
        return self.peer

    def opened(self, call: CallT) -> None:
        """Take the call that this attempt is."""
        with self._lock:
            if not self._over:
                self._call = call
                return
        call.cancel()  # by another thread in between
        self.attempts.pool.left(self.peer)
        raise self.cancelled()

    def closed(self) -> bool:
        """Note that the call has ended; return whether its end is still to be counted."""
        return self._take(over=False) is not None

    def read(self, message: bytes) -> Result | None:
        """Return the part in ``message``, ``None`` if it only says that there are no more."""
        part = self.parts.read(message)
        if part is not None:
            part.timing = self.attempts._timing(self.began, time.monotonic(), self.peer.shown)
        return part

    def ended(self) -> None:
        """Note that the server closed the stream.

        Raises:
            InvalidResponse: too early.
        """
        try:
            self.parts.ended()
        except InvalidResponse as error:
            raise self.broken(error) from None

    def pause_s(self, error: ClientError) -> float:
        """Return how long to wait before the next attempt: of a stream that no server began.

        Raises:
            ClientError: ``error`` itself, if there is to be no other attempt.
        """
        if self._over or self.parts.num_parts or not (error.unprocessed or self.attempts.operation.idempotent):
            raise error
        return self.attempts.pause_s(error)

    def slow(self, failure: RpcFailed, idle_timeout_s: float | None) -> DeadlineExceeded | None:
        """Count a stream that took too long, at the whole or (``idle_timeout_s``) in one wait, and return its error."""
        attempts, parts = self.attempts, self.parts
        model = f"the stream of model '{attempts.operation.model}' at {self.peer.shown}"
        if idle_timeout_s is not None:
            text = f"{model}: no part came within {idle_timeout_s:g} s (idle_timeout_s), after {parts.num_parts} parts"
        elif failure.status == "DEADLINE_EXCEEDED":
            text = (
                f"{model} was not at its end after {attempts.timeout_s:g} s and {parts.num_parts} parts: "
                "give timeout_s to stream_infer, or Timeout.stream_s to the client"
            )
        else:
            return None
        operation = attempts.operation
        error = DeadlineExceeded(
            text,
            model=operation.model,
            version=operation.version,
            endpoint=self.peer.shown,
            request_id=operation.request_id,
            status="DEADLINE_EXCEEDED",
        )
        if parts.num_parts and idle_timeout_s is None:
            attempts.pool.answered(self.peer)  # a long answer is no fault of the server's
        else:
            attempts.failed(self.peer, error)
        return error

    def broken(self, error: InvalidResponse) -> ClientError:
        """Count an answer that does not follow the protocol, and return its error."""
        if not self.closed():
            return self.cancelled()
        error.endpoint, error.model = self.peer.shown, self.attempts.operation.model
        self.attempts.failed(self.peer, error)
        return error

    def cancelled(self) -> Cancelled:
        """Return the error of a part that was asked for after the stream was cancelled."""
        return cancelled(self.attempts.operation.model)

    def finished(self) -> None:
        """Count a stream that came to its end."""
        if self._take(over=True) is not None:
            self.attempts.pool.answered(self.peer)
            self._give_back()

    def failed(self, error: BaseException) -> None:
        """Count a stream that ended with ``error``; the attempt was counted before."""
        self._over = True
        self._give_back(error)

    def leave(self) -> None:
        """Cancel what is under way, here and on the server; nothing if the stream has ended."""
        if self.drop() is not None:
            self.settle()

    def drop(self) -> CallT | None:
        """Cancel what is under way and return it; :meth:`settle` has to follow.

        In two steps for the garbage collector, which may come while this thread holds a lock that counting needs.
        """
        if os.getpid() != self._pid:
            _inherited.append(self)
            return None
        call = self._take(over=True)
        if call is not None:
            call.cancel()
        return call

    def settle(self) -> None:
        """Count a stream that was left."""
        self.attempts.pool.left(self.peer)
        self._give_back()

    def _take(self, *, over: bool) -> CallT | None:
        """Take the call away from everybody else who may want to end it."""
        with self._lock:
            call, self._call = self._call, None
            self._over = self._over or over
            return call

    def _give_back(self, error: BaseException | None = None) -> None:
        with self._lock:
            given_back, self._given_back = self._given_back, True
        if given_back:
            return
        attempts = self.attempts
        if attempts.watch is not None:
            shown = "" if self.peer is None else self.peer.shown
            timing = attempts._timing(self.began, time.monotonic(), shown)
            attempts.watch.done(timing, self.parts.num_bytes, error)
        self._release()


def cancelled(model: str | None) -> Cancelled:
    """Return the error of a part that was asked for after its stream was cancelled."""
    return Cancelled(f"the stream of model '{model}' was cancelled by its caller", model=model, status="CANCELLED")


_inherited: list[Flow[Any]] = []  # streams of the process that this one was forked from; never ended, never collected
