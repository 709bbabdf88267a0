"""What leaves on a line: small pieces together in one system call, large ones uncopied."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from naiad.loadtest._wire.line import Line

__all__ = ["Output"]

_WAIT_NS: Final = 30_000
"""How long a small piece may wait for others while its sender is busy; :meth:`Output.flush` ends the wait."""

_now_ns: Final = time.perf_counter_ns


class Output:
    """The sending half of a line. Errors of the line are kept, not raised."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._small: list[bytes] = []
        self._since_ns = 0
        self._rest: list[memoryview] = []
        self.blocked = False
        """Whether the kernel takes nothing more for now."""
        self.error: OSError | None = None

    def add(self, parts: Iterable[bytes]) -> int:
        """Send pieces with the next flush, which is soon; return when they left, or would have."""
        now_ns = _now_ns()
        if not self._small:
            self._since_ns = now_ns
            self._small += parts
            return now_ns
        self._small += parts
        if now_ns - self._since_ns > _WAIT_NS:
            self.flush()
        return now_ns

    def flush(self) -> bool:
        """Hand all small pieces to the kernel; return whether it takes more."""
        if self.blocked:
            return False
        if self._small:
            data = b"".join(self._small)
            self._small.clear()
            try:
                sent = self._line.send(data)
            except OSError as exc:
                return self._fail(exc)
            if sent < len(data):
                self._rest.append(memoryview(data)[sent:])
                self.blocked = True
                return False
        return True

    def write(self, parts: Iterable[bytes | memoryview]) -> bool:
        """Hand large pieces to the kernel, after a flush; return whether it takes more."""
        self._rest.extend(memoryview(part) for part in parts)
        return self.resume()

    def resume(self) -> bool:
        """Go on with what the kernel did not take; return whether it takes more."""
        rest = self._rest
        try:
            while rest:
                sent = self._line.send_parts(rest)
                if not sent:
                    self.blocked = True
                    return False
                _drop(rest, sent)
        except OSError as exc:
            return self._fail(exc)
        self.blocked = False
        return True

    def _fail(self, exc: OSError) -> bool:
        self.error = exc
        self.blocked = True
        self._small.clear()
        self._rest.clear()
        return False


def _drop(parts: list[memoryview], num_bytes: int) -> None:
    """Take bytes away from the front."""
    whole = 0
    while whole < len(parts) and num_bytes >= len(parts[whole]):
        num_bytes -= len(parts[whole])
        whole += 1
    del parts[:whole]
    if num_bytes:
        parts[0] = parts[0][num_bytes:]
