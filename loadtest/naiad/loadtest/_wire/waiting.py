"""Waiting for sockets, to the microsecond: an open loop sleeps until the next arrival."""

from __future__ import annotations

import ctypes
import select
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

__all__ = ["sleep_precisely", "wait"]

_PR_SET_TIMERSLACK: Final = 29


def sleep_precisely() -> None:
    """Have Linux wake this thread when it is time, and not up to 50 µs later to save power."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def wait(readers: Iterable[int], writers: Iterable[int], timeout_s: float) -> tuple[list[int], list[int]]:
    """Return the descriptors that can be read or written.

    ``epoll`` and ``poll`` round the time up to whole milliseconds, so that they are the second choice: for descriptors
    that ``select`` has no room for (from 1024 on).
    """
    timeout_s = max(timeout_s, 0.0)
    try:
        readable, writable, _ = select.select(readers, writers, (), timeout_s)
    except ValueError:
        return _poll(readers, writers, timeout_s)
    return readable, writable


def _poll(readers: Iterable[int], writers: Iterable[int], timeout_s: float) -> tuple[list[int], list[int]]:
    poller = select.poll()
    writing = set(writers)
    for number in {*readers, *writing}:
        poller.register(number, select.POLLIN | (select.POLLOUT if number in writing else 0))
    found = poller.poll(timeout_s * 1_000)
    readable = [number for number, events in found if events & ~select.POLLOUT]
    return readable, [number for number, events in found if events & ~select.POLLIN and number in writing]
