"""Which replicas get requests: not those that are being restarted, nor those with a dead process."""

import logging
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from naiad.server._admin import Admin
from naiad.server._embedded import EmbeddedTriton
from naiad.server.errors import ServerError

_log = logging.getLogger("naiad.server")
_PATIENCE_S: Final = 2.0


class Balancer(Protocol):
    """Who spreads requests over replicas, and can leave one of them out."""

    def drain(self, name: str, timeout_s: float) -> bool:
        """Send that replica nothing more; return whether it had no request in flight any more within the time."""

    def admit(self, name: str) -> None:
        """Send it requests again."""


class Admission:
    """Has a balancer leave out what is not fit, but never the last replica that is."""

    def __init__(self, servers: Mapping[str, EmbeddedTriton]) -> None:
        self.balancer: Balancer | None = None
        self._servers = servers
        self._lock = threading.Lock()
        self._held: set[str] = set()  # away for their restart, or lost at it
        self._unfit: set[str] = set()

    @property
    def unfit(self) -> frozenset[str]:
        """Replicas that are being repaired."""
        return frozenset(self._unfit)

    @property
    def serving(self) -> tuple[str, ...]:
        """Replicas that get requests."""
        return tuple(name for name in self._servers if name not in self._held | self._unfit)

    def hold(self, name: str) -> None:
        """Take no more notice of how a replica is: it is about to be restarted."""
        with self._lock:
            self._held.add(name)

    def release(self, name: str) -> None:
        """It serves again."""
        with self._lock:
            self._held.discard(name)
            self._unfit.discard(name)

    def told(self, name: str, fit: bool, models: Collection[str]) -> None:
        """Keep requests away from a replica while it is not fit, as long as another one is.

        `models` are those whose processes are dead, where that is the reason.
        """
        try:
            if fit:
                self._readmit(name)
            else:
                self._leave_out(name, models)
        except Exception as exc:  # noqa: BLE001 - the balancer's troubles must not keep the replica from being repaired
            _log.warning("The balancer was not told that replica %s is %s: %s", name, "fit" if fit else "unfit", exc)

    def _leave_out(self, name: str, models: Collection[str]) -> None:
        balancer = self.balancer
        with self._lock:
            others = self._servers.keys() - self._held - self._unfit - {name}
            if balancer is None or name in self._held or not others:
                return
            self._unfit.add(name)
        _log.info("Replica %s is left out until it is repaired", name)
        balancer.drain(name, 0.0)
        server = self._servers[name]._server
        with suppress(ServerError):
            if server.process.returncode is None and _longest_wait_s(server.admin, models) > _PATIENCE_S:
                # Its supervisor starts another, and the balancer asks another replica, which answers at once.
                _log.warning("Replica %s has requests that would wait long for a dead process; ending it", name)
                server.process.kill()

    def _readmit(self, name: str) -> None:
        balancer = self.balancer
        with self._lock:
            if name not in self._unfit or balancer is None:
                return
            self._unfit.discard(name)
            if name in self._held:
                return
        _log.info("Replica %s is admitted again", name)
        balancer.admit(name)


def _longest_wait_s(admin: Admin, models: Collection[str]) -> float:
    """How long the last request would wait for a model whose instance is dead: Triton takes a second a batch."""
    pending = admin.num_pending()
    return max((_wait_s(admin.config(model), pending.get(model, 0)) for model in models), default=0.0)


def _wait_s(config: Mapping[str, Any], num_pending: int) -> float:
    # What several instances share is taken by those that live.
    num_instances = sum(int(group["count"]) for group in config.get("instance_group", ()))
    batch = max(1, int(config.get("max_batch_size", 0))) if "dynamic_batching" in config else 1
    return 0.0 if num_instances > 1 else num_pending / batch
