"""How many calls may be sent more than once: a bound on what a failing service gets on top of its load."""

from __future__ import annotations

import threading
import time

_RESERVE_PER_S = 10.0  # so that a client with little traffic may retry at all
_LARGEST = 1000.0
_FIRST = 100.0


class Budget:
    """A token bucket: every call puts ``ratio`` tokens in, every extra attempt takes one; may be shared by threads.

    Ten tokens a second come by themselves. (The retry budget of Finagle.)
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._tokens = _FIRST
        self._filled_at = time.monotonic()
        self._lock = threading.Lock()

    def deposit(self) -> None:
        """Count a call."""
        self._tokens = min(self._tokens + self._ratio, _LARGEST)  # a lost update between threads does no harm

    def withdraw(self) -> bool:
        """Take what one extra attempt costs; ``False`` if there is not enough."""
        with self._lock:
            now = time.monotonic()
            reserve = (now - self._filled_at) * _RESERVE_PER_S
            self._tokens, self._filled_at = max(self._tokens, min(self._tokens + reserve, _FIRST)), now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def renew_lock(self) -> None:
        """Replace the lock after a fork."""
        self._lock = threading.Lock()
