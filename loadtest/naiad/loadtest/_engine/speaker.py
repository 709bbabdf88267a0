"""What an engine process says, written beside its one thread: a reader who is slow must not hold a request up."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Final

__all__ = ["Speaker"]

_FLUSH_S: Final = 5.0


class Speaker:
    """Writes lines to a pipe, in order. A pipe that nobody reads any more is not an error: orders end, too."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdout.fileno() if descriptor is None else descriptor
        self._lines: queue.SimpleQueue[Callable[[], bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="naiad-loadtest-speaker", daemon=True)
        self._thread.start()

    def say(self, line: Callable[[], bytes]) -> None:
        """Write the line that ``line`` makes."""
        self._lines.put(line)

    def close(self) -> None:
        """Wait until everything is written, but not for ever."""
        self._lines.put(None)
        self._thread.join(_FLUSH_S)

    def _write(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                rest = memoryview(line())
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
        except BrokenPipeError:
            while self._lines.get() is not None:
                pass
