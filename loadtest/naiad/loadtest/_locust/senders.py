"""The engines of one Locust process: one for each class of users, from the start of a test to its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import gevent
from gevent.event import Event
from gevent.lock import RLock

from naiad.loadtest._engine.link import EngineLink
from naiad.loadtest._engine.messages import Drained, Failed, Interval, Message, Ready

if TYPE_CHECKING:
    from naiad.loadtest._locust.triton_user import TritonUser
    from naiad.loadtest.plan import LoadTest

__all__ = ["Sender", "Senders"]

_logger = logging.getLogger("naiad.loadtest")
_LEAD_NS: Final = 20_000_000
_PREPARE_S: Final = 300.0
_DRAIN_S: Final = 10.0


class Sender:
    """One engine, and the greenlet that reads from it."""

    def __init__(self, test: LoadTest, on_message: Callable[[Message], None]) -> None:
        self._on_message = on_message
        self._closing = False
        self._users = 0
        self.ready, self._drained = Event(), Event()
        self.failure = ""
        self._link = EngineLink()
        self._reader = gevent.spawn(self._read)
        self._link.job(test, users=0)

    def start(self, at_ns: int) -> None:
        """Begin, with as many users as there are by then."""
        self._link.start(at_ns)

    def add_users(self, number: int) -> None:
        """Have ``number`` users more (or fewer, where negative)."""
        self._users += number
        self._link.set_users(self._users)

    def stop(self) -> None:
        """Send nothing new."""
        self._link.stop()

    def close(self) -> None:
        """Wait until what is in flight has ended, then end the engine."""
        if not self.failure:
            self._drained.wait(_DRAIN_S)
        self._closing = True
        self._link.close()
        self._reader.join(_DRAIN_S)
        self._link.release()

    def _read(self) -> None:
        for job, message in self._link.messages():
            if job == self._link.number:
                self._take(message)
        if not self._closing and not self.failure:
            self._take(Failed(message=self._link.last_words()))
        self._end()

    def _take(self, message: Message) -> None:
        if isinstance(message, Ready):
            self.ready.set()
        elif isinstance(message, Failed):
            self.failure = message.message
            self._end()
        elif isinstance(message, Drained):
            self._drained.set()
        self._on_message(message)

    def _end(self) -> None:
        """Let nobody wait for an engine that is gone."""
        self.ready.set()
        self._drained.set()


class Senders:
    """The engines for all classes of users that a test may have."""

    def __init__(
        self,
        classes: Sequence[type[TritonUser]],
        tests: Sequence[LoadTest],
        on_message: Callable[[type[TritonUser], Message], None],
        *,
        first_engine: int,
    ) -> None:
        self._numbers = {user_class: number for number, user_class in enumerate(classes)}
        self._on_message, self._first_engine = on_message, first_engine
        self._lock = RLock()
        self._stopped = False
        self._senders = {
            user_class: Sender(test, lambda message, user_class=user_class: self._pass_on(user_class, message))  # type: ignore[misc]
            for user_class, test in zip(classes, tests, strict=True)
        }

    def prepare(self) -> str:
        """Wait until all engines are ready; return why one cannot be, or nothing."""
        deadline_s = time.monotonic() + _PREPARE_S
        for sender in self._senders.values():
            if not sender.ready.wait(max(0.0, deadline_s - time.monotonic())):
                return f"an engine was not ready after {_PREPARE_S:g} s"
            if sender.failure:
                return sender.failure
        return ""

    def start(self) -> int:
        """Begin; return when that is, by ``time.perf_counter_ns()``."""
        started_ns = time.perf_counter_ns() + _LEAD_NS
        for sender in self._senders.values():
            sender.start(started_ns)
        return started_ns

    def add_users(self, user_class: type[TritonUser], number: int) -> None:
        """Have more or fewer users of a class."""
        with self._lock:
            if not self._stopped:
                self._senders[user_class].add_users(number)

    def close(self) -> None:
        """Send nothing new, wait for what is in flight, end the engines; once."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        for sender in self._senders.values():
            sender.stop()
        for sender in self._senders.values():
            sender.close()

    def _pass_on(self, user_class: type[TritonUser], message: Message) -> None:
        if isinstance(message, Interval):
            number = self._numbers[user_class]
            message = replace(message, traffic=number, engine=self._first_engine + number)
        self._on_message(user_class, message)
