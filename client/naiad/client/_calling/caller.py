"""How a blocking client makes a call: the loop around its attempts. What it decides is in ``_routing``."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from naiad.client._protocol import operations
from naiad.client._protocol.operations import Operation
from naiad.client._routing.attempts import Attempts
from naiad.client._routing.pool import Peer
from naiad.client._routing.router import Router
from naiad.client._settings import Settings
from naiad.client._transport import cuda
from naiad.client._transport.seam import PendingCall, RpcFailed, Transport, TransportClosed
from naiad.client._transport.shm import connector
from naiad.client.errors import ClientError
from naiad.client.options import NOT_GIVEN, NotGiven, Retry

T = TypeVar("T")
_PROBE_S = 2.0
_Leg = tuple[Peer[Transport], PendingCall]


class Caller:
    """Makes the calls of one client; may be shared by threads."""

    def __init__(self, settings: Settings) -> None:
        self.router: Router[Transport] = Router(
            settings, cuda.over(connector(settings.shared_memory), settings.devices)
        )
        self._limit = settings.limits.inflight
        self._slots = threading.Semaphore(self._limit) if self._limit else None
        self._closed = False

    def run(
        self,
        operation: Operation[T],
        timeout_s: float | NotGiven = NOT_GIVEN,
        retry: Retry | None = None,
        peer: Peer[Transport] | None = None,
    ) -> T:
        """Make a call and return its answer; with ``peer``, that server alone is asked."""
        if self.router.lookup_due():
            self._look_up()
        attempts = self.router.begin(operation, timeout_s, retry, peer)
        answer: T = self._finish(attempts) if self._slots is None else self.complete(attempts)
        return answer

    def begin(
        self,
        operation: Operation[Any],
        timeout_s: float | NotGiven = NOT_GIVEN,
        *,
        retry: Retry | None = None,
        peer: Peer[Transport] | None = None,
    ) -> Attempts:
        """Start the clock of a call, with the addresses of its servers at hand."""
        if self.router.lookup_due():
            self._look_up()
        return self.router.begin(operation, timeout_s, retry, peer)

    def complete(self, attempts: Attempts) -> Any:
        """Make the attempts of a call that :meth:`begin` began, and return its answer."""
        if self._slots is not None:
            with self._slot(attempts):
                return self._finish(attempts)
        return self._finish(attempts)

    @property
    def peers(self) -> tuple[Peer[Transport], ...]:
        """All servers."""
        if self.router.lookup_due():
            self._look_up()
        return self.router.pool.peers

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for peer in self.router.pool.peers:
            peer.transport.close()

    def failure(self, attempts: Attempts, peer: Peer[Transport], failure: RpcFailed) -> ClientError:
        """Return what an attempt's end means, after it was counted."""
        error = attempts.error(peer, failure.status, failure.details)
        if attempts.may_be_draining(error) and not self._live(peer):
            error = attempts.draining(peer, error)
        attempts.failed(peer, error)
        return error

    def gone(self, attempts: Attempts, peer: Peer[Transport]) -> ClientError:
        """Return what a closed transport means: the client was closed, or the server left the list just then."""
        attempts.pool.left(peer)
        return self.router.closed() if self._closed else attempts.withdrawn(peer)

    def acquire(self, attempts: Attempts) -> None:
        """Wait for a place among the calls in flight, where there is a limit."""
        if self._slots is not None and not self._slots.acquire(timeout=attempts.remaining_s()):
            error = self.router.limited(attempts)
            attempts.ended(error)
            raise error

    def release(self) -> None:
        """Give the place back."""
        if self._slots is not None:
            self._slots.release()

    @contextmanager
    def _slot(self, attempts: Attempts) -> Iterator[None]:
        self.acquire(attempts)
        try:
            yield
        finally:
            self.release()

    def _finish(self, attempts: Attempts) -> Any:
        try:
            while True:
                try:
                    return self._attempt(attempts)
                except ClientError as error:
                    pause_s = attempts.pause_s(error)
                time.sleep(pause_s)
        except BaseException as error:
            attempts.ended(error)
            raise

    def _attempt(self, attempts: Attempts) -> Any:
        peer: Peer[Transport] = attempts.pick()
        if attempts.latencies is not None and attempts.may_hedge():
            return self._hedged_attempt(attempts, peer)
        operation = attempts.operation
        began = time.monotonic()
        try:
            message = peer.transport.call(
                operation.method,
                operation.request,
                attempts.remaining_s(),
                peer.headers if attempts.watch is None else attempts.headers(peer),
            )
        except RpcFailed as failure:
            raise self.failure(attempts, peer, failure) from failure
        except TransportClosed as exc:
            raise self.gone(attempts, peer) from exc
        except BaseException:
            attempts.pool.left(peer)
            raise
        return attempts.answered(peer, message, began)

    def _hedged_attempt(self, attempts: Attempts, first: Peer[Transport]) -> Any:
        """Ask ``first``, and a second server too if it takes longer than usual; the first good answer counts."""
        assert attempts.latencies is not None
        assert self.router.hedges is not None
        delay_s = attempts.latencies.delay_s(attempts.operation.model or "")
        ended: queue.SimpleQueue[_Leg] = queue.SimpleQueue()
        began = time.monotonic()
        legs = [self._leave(attempts, first, ended)]
        try:
            leg = _next(ended, None if delay_s is None else min(delay_s, attempts.remaining_s()))
            if leg is None and self.router.hedges.withdraw():
                legs.append(self._leave(attempts, attempts.pick_second(), ended))
            while True:
                leg = leg or ended.get()
                legs.remove(leg)
                try:
                    message = self._arrive(attempts, *leg)
                except ClientError:
                    if not legs:
                        raise
                    leg = None
                    continue
                return attempts.answered(leg[0], message, began)
        finally:
            for peer, call in legs:
                call.cancel()
                attempts.pool.left(peer)

    def _leave(self, attempts: Attempts, peer: Peer[Transport], ended: queue.SimpleQueue[_Leg]) -> _Leg:
        operation = attempts.operation
        try:
            call = peer.transport.begin(
                operation.method, operation.request, attempts.remaining_s(), attempts.headers(peer)
            )
        except TransportClosed as exc:
            raise self.gone(attempts, peer) from exc
        call.when_done(lambda: ended.put((peer, call)))
        return peer, call

    def _arrive(self, attempts: Attempts, peer: Peer[Transport], call: PendingCall) -> bytes:
        try:
            return call.result()
        except RpcFailed as failure:
            raise self.failure(attempts, peer, failure) from failure
        except TransportClosed as exc:
            raise self.gone(attempts, peer) from exc

    def _live(self, peer: Peer[Transport]) -> bool:
        operation = operations.live()  # readiness is lost by a model that loads or is broken, liveness by the end alone
        try:
            message = peer.transport.call(operation.method, operation.request, _PROBE_S, peer.headers)
            return operation.decode(message)
        except (RpcFailed, TransportClosed, ClientError):
            return False

    def _look_up(self) -> None:
        try:
            gone = self.router.looked_up(self.router.settings.directory.lookup())
        except ClientError as error:
            self.router.lookup_failed(error)
            return
        for peer in gone:
            _close_when_idle(peer)


def _next(ended: queue.SimpleQueue[_Leg], timeout_s: float | None) -> _Leg | None:
    try:
        return ended.get(timeout=timeout_s)
    except queue.Empty:
        return None


def _close_when_idle(peer: Peer[Transport]) -> None:
    """Close the connection to a server that is gone from the list as soon as it has answered what it was asked."""

    def wait() -> None:
        while peer.outstanding:
            time.sleep(0.1)
        peer.transport.close()

    if peer.outstanding:
        threading.Thread(target=wait, name="naiad-client-close", daemon=True).start()
    else:
        peer.transport.close()
