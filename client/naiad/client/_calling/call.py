"""A call that runs while its caller does something else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from naiad.client._calling.caller import Caller
from naiad.client._routing.attempts import Attempts
from naiad.client._routing.pool import Peer
from naiad.client._transport.seam import PendingCall, RpcFailed, Transport, TransportClosed
from naiad.client.errors import Cancelled, ClientError

T = TypeVar("T")
_Attempt = tuple[Peer[Transport], PendingCall, float]


class Call(Generic[T]):
    """What :meth:`Model.submit` returns: the request has left, :meth:`result` fetches the answer.

    Attempts after the first are made by the thread that waits in :meth:`result`. With ``Limits.inflight``, the call has
    its place until the first attempt ends.
    """

    def __init__(self, caller: Caller, attempts: Attempts) -> None:
        self._caller = caller
        self._attempts = attempts
        self._lock = threading.Lock()
        self._answer: T | None = None
        self._error: BaseException | None = None
        self._ended = self._cancelled = False
        caller.acquire(attempts)
        self._attempt = self._leave()
        if isinstance(self._attempt, ClientError):
            caller.release()
        else:
            self._attempt[1].when_done(caller.release)

    def result(self) -> T:
        """Wait for the answer, at most until the call's deadline; may be called again.

        Raises:
            Cancelled: :meth:`cancel` was called.
            ClientError: see :mod:`naiad.client.errors`.
        """
        with self._lock:
            if not self._ended:
                self._finish()
        if self._error is not None:
            raise self._error
        return cast("T", self._answer)

    def done(self) -> bool:
        """Whether the attempt has ended; :meth:`result` may still make another one if it failed."""
        attempt = self._attempt
        return self._ended or isinstance(attempt, ClientError) or attempt[1].done()

    def cancel(self) -> None:
        """End the call, on the server too; does nothing to one that has ended."""
        self._cancelled = True
        attempt = self._attempt
        if not isinstance(attempt, ClientError):
            attempt[1].cancel()

    def when_done(self, function: Callable[[], None]) -> None:
        """Call ``function`` once, from any thread, when :meth:`done` is true; at once if it is."""
        attempt = self._attempt
        if self._ended or isinstance(attempt, ClientError):
            function()
        else:
            attempt[1].when_done(function)

    def _finish(self) -> None:
        try:
            self._answer = self._await()
        except ClientError as error:
            self._error = error
            self._attempts.ended(error)
        except BaseException as error:  # Ctrl-C: the caller gets it now, others a cancelled call
            self.cancel()
            self._error = Cancelled("the call was interrupted while its caller waited", status="CANCELLED")
            self._attempts.ended(error)
            self._ended = True
            raise
        self._ended = True

    def _await(self) -> T:
        while True:
            try:
                return self._arrive()
            except ClientError as error:
                if self._cancelled:
                    raise Cancelled("the call was cancelled by Call.cancel()", status="CANCELLED") from error
                pause_s = self._attempts.pause_s(error)
            time.sleep(pause_s)
            self._attempt = self._leave()

    def _leave(self) -> _Attempt | ClientError:
        attempts = self._attempts
        try:
            peer = attempts.pick()
        except ClientError as refused:
            return refused
        operation, began = attempts.operation, time.monotonic()
        try:
            pending = peer.transport.begin(
                operation.method, operation.request, attempts.remaining_s(), attempts.headers(peer)
            )
        except TransportClosed:
            return self._caller.gone(attempts, peer)
        except BaseException:
            attempts.pool.left(peer)
            raise
        pending.when_done(lambda: attempts.pool.left(peer))  # also if nobody ever asks for the result
        return peer, pending, began

    def _arrive(self) -> T:
        if isinstance(self._attempt, ClientError):
            raise self._attempt
        peer, pending, began = self._attempt
        attempts = self._attempts
        try:
            message = pending.result()
        except RpcFailed as failure:
            attempts.pool.take(peer)  # it has left already, and is counted once more by what follows
            raise self._caller.failure(attempts, peer, failure) from failure
        except TransportClosed as exc:
            attempts.pool.take(peer)
            raise self._caller.gone(attempts, peer) from exc
        attempts.pool.take(peer)
        return cast("T", attempts.answered(peer, message, began))
