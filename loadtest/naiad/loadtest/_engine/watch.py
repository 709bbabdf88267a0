"""Is the server still there? Asked when nothing has succeeded for some time, beside the engine's one thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from naiad.client import ClientError
from naiad.loadtest._data.target import connect
from naiad.loadtest.plan import Connection

__all__ = ["LOST_AFTER_NS", "Watch"]

LOST_AFTER_NS: Final = 5_000_000_000
_ASK_TIMEOUT_S: Final = 2.0


class Watch:
    """Says once that the server is lost: no success for 5 s, and it does not say that it lives."""

    def __init__(self, connection: Connection, say: Callable[[str], None]) -> None:
        self._connection, self._say = connection, say
        self._num_succeeded = 0
        self._num_failed = 0  # when the last request succeeded
        self._since_ns = self._asked_ns = 0
        self._asking: threading.Thread | None = None
        self._lost = False

    def look(self, now_ns: int, num_succeeded: int, num_failed: int, num_in_flight: int) -> None:
        """Take, now and then, how many requests have succeeded and failed so far, and how many wait."""
        waits = num_in_flight > 0 or num_failed > self._num_failed
        if num_succeeded != self._num_succeeded or not waits or not self._since_ns:
            self._num_succeeded, self._num_failed, self._since_ns = num_succeeded, num_failed, now_ns
        silent_ns = now_ns - max(self._since_ns, self._asked_ns)
        if silent_ns < LOST_AFTER_NS or self._lost or (self._asking is not None and self._asking.is_alive()):
            return
        self._asked_ns = now_ns
        self._asking = threading.Thread(target=self._ask, args=((now_ns - self._since_ns) / 1e9,), daemon=True)
        self._asking.start()

    def _ask(self, silent_s: float) -> None:
        try:
            with connect(self._connection, _ASK_TIMEOUT_S) as client:
                if client.live():
                    return
            reason = "it says that it is not live"
        except ClientError as exc:
            reason = str(exc)
        self._lost = True
        self._say(f"the server stopped answering {silent_s:.0f} s ago: {reason}")
