"""The servers of a client: which of them gets the next call, and which are left alone for a while.

A server that cannot be reached, or that fails several times in a row, is *ejected*: the others get its calls. When its
time is over it is *on trial*: one call at a time goes there until one succeeds; each failed trial doubles the time.
(Outlier detection as in Envoy, with the half-open state of a circuit breaker.)
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from naiad.client._routing.endpoint import Endpoint
from naiad.client.errors import (
    ClientError,
    DeadlineExceeded,
    InferenceFailed,
    InvalidResponse,
    Overloaded,
    ServerUnavailable,
)
from naiad.client.options import Balancing
from naiad.client.statistics import ServerState


class Connected(Protocol):
    """What a pool needs of a transport."""

    def forget(self) -> None:
        """Let go without touching the connection."""
        ...


TransportT = TypeVar("TransportT", bound=Connected)
Headers = tuple[tuple[str, str], ...]
_log = logging.getLogger("naiad.client")


@dataclass(slots=True, eq=False)
class Peer(Generic[TransportT]):
    """One server as this client sees it."""

    endpoint: Endpoint
    shown: str
    transport: TransportT
    headers: Headers = ()
    """Sent with every call to it."""
    outstanding: int = 0
    """Calls that it has not answered yet."""
    num_failures: int = 0
    """In a row."""
    num_ejections: int = 0
    """In a row."""
    ejected_until: float = 0.0
    """On the monotonic clock; 0 while it is not ejected."""

    def state(self, now: float) -> ServerState:
        """Return what a user may want to know."""
        return ServerState(
            address=self.shown,
            ejected_s=max(self.ejected_until - now, 0.0),
            num_failures=self.num_failures,
            outstanding=self.outstanding,
        )


class Pool(Generic[TransportT]):
    """Chooses among peers; may be shared by threads, never waits."""

    def __init__(self, balancing: Balancing, connect: Callable[[Endpoint], Peer[TransportT]], shown: str) -> None:
        self._balancing = balancing
        self._connect = connect
        self._shown = shown
        self._lock = threading.Lock()
        self._peers: tuple[Peer[TransportT], ...] = ()
        self._turn = 0

    @property
    def peers(self) -> tuple[Peer[TransportT], ...]:
        """All servers, ejected or not."""
        return self._peers

    def update(self, endpoints: Iterable[Endpoint]) -> list[Peer[TransportT]]:
        """Take these servers from now on; return those that are no longer among them, for the caller to close."""
        with self._lock:
            known = {peer.endpoint: peer for peer in self._peers}
            peers = tuple(
                known.pop(endpoint) if endpoint in known else self._connect(endpoint) for endpoint in endpoints
            )
            if known or len(peers) != len(self._peers):
                _log.info("%s: calls go to %s", self._shown, ", ".join(peer.shown for peer in peers))
            self._peers = peers
            return list(known.values())

    def pick(
        self, tried: Collection[Peer[TransportT]] = (), barred: Collection[Peer[TransportT]] = ()
    ) -> Peer[TransportT]:
        """Choose a server for an attempt, and count it there: if possible one that was not tried, never a barred one.

        Raises:
            ServerUnavailable: all are ejected, and ``Balancing.all_ejected`` says to refuse; or all are barred.
        """
        with self._lock:
            peers = self._peers
            if len(peers) == 1 and not barred and (not peers[0].ejected_until or self._balancing.all_ejected == "try"):
                peer = peers[0]
            else:
                peer = self._choose(self._candidates(tried, barred, time.monotonic()))
            peer.outstanding += 1
            return peer

    def take(self, peer: Peer[TransportT]) -> None:
        """Count an attempt at a server that was chosen by other means."""
        with self._lock:
            peer.outstanding += 1

    def has_other(self, tried: Collection[Peer[TransportT]]) -> bool:
        """Whether there is a server that was not tried yet."""
        return any(peer not in tried for peer in self._peers)

    def answered(self, peer: Peer[TransportT]) -> None:
        """Count an answer, which any refusal of the request is as well."""
        with self._lock:
            peer.outstanding -= 1
            if peer.num_failures or peer.ejected_until:
                if peer.ejected_until:
                    _log.info("%s answers again", peer.shown)
                peer.num_failures = peer.num_ejections = 0
                peer.ejected_until = 0.0

    def left(self, peer: Peer[TransportT]) -> None:
        """Count an attempt that was given up, which says nothing about the server."""
        with self._lock:
            peer.outstanding -= 1

    def failed(self, peer: Peer[TransportT], error: ClientError) -> None:
        """Count an attempt that ended with ``error``, and eject the server where that is its fault."""
        if isinstance(error, Overloaded) or not isinstance(error, _FAULTS):
            self.answered(peer)
            return
        with self._lock:
            peer.outstanding -= 1
            peer.num_failures += 1
            now = time.monotonic()
            away = isinstance(error, ServerUnavailable)
            if (away or peer.num_failures >= self._balancing.eject_after) and now >= peer.ejected_until:
                self._eject(peer, now, error)

    def states(self) -> tuple[ServerState, ...]:
        """Return what is known about each server."""
        now = time.monotonic()
        return tuple(peer.state(now) for peer in self._peers)

    def renew(self) -> None:
        """Begin again after a fork, with connections of this process's own."""
        self._lock = threading.Lock()  # a thread that is not there any more may hold the old one
        for peer in self._peers:
            peer.transport.forget()
        self._peers = tuple(self._connect(peer.endpoint) for peer in self._peers)

    def _eject(self, peer: Peer[TransportT], now: float, error: ClientError) -> None:
        pause_s = min(self._balancing.eject_s * 2**peer.num_ejections, self._balancing.max_eject_s)
        peer.num_ejections = min(peer.num_ejections + 1, 32)
        peer.ejected_until = now + pause_s
        if len(self._peers) > 1:
            _log.info("%s gets no calls for %.1f s: %s", peer.shown, pause_s, error.status or type(error).__name__)

    def _candidates(
        self, tried: Collection[Peer[TransportT]], barred: Collection[Peer[TransportT]], now: float
    ) -> list[Peer[TransportT]]:
        allowed = [peer for peer in self._peers if peer not in barred]
        usable = [peer for peer in allowed if _usable(peer, now)]
        if not allowed or (not usable and self._balancing.all_ejected == "refuse"):
            raise self._refusal(now)
        untried = [peer for peer in usable if peer not in tried]
        return untried or [peer for peer in allowed if peer not in tried] or usable or allowed

    def _refusal(self, now: float) -> ServerUnavailable:
        wait_s = max(min(peer.ejected_until for peer in self._peers) - now, 0.0)
        return ServerUnavailable(
            f"no server of {self._shown} is used now: all failed, the next is tried in {wait_s:.1f} s",
            endpoint=self._shown,
            unprocessed=True,
        )

    def _choose(self, peers: list[Peer[TransportT]]) -> Peer[TransportT]:
        if len(peers) == 1:
            return peers[0]
        self._turn += 1
        policy = self._balancing.policy
        if policy == "round_robin":
            return peers[self._turn % len(peers)]
        if policy == "power_of_two":
            peers = random.sample(peers, 2)
        first = self._turn % len(peers)  # among equals, each has its turn
        return min(peers[first:] + peers[:first], key=_outstanding)


# What speaks against the server, as opposed to the request.
_FAULTS = (ServerUnavailable, InferenceFailed, InvalidResponse, DeadlineExceeded)


def _outstanding(peer: Peer[TransportT]) -> int:
    return peer.outstanding


def _usable(peer: Peer[TransportT], now: float) -> bool:
    if not peer.ejected_until:
        return True
    return now >= peer.ejected_until and peer.outstanding == 0  # on trial: one call at a time
