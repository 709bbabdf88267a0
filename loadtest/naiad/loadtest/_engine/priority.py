"""Real-time priority: an engine that need not wait for a time slice of the server that it loads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from naiad.loadtest.errors import InvalidPlan

__all__ = ["realtime"]

_LOWEST: Final = 1  # of the real-time priorities: before every ordinary process, behind the kernel's own threads


@contextmanager
def realtime() -> Iterator[None]:
    """Have the threads of this process run before all ordinary ones of the machine (Linux, ``sched(7)``: SCHED_FIFO).

    Raises:
        InvalidPlan: this process may not, or the system knows no such thing.
    """
    _set_all("SCHED_FIFO", _LOWEST)
    try:
        yield
    finally:
        _set_all("SCHED_OTHER", 0)


def _set_all(policy: str, priority: int) -> None:
    try:
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # a thread that has ended
                os.sched_setscheduler(int(thread), getattr(os, policy), os.sched_param(priority))
    except (OSError, AttributeError) as exc:
        raise InvalidPlan(
            f"real-time priority is refused here ({exc}): run as root, give the process CAP_SYS_NICE or `ulimit -r 1`, "
            "or leave realtime out"
        ) from None
