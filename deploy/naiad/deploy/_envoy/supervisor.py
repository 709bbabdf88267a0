"""Keeps Envoy running: a thread that starts it again when it ends."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from naiad.deploy.errors import GatewayError

_log = logging.getLogger("naiad.deploy")
_TICK_S: Final = 0.05
_FIRST_PAUSE_S: Final = 0.1
_MOST_RESTARTS: Final = 6
_STABLE_AFTER_S: Final = 60.0


class Supervisor:
    """Runs from construction until `stopping` is set, or it gives up.

    * `died`: says why Envoy ended, None while it runs.
    * `restart`: starts it again; returns when it serves.
    """

    def __init__(
        self, *, died: Callable[[], GatewayError | None], restart: Callable[[], None], stopping: threading.Event
    ) -> None:
        self.restarts = 0
        self.failure: GatewayError | None = None
        self._died = died
        self._restart = restart
        self._stopping = stopping
        self._deaths = 0
        self._since = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="naiad-gateway", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Return when the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_TICK_S):
            death = self._died()
            if death is None:
                continue
            while death is not None and not self._stopping.is_set():
                if not self._may_try(death):
                    return
                death = self._try()

    def _may_try(self, death: GatewayError) -> bool:
        if time.monotonic() - self._since > _STABLE_AFTER_S:
            self._deaths = 0
        self._deaths += 1
        if self._deaths > _MOST_RESTARTS:
            self.failure = GatewayError(f"Gave up on Envoy after {_MOST_RESTARTS} restarts. {death}")
            _log.error("%s", self.failure)
            return False
        _log.warning("%s Starting it again.", death)
        pause_s = 0.0 if self._deaths == 1 else _FIRST_PAUSE_S * 2 ** (self._deaths - 2)
        return not self._stopping.wait(pause_s)

    def _try(self) -> GatewayError | None:
        try:
            self._restart()
        except GatewayError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - whatever it is, the next attempt may succeed
            _log.exception("The gateway's supervisor stumbled")
            return GatewayError(f"Envoy could not be started: {exc}.")
        self.restarts += 1
        self._since = time.monotonic()
        return None
