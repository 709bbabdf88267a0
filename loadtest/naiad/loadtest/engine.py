"""The engine: keeps a number of requests in flight and times them.

Requests are encoded once, beforehand; they leave through gRPC futures whose callbacks send the next one, in a process
without gevent. A latency runs from the moment the request should have left (in a closed loop: when the user was free to
send it) to the moment its answer was here.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from naiad.loadtest._codec import error_of, open_channel
from naiad.loadtest.answers import AnswerCheck

__all__ = ["WRONG_ANSWER", "Engine", "Taken"]

WRONG_ANSWER: Final = "WrongAnswer"
_TICK_S: Final = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What ended since the last :meth:`Engine.take`."""

    latencies_ns: Sequence[int]
    """Of the requests that succeeded."""
    errors: Counter[str]
    """How many failed, by the name of the error's class."""
    examples: dict[str, str]
    """One message for each class in ``errors``."""


class Engine:
    """Sends ``requests`` in turn, as many at a time as there are users. A context manager.

    A user whose request failed pauses for :attr:`pause_s`, so that a server that refuses at once is not flooded.
    """

    pause_s: Final = _TICK_S

    def __init__(
        self, url: str, model: str, requests: Sequence[bytes], *, timeout_s: float, check: AnswerCheck | None = None
    ) -> None:
        assert requests
        self._url, self._model, self._timeout_s = url, model, timeout_s
        self._requests, self._check = requests, check
        self._turns = itertools.count()
        self._latencies: deque[int] = deque()
        self._errors: deque[tuple[str, str]] = deque()
        self._lock = threading.Lock()
        self._users = 0
        self._active = 0  # users that have a request in flight or pause
        self._paused = 0
        self._channel, self._call = open_channel(url)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def users(self) -> int:
        """How many users there are now."""
        return self._users

    @property
    def in_flight(self) -> int:
        """How many requests have not ended yet."""
        with self._lock:
            return self._active - self._paused

    def set_users(self, users: int) -> None:
        """Have ``users`` users from now on. Surplus ones leave when their request ends; with 0, nothing new is sent."""
        with self._lock:
            self._users = users
            surplus_paused = min(self._paused, max(0, self._active - users))
            self._paused -= surplus_paused
            self._active -= surplus_paused
            new = max(0, users - self._active)
            self._active += new
        for _ in range(new):
            self._send()

    def resume_paused(self) -> None:
        """Let those users send again whose request failed; to be called every :attr:`pause_s`."""
        with self._lock:
            paused, self._paused = self._paused, 0
        for _ in range(paused):
            self._send()

    def take(self) -> Taken:
        """Return what ended since the last call."""
        latencies = [self._latencies.popleft() for _ in range(len(self._latencies))]
        errors = [self._errors.popleft() for _ in range(len(self._errors))]
        return Taken(
            latencies_ns=latencies, errors=Counter(name for name, _ in errors), examples=dict(reversed(errors))
        )

    def drain(self, timeout_s: float) -> int:
        """Send nothing new, wait for what is in flight; return how many requests had not ended after ``timeout_s``."""
        self.set_users(0)
        deadline = time.monotonic() + timeout_s
        while self.in_flight and time.monotonic() < deadline:
            time.sleep(_TICK_S)
        return self.in_flight

    def close(self) -> None:
        """Cancel what is in flight and close the connection."""
        with self._lock:
            self._users = 0
        self._channel.close()

    def _send(self) -> None:
        index = next(self._turns) % len(self._requests)
        due_ns = time.perf_counter_ns()
        try:
            future = self._call.future(self._requests[index], timeout=self._timeout_s)
        except ValueError:  # the channel was closed meanwhile
            with self._lock:
                self._active -= 1
            return
        future.add_done_callback(lambda ended: self._ended(ended, index, due_ns))

    def _ended(self, future: Any, index: int, due_ns: int) -> None:
        """Record how a request ended and send the user's next one. Runs in gRPC's thread, for one request at a time."""
        ended_ns = time.perf_counter_ns()
        succeeded = self._record(future, index, ended_ns - due_ns)
        with self._lock:
            leaves = self._active > self._users
            if leaves:
                self._active -= 1
            elif not succeeded:
                self._paused += 1
        if succeeded and not leaves:
            self._send()

    def _record(self, future: Any, index: int, latency_ns: int) -> bool:
        code = future.code()
        if code is not grpc.StatusCode.OK:
            error = error_of(
                code.name, future.details() or "", url=self._url, model=self._model, timeout_s=self._timeout_s
            )
            self._errors.append((type(error).__name__, str(error)))
            return False
        if self._check is not None and not self._check(index, future.result()):
            self._errors.append((WRONG_ANSWER, f"an answer of model '{self._model}' differs from the golden output"))
            return False
        self._latencies.append(latency_ns)
        return True
