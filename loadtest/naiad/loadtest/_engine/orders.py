"""The lines that come into an engine process, read beside its one thread, which must not wait for them."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from typing import Any, Final

__all__ = ["ENDED", "Orders"]

ENDED: Final[dict[str, Any]] = {"order": "end"}


class Orders:
    """Reads orders from a pipe; its end is the last one."""

    def __init__(self, descriptor: int = 0) -> None:
        self.waiting: deque[dict[str, Any]] = deque()
        """Those not yet obeyed. The reader appends, the engine pops."""
        self._came = threading.Event()
        self._descriptor = descriptor
        threading.Thread(target=self._read, name="naiad-loadtest-orders", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """Return the next order, however long it takes, or ``None`` after ``timeout_s``."""
        while not self.waiting:
            self._came.clear()
            if not self.waiting and not self._came.wait(timeout_s):
                return None
        return self.waiting.popleft()

    def _read(self) -> None:
        rest = b""  # not through sys.stdin: Python aborts at its end where a thread waits in there
        while chunk := os.read(self._descriptor, 1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._add(json.loads(line))
        self._add(ENDED)

    def _add(self, order: dict[str, Any]) -> None:
        self.waiting.append(order)
        self._came.set()
