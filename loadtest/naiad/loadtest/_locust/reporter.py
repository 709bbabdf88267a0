"""Makes the report of a run that Locust conducts: reads what the engines say on stdin, looks at the server meanwhile.

The first line is a plan: the test, and the files to write. An empty line on stdout says that the load may begin, since
the server was looked at; a last line says what came out.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import IO, Final

from naiad.client import ClientError
from naiad.loadtest._engine.messages import Drained, Interval, Message, decode_message
from naiad.loadtest._engine.plans import decode_test
from naiad.loadtest._run.runner import run
from naiad.loadtest.errors import EngineFailed, LoadTestError

__all__ = ["PipedGenerator"]

_FIRST_S: Final = 300.0


def main() -> int:
    """Write the report that the plan asks for; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end comes through the pipe
    plan = json.loads(sys.stdin.buffer.readline() or b"null")
    if plan is None:
        return 0
    generator = PipedGenerator(sys.stdin.buffer)
    try:
        report = run(decode_test(plan["test"]), generator=generator, calibration=False)
        for path in plan["html"]:
            report.write(html=path)
        if plan["json"]:
            report.write(json=plan["json"])
    except (LoadTestError, ClientError) as exc:
        _say(f"no report: {exc}", ok=False)
        return 1
    reasons = report.failures() or [doubt.text for doubt in report.doubts if doubt.invalid]
    where = ", ".join([*plan["html"][:1], *filter(None, [plan["json"]])])
    _say(f"{report.verdict}: {reasons[0] if reasons else 'report in ' + where}", ok=report.verdict == "passed")
    return 0


def _say(text: str, *, ok: bool) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps({"text": text, "ok": ok}) + "\n")
        sys.stdout.flush()


class PipedGenerator:
    """What sends the load, as far as it can be seen from the other end of a pipe."""

    ends_itself = True

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._started_ns = source, 0
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._first: Message | None = None
        threading.Thread(target=self._read, name="naiad-loadtest-pipe", daemon=True).start()

    @property
    def started_ns(self) -> int:
        """When the run started; where nobody said so, when the first interval says that it did."""
        return self._started_ns

    def start(self) -> None:
        """Let the load begin, and wait until something was sent.

        Raises:
            EngineFailed: the run ended before.
        """
        sys.stdout.write("\n")
        sys.stdout.flush()
        try:
            self._first = self._messages.get(timeout=_FIRST_S)
        except queue.Empty:
            raise EngineFailed("nothing was sent") from None
        if isinstance(self._first, Drained):
            raise EngineFailed("the run ended before anything was sent")
        if not self._started_ns:
            end_s = self._first.end_s if isinstance(self._first, Interval) else 0.0
            self._started_ns = time.perf_counter_ns() - round(end_s * 1e9)

    def next_message(self, timeout_s: float) -> Message | None:
        """Return what was said next."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            return self._messages.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def stop(self) -> None:
        """Do nothing: Locust says when the run is over."""

    def close(self) -> None:
        """Do nothing: Locust says when the run is over."""

    def _read(self) -> None:
        for line in self._source:
            if not line.endswith(b"\n"):  # whoever wrote it was killed in the middle
                continue
            if line.startswith(b'{"at_ns"'):
                self._started_ns = json.loads(line)["at_ns"]
            else:
                self._messages.put(decode_message(line)[1])
        self._messages.put(Drained())


if __name__ == "__main__":
    sys.exit(main())
