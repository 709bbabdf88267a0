"""Ends what a blocking caller has waited too long for: one thread watches all streams of the process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

_LINGER_S = 5.0


class Guard:
    """Cancels a call when one wait for it (a ``with`` block) takes longer than ``limit_s``, while it is watched."""

    __slots__ = ("_cancel", "due", "expired", "limit_s")

    def __init__(self, limit_s: float, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self.limit_s = limit_s
        self.due: float | None = None
        """On the monotonic clock; ``None`` while nobody waits."""
        self.expired = False

    def __enter__(self) -> None:
        self.due = time.monotonic() + self.limit_s

    def __exit__(self, *_: object) -> None:
        self.due = None

    def expire(self) -> None:
        """Cancel the call."""
        self.expired = True
        self._cancel()


class _Watch:
    """The thread and what it watches. It wakes up about once in the shortest limit, not at every wait."""

    def __init__(self) -> None:
        self._guards: set[Guard] = set()
        self._changed = threading.Condition()  # reentrant: a guard may be dropped by the garbage collector
        self._thread: threading.Thread | None = None

    def add(self, guard: Guard) -> None:
        """Watch from now on."""
        with self._changed:
            self._guards.add(guard)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="naiad-client-idle", daemon=True)
                self._thread.start()
            else:
                self._changed.notify()

    def remove(self, guard: Guard) -> None:
        """Watch no longer."""
        with self._changed:
            self._guards.discard(guard)

    def _run(self) -> None:
        while True:
            with self._changed:
                late, pause_s = self._look(time.monotonic())
                if not late:
                    lingered = not self._changed.wait(pause_s)
                    if lingered and not self._guards:
                        self._thread = None
                        return
            for guard in late:
                guard.expire()

    def _look(self, now: float) -> tuple[list[Guard], float]:
        """Return what is late, which is then watched no longer, and how long nothing else can be."""
        late, pause_s = list[Guard](), _LINGER_S
        for guard in tuple(self._guards):
            due = guard.due
            if due is None:  # a wait that begins just after this look
                due = now + guard.limit_s
            if due <= now:
                late.append(guard)
                self._guards.discard(guard)
            pause_s = min(pause_s, max(due - now, 0.0))
        return late, pause_s


_watch = _Watch()


def _renew() -> None:
    global _watch
    _watch = _Watch()  # the thread stayed in the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def watch(guard: Guard) -> None:
    """Cancel the guard's call when a wait for it takes too long, until :func:`unwatch`."""
    _watch.add(guard)


def unwatch(guard: Guard) -> None:
    """Watch no longer."""
    _watch.remove(guard)
