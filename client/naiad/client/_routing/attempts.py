"""One call: its attempts, and what to do after each; decided here, for the sync and the async client alike."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

from naiad.client._observe import Observations
from naiad.client._protocol.operations import Operation
from naiad.client._routing.budget import Budget
from naiad.client._routing.latency import Latencies
from naiad.client._routing.pool import Headers, Peer, Pool
from naiad.client.errors import (
    CallContext,
    ClientError,
    DeadlineExceeded,
    ModelNotFound,
    Overloaded,
    ServerUnavailable,
    from_status,
    shutting_down,
)
from naiad.client.options import Retry
from naiad.client.result import Clock, Result, Timing

AnyPeer = Peer[Any]
_TOO_LATE_S = 0.001
_LOOK_S = 0.2
_PROBES = frozenset({"ServerLive", "ServerReady", "ModelReady"})


@dataclass(slots=True)
class Attempts:
    """The attempts of one call under one deadline; for the thread or task that makes it."""

    operation: Operation[Any]
    pool: Pool[Any]
    retry: Retry
    budget: Budget
    timeout_s: float
    deadline: float
    attempt_s: float | None = None
    pinned: AnyPeer | None = None
    """The only server that is asked."""
    latencies: Latencies | None = None
    watch: Observations | None = None
    num_attempts: int = 0
    num_sent: int = 0
    """Attempts that a server had, as far as is known."""
    tried: tuple[AnyPeer, ...] = ()
    barred: tuple[AnyPeer, ...] = ()
    """Servers that may have run the request, which must not run it twice."""

    @property
    def started(self) -> float:
        """When the call began, on the monotonic clock."""
        return self.deadline - self.timeout_s

    def pick(self) -> AnyPeer:
        """Choose the server for the next attempt, and count it.

        Raises:
            ServerUnavailable: none is to be used now.
        """
        self.num_attempts += 1
        if self.pinned is not None:
            return self._take()
        peer = self.pool.pick(self.tried, self.barred)
        self.tried += (peer,)
        return peer

    def pick_second(self) -> AnyPeer:
        """Choose another server to ask the same at the same time."""
        return self._take()

    def _take(self) -> AnyPeer:
        peer = self.pinned
        if peer is None:
            peer = self.pool.pick(self.tried, self.barred)
        else:
            self.pool.take(peer)
        self.tried += (peer,)
        return peer

    def headers(self, peer: AnyPeer) -> Headers:
        """Return what is sent with an attempt."""
        if self.watch is None:
            return peer.headers
        return (*peer.headers, *self.watch.attempt(peer.shown, self.num_attempts))

    def remaining_s(self) -> float:
        """Return the time that the attempt which begins now has."""
        left_s = max(self.deadline - time.monotonic(), 0.0)
        return left_s if self.attempt_s is None else min(left_s, self.attempt_s)

    def may_hedge(self) -> bool:
        """Whether a second server may be asked while the first has not answered."""
        return (
            self.latencies is not None
            and self.operation.method == "ModelInfer"
            and not self.operation.sequence
            and self.pinned is None
            and self.pool.has_other(self.tried)
        )

    def answered(self, peer: AnyPeer, message: bytes, began: float) -> Any:
        """Read the answer of the attempt that began at ``began``.

        Raises:
            InvalidResponse: it is none.
        """
        arrived = time.monotonic()
        operation = self.operation
        try:
            answer = operation.decode(message)
        except ClientError as error:
            error.endpoint, error.model = peer.shown, operation.model
            self.pool.failed(peer, error)
            raise
        self.pool.answered(peer)
        if self.latencies is not None and operation.model is not None:
            self.latencies.add(operation.model, arrived - began)
        if isinstance(answer, Result):
            answer._clock = self._clock(began, arrived, peer.shown)
        if self.watch is not None:
            self.watch.done(self._timing(began, arrived, peer.shown), len(message), None)
        return answer

    def error(self, peer: AnyPeer, status: str, details: str) -> ClientError:
        """Translate how an attempt ended."""
        return from_status(status, details, self.context(peer))

    def may_be_draining(self, error: ClientError) -> bool:
        """Whether the server should be asked if it is on its way out: then its NOT_FOUND says nothing of the model."""
        return isinstance(error, ModelNotFound) and self.operation.method not in _PROBES

    def draining(self, peer: AnyPeer, error: ClientError) -> ClientError:
        """Return what ``error`` means from a server that is on its way out."""
        return shutting_down(error, self.context(peer))

    def withdrawn(self, peer: AnyPeer) -> ClientError:
        """Return the error of an attempt whose server was taken from the list just then."""
        return ServerUnavailable(
            f"{peer.shown} is not among the servers any more", endpoint=peer.shown, unprocessed=True
        )

    def failed(self, peer: AnyPeer, error: ClientError) -> None:
        """Count the failure of an attempt at its server."""
        self.pool.failed(peer, error)
        if not _not_reached(error):
            self.num_sent += 1
        if not (error.unprocessed or self.operation.idempotent):
            self.barred += (peer,)
        if self.watch is not None:
            self.watch.attempt_failed(error)

    def ended(self, error: BaseException) -> None:
        """Tell the observers that the call ended without an answer."""
        if self.watch is not None:
            self.watch.done(self._timing(time.monotonic(), time.monotonic(), ""), 0, error)

    def pause_s(self, error: ClientError) -> float:
        """Return how long to wait before the next attempt.

        Raises:
            ClientError: ``error`` itself, if there is to be no other attempt.
        """
        if not self._may_repeat(error):
            raise error
        elsewhere = self.pinned is None and self.pool.has_other(self.tried)
        if self._is_looking(error):
            pause_s = 0.0 if elsewhere else random.uniform(0.5, 1) * _LOOK_S  # noqa: S311
        elif self.num_attempts >= self.retry.attempts or not self.budget.withdraw():
            raise error
        else:
            bound_s = min(self.retry.max_pause_s, self.retry.first_pause_s * 2 ** (self.num_attempts - 1))
            pause_s = 0.0 if elsewhere else random.uniform(0, bound_s)  # noqa: S311  (spreads load, protects nothing)
        if time.monotonic() + pause_s + _TOO_LATE_S >= self.deadline:
            raise error
        return pause_s

    def _is_looking(self, error: ClientError) -> bool:
        """Whether no server has had the request yet, and there are several that might take it."""
        return (
            self.num_sent == 0
            and _not_reached(error)
            and self.pinned is None
            and self.retry.attempts > 1
            and len(self.pool.peers) > 1
            and time.monotonic() - self.started < self.retry.patience_s
        )

    def context(self, peer: AnyPeer) -> CallContext:
        """Return what an error should say about this call."""
        op = self.operation
        return CallContext(
            endpoint=peer.shown,
            method=op.method,
            model=op.model,
            version=op.version,
            request_id=op.request_id,
            timeout_s=self.timeout_s,
        )

    def _may_repeat(self, error: ClientError) -> bool:
        timed_out = isinstance(error, DeadlineExceeded) and self.attempt_s is not None
        if not (error.retryable or timed_out):
            return False
        if self.operation.sequence:
            return self.retry.sequences and error.unprocessed
        return not self.barred or (self.pinned is None and self.pool.has_other(self.barred))

    def _timing(self, began: float, arrived: float, endpoint: str) -> Timing:
        return self._clock(began, arrived, endpoint).timing()

    def _clock(self, began: float, arrived: float, endpoint: str) -> Clock:
        started = self.deadline - self.timeout_s
        return Clock(started, self.operation.encode_s, began, arrived, time.monotonic(), self.num_attempts, endpoint)


def _not_reached(error: ClientError) -> bool:
    """Whether the server was away or on its way out, as opposed to busy: trying again costs it nothing."""
    return error.unprocessed and isinstance(error, ServerUnavailable) and not isinstance(error, Overloaded)
