"""Whether processes run at all: one that is stopped, frozen or stuck in the kernel has no pulse."""

import contextlib
import time
from pathlib import Path
from typing import Final

_SILENT_FOR_S: Final = 0.9


class Pulse:
    """Watches processes for a sign of life.

    A stub tells Triton three times a second that it lives, from a thread of its own, whatever its model does. So the
    number of times that its threads gave up their processor rises, unless nothing of it runs any more.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}

    def is_silent(self, pid: int) -> bool:
        """Whether it showed no sign of life since earlier calls, at least 0.9 s ago."""
        now, count = time.monotonic(), _num_switches(pid)
        before, since = self._seen.get(pid, (-1, now))
        if count != before:
            since = now
        self._seen[pid] = (count, since)
        return now - since >= _SILENT_FOR_S

    def forget(self) -> None:
        """Begin anew: what is not looked at again and again is not known to be silent."""
        self._seen.clear()


def _num_switches(pid: int) -> int:
    """How often threads of the process let another one run, see proc(5)."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError, ValueError):
            lines = path.read_text().splitlines()
            total += sum(int(line.rpartition("\t")[2]) for line in lines if "_ctxt_switches" in line)
    return total
