"""The other end of an engine process. Works under gevent: it waits on pipes only, and never touches gRPC.

Orders are lines of JSON: ``job`` (a test, and which share of it), ``start`` (at a moment of this machine's clock),
``users`` (change the load), ``stop`` (send nothing new, drain, report). The end of the input ends the engine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any, Final

from naiad.loadtest._engine.messages import Message, decode_message
from naiad.loadtest._engine.plans import encode_test
from naiad.loadtest.plan import LoadTest

__all__ = ["EngineLink"]

_EXIT_TIMEOUT_S: Final = 8.0


class EngineLink:
    """Starts an engine process; it ends when the link is closed or this process is gone."""

    def __init__(self) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process, in close
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "naiad.loadtest._engine.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for the one who asks for the report, not for us
        )
        self.number = 0
        """Of the latest job."""

    @property
    def pid(self) -> int:
        """The engine's process."""
        return self._process.pid

    def job(
        self,
        test: LoadTest,
        *,
        engine: int = 0,
        num_engines: int = 1,
        users: int | None = None,
        send_to: str | None = None,
    ) -> None:
        """Prepare share ``engine`` of ``num_engines`` of a test; what it did before is dropped.

        ``users`` begin at once, instead of those that the test says; more or fewer with :meth:`set_users`. ``send_to``
        is the URL of another server, that takes the requests made for the one of the test.
        """
        self.number += 1
        share = {"engine": engine, "num_engines": num_engines, "users": users, "send_to": send_to}
        self._order("job", job=self.number, test=encode_test(test), **share)

    def start(self, at_ns: int) -> None:
        """Begin to send at a moment of ``time.perf_counter_ns()``, which all processes of a machine share."""
        self._order("start", at_ns=at_ns)

    def set_users(self, number: int) -> None:
        """Have ``number`` users in this engine; in an open loop, go on at ``number`` times the planned rate."""
        self._order("users", users=number)

    def stop(self) -> None:
        """Send nothing new; the engine drains, reports and waits for another job."""
        self._order("stop")

    def read(self, on_message: Callable[[Message], None]) -> int:
        """Hand every message of the latest job to ``on_message`` until the engine ends; return its exit code."""
        for job, message in self.messages():
            if job == self.number:
                on_message(message)
        return self._process.wait()

    def messages(self) -> Iterator[tuple[int, Message]]:
        """Yield the number of the job and the message, for everything the engine says until it ends."""
        assert self._process.stdout is not None
        with suppress(ValueError):  # closed meanwhile
            for line in self._process.stdout:
                if line.endswith(b"\n"):  # else it was killed in the middle of it
                    yield decode_message(line)

    def last_words(self) -> str:
        """Return what is known about an end that was not asked for."""
        with suppress(subprocess.TimeoutExpired):  # its pipe is closed a moment before it has ended
            self._process.wait(_EXIT_TIMEOUT_S)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        code = self._process.poll()
        how = "has not ended" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"an engine process ended unexpectedly ({how}){': ' + lines[-1] if lines else ''}"

    def hang_up(self) -> None:
        """Have the engine end; :meth:`close` waits for it."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it ended before it read the last order
            self._process.stdin.close()

    def close(self) -> None:
        """End the engine, by force if it does not go by itself."""
        self.hang_up()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def release(self) -> None:
        """Close what is left of the pipes, after :meth:`close` and the end of :meth:`read`."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def _order(self, order: str, **fields: Any) -> None:
        assert self._process.stdin is not None
        line = json.dumps({"order": order, **fields}).encode() + b"\n"
        with suppress(BrokenPipeError, ValueError):  # the engine ended; its last message says why
            self._process.stdin.write(line)
            self._process.stdin.flush()
