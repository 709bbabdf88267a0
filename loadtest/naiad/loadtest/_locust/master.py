"""A run over several workers, seen from the one who conducts it: a generator like the engines of this machine.

Locust's master runs in a child process; this one stays as it is, without gevent.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import IO, Any, Final, Self

from naiad.loadtest._data.codec import without_secret
from naiad.loadtest._engine.messages import Drained, Exhausted, Failed, Lost, Message, Ready, decode_message
from naiad.loadtest._engine.plans import encode_test
from naiad.loadtest.errors import EngineFailed
from naiad.loadtest.plan import LoadTest

__all__ = ["LocustMaster"]

_LEAD_NS: Final = 500_000_000  # for the order to start to reach every worker
_WAIT_S: Final = 600.0
_PREPARE_S: Final = 300.0
_EXIT_TIMEOUT_S: Final = 10.0


class LocustMaster:
    """Conducts ``num_workers`` Locust workers; a context manager, and leaving it lets them go.

    Users and arrivals are divided among all engines of all workers: arrival k of the one schedule belongs to engine
    k mod n. Workers on this machine share its clock; the others start at the same moment to within
    :attr:`clock_error_s`. A worker that is lost ends the run, since its share of the load is not sent any more: what
    was measured until then is reported, as failed.
    """

    ends_itself = False

    def __init__(self, test: LoadTest, *, num_workers: int, host: str = "127.0.0.1", port: int = 5557) -> None:
        self.test = replace(test, engines=test.engines * num_workers)
        """The test as all workers together do it."""
        self.clock_error_s = 0.0
        self._engines_each, self._num_workers = test.engines, num_workers
        self._where = f"{host}:{port}"
        self._job = 0
        self._present = 0
        self._started_ns = 0
        self._gone: set[int] = set()
        self._said: dict[type[Message], set[int]] = {Ready: set(), Drained: set(), Exhausted: set()}
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "naiad.loadtest._locust.master_process", host, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for us; we end the run, in order
        )
        self._reader = threading.Thread(target=self._read, name="naiad-loadtest-master", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def started_ns(self) -> int:
        """When the run started, by ``time.perf_counter_ns()`` of this machine."""
        return self._started_ns

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the report should know."""
        if not self.clock_error_s:
            return ()
        return (f"the workers' clocks agree to within {self.clock_error_s * 1000:.2g} ms (half a round trip)",)

    def wait_for_workers(self, on_change: Callable[[int], None] | None = None, timeout_s: float = _WAIT_S) -> None:
        """Return when all workers are there; ``on_change`` is told how many are.

        Raises:
            EngineFailed: the address cannot be listened at, or too few workers came in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while self._present < self._num_workers:
            before = self._present
            try:
                line = self._lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                found = f"found {self._present} after {timeout_s:g} s"
                raise EngineFailed(f"expected {self._num_workers} workers at {self._where}, {found}") from None
            self._message_of(line)
            if on_change is not None and self._present != before:
                on_change(self._present)

    def start(self) -> None:
        """Hand out the test, wait until all engines are ready, then have them begin at one moment.

        Raises:
            EngineFailed: a worker is missing, or cannot send this test.
        """
        self.wait_for_workers()
        self.run_next(self.test)
        deadline_s = time.monotonic() + _PREPARE_S
        while len(self._said[Ready]) < self._num_engines:
            message = self._wait(max(0.0, deadline_s - time.monotonic()))
            if message is None:
                raise EngineFailed(f"the workers were not ready after {_PREPARE_S:g} s")
            if isinstance(message, Failed | Lost):
                raise EngineFailed(message.message, model=self.test.mix[0].model)
        self._started_ns = time.perf_counter_ns() + _LEAD_NS
        self._order("start", at_ns=self._started_ns)

    def run_next(self, test: LoadTest) -> None:
        """Have the workers prepare ``test``; secrets stay here, each worker has its own."""
        self._job += 1
        self._gone = set()
        for said in self._said.values():
            said.clear()
        connection = test.connection
        headers = dict.fromkeys(connection.headers, "")
        public = replace(connection, url=without_secret(connection.url), headers=headers)
        text = encode_test(replace(test, connection=public))
        self._order("job", test=text, num_workers=self._num_workers, engines=self._engines_each, job=self._job)

    def next_message(self, timeout_s: float) -> Message | None:
        """Return what a worker's engine said next, ``None`` where that takes longer than ``timeout_s``.

        What is said by all (:class:`Drained`, :class:`Exhausted`) is said once.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            message = self._wait(max(0.0, deadline_s - time.monotonic()))
            if message is None or self._is_news(message):
                return message

    def stop(self) -> None:
        """Send nothing new; what is in flight drains, then :class:`Drained` is said."""
        self._order("stop")

    def close(self) -> None:
        """Let the workers go."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_EXIT_TIMEOUT_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    @property
    def _num_engines(self) -> int:
        return self._engines_each * self._num_workers

    def _order(self, order: str, **fields: Any) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it ended; the messages end, too
            self._process.stdin.write(json.dumps({"order": order, **fields}).encode() + b"\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith(b"\n"):
                self._lines.put(json.loads(line))
        self._lines.put(None)

    def _wait(self, timeout_s: float) -> Message | None:
        """Return the next message of an engine, or what it means that there is none."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                return None
            message = self._message_of(line)
            if message is not None:
                return message

    def _message_of(self, line: dict[str, Any] | None) -> Message | None:
        if line is None:
            text = f"Locust's master ended: {self._last_words()}"
            if not self._started_ns:
                raise EngineFailed(text)
            return Failed(message=text)
        match line["say"]:
            case "workers":
                self._present = line["number"]
            case "clocks":
                self.clock_error_s = line["error_ns"] / 1e9
            case "lost":
                first = line["worker"] * self._engines_each
                self._gone |= set(range(first, first + self._engines_each))
                text = f"{line['text']}: its share of the load was not sent any more"
                return Lost(message=text) if len(self._gone) < self._num_engines else Failed(message=text)
            case "message":
                job, message = decode_message(line["line"])
                if job == self._job:
                    self._said.get(type(message), set()).add(line["engine"])
                    return message
        return None

    def _is_news(self, message: Message) -> bool:
        said = self._said.get(type(message))
        return said is None or len(said | self._gone) == self._num_engines

    def _last_words(self) -> str:
        self._process.wait(_EXIT_TIMEOUT_S)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"
