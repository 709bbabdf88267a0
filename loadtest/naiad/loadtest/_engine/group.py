"""The engines of this machine, together: the generator of a run without Locust."""

from __future__ import annotations

import queue
import threading
import time
from typing import Final, Self

from naiad.loadtest._engine.link import EngineLink
from naiad.loadtest._engine.messages import Drained, Exhausted, Failed, Lost, Message, Ready
from naiad.loadtest.errors import EngineFailed
from naiad.loadtest.plan import LoadTest

__all__ = ["EngineGroup"]

_LEAD_NS: Final = 20_000_000  # from the order to start to the start, for the order to arrive everywhere
_SILENCE_S: Final = 30.0  # an engine speaks four times a second: after this long it is stuck
_PREPARE_S: Final = 300.0
_JOIN_S: Final = 5.0
_ANY_JOB: Final = 0


class EngineGroup:
    """Processes that send a test's load together. A context manager; leaving it ends them.

    Users and arrivals are divided among the engines; all of them together are the same for any number of engines. With
    ``send_to``, the requests made for the test's server go to another one, at that URL.
    """

    ends_itself = False

    def __init__(self, test: LoadTest, *, num: int | None = None, send_to: str | None = None) -> None:
        self._test, self._num = test, num
        self._links: list[EngineLink] = []
        self._readers: list[threading.Thread] = []
        self._messages: queue.SimpleQueue[tuple[int, int, Message]] = queue.SimpleQueue()
        self._heard_s: dict[int, float] = {}
        self._closing = False
        self._begin(send_to)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """The engine processes."""
        return [link.pid for link in self._links]

    @property
    def started_ns(self) -> int:
        """When the run started, by ``time.perf_counter_ns()``."""
        return self._started_ns

    def run_next(self, test: LoadTest, *, send_to: str | None = None) -> None:
        """Prepare another test in the same processes, with fresh connections; :meth:`start` begins it."""
        self._test = test
        self._begin(send_to)

    def start(self) -> None:
        """Wait until all engines are ready, then have them begin at one moment.

        Raises:
            EngineFailed: one of them cannot send this test, or ended.
        """
        deadline_s = time.monotonic() + _PREPARE_S
        while not self._ready >= set(range(self._num_engines)):
            message = self._wait(deadline_s - time.monotonic())
            if message is None:
                raise EngineFailed(f"the engines were not ready after {_PREPARE_S:g} s")
            if isinstance(message, Failed):
                raise EngineFailed(message.message, model=self._test.mix[0].model)
        self._started_ns = time.perf_counter_ns() + _LEAD_NS
        self._heard_s = dict.fromkeys(range(self._num_engines), time.monotonic())
        for link in self._active:
            link.start(self._started_ns)

    def next_message(self, timeout_s: float) -> Message | None:
        """Return what an engine said next, ``None`` where that takes longer than ``timeout_s``.

        :class:`Drained`, :class:`Exhausted` and :class:`Lost` are said once for all engines.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            message = self._wait(max(0.0, deadline_s - time.monotonic()))
            if message is None or self._is_news(message):
                return message

    def set_users(self, number: int) -> None:
        """Have ``number`` users in all engines together; in an open loop, go on at ``number`` times the rate."""
        num = self._num_engines
        for shard, link in enumerate(self._active):
            link.set_users(number if self._test.open_loop else number // num + (shard < number % num))

    def stop(self) -> None:
        """Send nothing new; what is in flight drains, then :class:`Drained` is said."""
        for link in self._active:
            link.stop()

    def close(self) -> None:
        """End all engines at once."""
        self._closing = True
        for link in self._links:
            link.hang_up()
        for link, reader in zip(self._links, self._readers, strict=True):
            link.close()
            reader.join(_JOIN_S)
            link.release()
        self._links, self._readers = [], []

    @property
    def _active(self) -> list[EngineLink]:
        return self._links[: self._num_engines]

    def _begin(self, send_to: str | None) -> None:
        self._num_engines = self._num or self._test.engines
        self._started_ns = 0
        self._ready: set[int] = set()
        self._drained: set[int] = set()
        self._exhausted: set[int] = set()
        self._lost = False
        self._heard_s = {}
        while len(self._links) < self._num_engines:
            self._add()
        for shard, link in enumerate(self._active):
            link.job(self._test, engine=shard, num_engines=self._num_engines, send_to=send_to)

    def _add(self) -> None:
        index, link = len(self._links), EngineLink()
        reader = threading.Thread(target=self._read, args=(index, link), name="naiad-loadtest-reader", daemon=True)
        self._links.append(link)
        self._readers.append(reader)
        reader.start()

    def _read(self, index: int, link: EngineLink) -> None:
        for job, message in link.messages():
            self._messages.put((index, job, message))
        if not self._closing:
            self._messages.put((index, _ANY_JOB, Failed(message=link.last_words())))

    def _wait(self, timeout_s: float) -> Message | None:
        """Return the next message that is of this test."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                index, job, message = self._messages.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                return self._stuck()
            if job in (_ANY_JOB, self._links[index].number):
                self._note(index, message)
                return message

    def _note(self, index: int, message: Message) -> None:
        self._heard_s[index] = time.monotonic()
        if isinstance(message, Ready):
            self._ready.add(index)
        elif isinstance(message, Drained):
            self._drained.add(index)
        elif isinstance(message, Exhausted):
            self._exhausted.add(index)

    def _stuck(self) -> Failed | None:
        now_s = time.monotonic()
        for index, heard_s in self._heard_s.items():
            if self._started_ns and index not in self._drained and now_s - heard_s > _SILENCE_S:
                return Failed(message=f"an engine process said nothing for {_SILENCE_S:g} s: it is stuck")
        return None

    def _is_news(self, message: Message) -> bool:
        if isinstance(message, Drained):
            return len(self._drained) == self._num_engines
        if isinstance(message, Exhausted):
            return len(self._exhausted) == self._num_engines
        if isinstance(message, Lost):
            was_lost, self._lost = self._lost, True
            return not was_lost
        return True
