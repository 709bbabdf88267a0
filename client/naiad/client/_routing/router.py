"""What a client knows between calls: its servers, its budgets, its latencies. It never waits."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from naiad.client._observe import CallInfo, Observations
from naiad.client._protocol.operations import Operation
from naiad.client._routing.attempts import Attempts
from naiad.client._routing.budget import Budget
from naiad.client._routing.endpoint import Endpoint
from naiad.client._routing.latency import Latencies
from naiad.client._routing.pool import Connected, Peer, Pool
from naiad.client._settings import Settings
from naiad.client._transport.seam import Connection
from naiad.client.errors import ClientClosed, ClientError, DeadlineExceeded, InvalidInput
from naiad.client.options import NOT_GIVEN, NotGiven, Retry, check_timeout

TransportT = TypeVar("TransportT", bound=Connected)
_log = logging.getLogger("naiad.client")
_NEVER = float("inf")


class Router(Generic[TransportT]):
    """Begins calls and looks after their servers, for a sync or an async client."""

    def __init__(self, settings: Settings, connect: Callable[[Connection], TransportT]) -> None:
        self.settings = settings
        self.shown: str = settings.directory.shown
        self.pool: Pool[TransportT] = Pool(
            settings.balancing, lambda endpoint: settings.peer(endpoint, connect), self.shown
        )
        self.latencies: Latencies | None = Latencies(settings.hedge) if settings.hedge else None
        self.hedges: Budget | None = Budget(settings.hedge.budget) if settings.hedge else None
        self._retries = Budget(settings.retry.budget)
        self._lookup_at = 0.0
        self._lock = threading.Lock()
        if not settings.directory.changes:
            self.looked_up(settings.directory.lookup())
            if len(self.pool.peers) == 1:
                self.shown = self.pool.peers[0].shown
        _renewed_in_children(self)

    def begin(
        self,
        operation: Operation[Any],
        timeout_s: float | NotGiven = NOT_GIVEN,
        retry: Retry | None = None,
        pinned: Peer[TransportT] | None = None,
    ) -> Attempts:
        """Start the clock of a call."""
        timeout = self.settings.timeout
        if timeout_s is NOT_GIVEN:
            limit_s = timeout.load_s if operation.loads else timeout.total_s
        else:
            assert not isinstance(timeout_s, NotGiven)
            limit_s = check_timeout(timeout_s)
        self._retries.deposit()
        if self.hedges is not None:
            self.hedges.deposit()
        return Attempts(
            operation,
            self.pool,
            retry or self.settings.retry,
            self._retries,
            limit_s,
            time.monotonic() + limit_s,
            None if operation.loads else timeout.attempt_s,
            pinned,
            self.latencies,
            self._observe(operation, limit_s) if self.settings.observers else None,
        )

    def _observe(self, operation: Operation[Any], timeout_s: float) -> Observations:
        info = CallInfo(
            method=operation.method,
            model=operation.model,
            version=operation.version,
            request_id=operation.request_id,
            request_bytes=len(operation.request),
            timeout_s=timeout_s,
        )
        return Observations(self.settings.observers, info)

    def lookup_due(self) -> bool:
        """Whether the caller is the one that should look the addresses up now."""
        if self._lookup_at is _NEVER or time.monotonic() < self._lookup_at:
            return False
        with self._lock:
            now = time.monotonic()
            if now < self._lookup_at:
                return False
            if self.pool.peers:  # the first look-up is everybody's
                self._lookup_at = now + self.settings.balancing.refresh_s
            return True

    def looked_up(self, endpoints: tuple[Endpoint, ...]) -> list[Peer[TransportT]]:
        """Take the addresses that were found; return the servers that are gone."""
        self._lookup_at = (
            time.monotonic() + self.settings.balancing.refresh_s if self.settings.directory.changes else _NEVER
        )
        return self.pool.update(endpoints)

    def lookup_failed(self, error: ClientError) -> None:
        """Go on with the addresses that are known; raise ``error`` if none are."""
        if not self.pool.peers:
            raise error
        _log.warning("%s: no new addresses, calls go on to the known ones: %s", self.shown, error)

    def find(self, address: str) -> Peer[TransportT]:
        """Return the server with that address.

        Raises:
            InvalidInput: it is none of this client's.
        """
        target = address.rpartition("@")[2].rpartition("//")[2]
        for peer in self.pool.peers:
            if target == peer.endpoint.target:
                return peer
        known = ", ".join(peer.shown for peer in self.pool.peers)
        raise InvalidInput(f"expected one of this client's servers ({known}), found {target!r}")

    def closed(self) -> ClientClosed:
        """Return the error of a call to a client that was closed."""
        return ClientClosed(f"this client of {self.shown} is closed: make a new one", endpoint=self.shown)

    def limited(self, attempts: Attempts) -> ClientError:
        """Return the error of a call that waited for ``Limits.inflight`` until its deadline."""
        return DeadlineExceeded(
            f"{attempts.operation.method} did not leave within {attempts.timeout_s:g} s: "
            f"{self.settings.limits.inflight} calls were in flight all the time (Limits.inflight)",
            model=attempts.operation.model,
            endpoint=self.shown,
            retryable=True,
            unprocessed=True,
        )

    def renew(self) -> None:
        """Begin again in a child process: the parent's connections and locks are not ours."""
        self._lock = threading.Lock()
        self._retries.renew_lock()
        if self.hedges is not None:
            self.hedges.renew_lock()
        self.pool.renew()


_routers: WeakSet[Router[Any]] = WeakSet()
_registered = False


def _renewed_in_children(router: Router[Any]) -> None:
    global _registered
    _routers.add(router)
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_renew_all)


def _renew_all() -> None:
    for router in list(_routers):
        router.renew()
