"""An engine in a process of its own: orders on stdin, intervals on stdout (see :mod:`naiad.loadtest.messages`)."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from naiad.client import Client, ClientError
from naiad.loadtest._codec import encode_inputs
from naiad.loadtest.answers import checker
from naiad.loadtest.data import make_samples
from naiad.loadtest.engine import Engine
from naiad.loadtest.errors import LoadTestError
from naiad.loadtest.latencies import Latencies
from naiad.loadtest.measurement import Interval, Phase
from naiad.loadtest.messages import Closed, EngineMessage, Failed, Lost, Ready, encode_message
from naiad.loadtest.plan import Traffic
from naiad.loadtest.server_times import ServerSnapshot
from naiad.loadtest.target import connect, describe

INTERVAL_S: Final = 0.25
LOST_AFTER_S: Final = 5.0  # without one success, before the server is asked whether it lives
DRAIN_S: Final = 5.0  # at most, for what is in flight when the window closes
_ASK_TIMEOUT_S: Final = 2.0


def main() -> int:
    """Run until ``close``, or until the input ends; return the exit code."""
    orders = _Orders(sys.stdin.fileno())
    try:
        traffic = Traffic.from_json(json.loads(orders.wait_line()))
        with connect(traffic) as client:
            samples = make_samples(traffic, describe(client, traffic).signature)
            requests = [encode_inputs(traffic.model, traffic.version, sample.inputs) for sample in samples]
    except (ClientError, LoadTestError) as exc:
        _say(Failed(message=str(exc)))
        return 1
    check = checker(samples) if traffic.check else None
    with (
        connect(traffic, _ASK_TIMEOUT_S) as client,
        Engine(traffic.url, traffic.model, requests, timeout_s=traffic.timeout_s, check=check) as engine,
    ):
        _say(Ready(num_samples=len(requests), request_bytes=max(map(len, requests))))
        with suppress(BrokenPipeError):  # nobody listens any more: nothing is left to do
            _Session(client, engine, traffic).obey(orders)
    return 0


class _Session:
    """The engine's run, from the first order to the last message."""

    def __init__(self, client: Client, engine: Engine, traffic: Traffic) -> None:
        self._client, self._engine, self._traffic = client, engine, traffic
        self._phase: Phase = "warmup"
        self._began_s = self._interval_start_s = self._succeeded_s = self._asked_s = time.perf_counter()
        self._cpu_start_s = time.process_time()
        self._lost = False
        self._before: ServerSnapshot | None = None
        self._note = ""

    def obey(self, orders: _Orders) -> None:
        """Follow the orders until ``close``, or their end."""
        for order in orders:
            match order.split():
                case ["users", number]:
                    self._engine.set_users(int(number))
                case ["open"]:
                    self._open()
                case ["close"]:
                    self._close()
                    return
            self._tick()
        self._finish()

    def _tick(self) -> None:
        self._engine.resume_paused()
        now_s = time.perf_counter()
        if now_s - self._interval_start_s >= INTERVAL_S:
            self._hand_over()
            self._look_for_server(now_s)

    def _open(self) -> None:
        self._hand_over()
        self._before = self._snapshot()
        self._hand_over()  # what ended while the server was asked belongs to the warm-up
        self._phase = "window"

    def _close(self) -> None:
        self._hand_over()
        after = self._snapshot()
        self._phase = "drain"
        self._finish()
        _say(Closed(before=self._before, after=after, note=self._note))

    def _finish(self) -> None:
        self._hand_over(unfinished=self._engine.drain(min(DRAIN_S, self._traffic.timeout_s)))

    def _hand_over(self, unfinished: int = 0) -> None:
        """Send what ended since the last time."""
        now_s, cpu_s, users = time.perf_counter(), time.process_time(), self._engine.users
        taken = self._engine.take()
        if taken.latencies_ns:
            self._succeeded_s = now_s
        if unfinished:
            taken.errors["Unfinished"] += unfinished
            taken.examples["Unfinished"] = f"no answer within {DRAIN_S:g} s after the run's end"
        _say(
            Interval(
                phase=self._phase,
                start_s=self._interval_start_s - self._began_s,
                end_s=now_s - self._began_s,
                users=users,
                latencies=Latencies(taken.latencies_ns),
                errors=taken.errors,
                examples=taken.examples,
                cpu_s=cpu_s - self._cpu_start_s,
            )
        )
        self._interval_start_s, self._cpu_start_s = now_s, cpu_s

    def _look_for_server(self, now_s: float) -> None:
        silent_s = now_s - max(self._succeeded_s, self._asked_s)
        if self._lost or not self._engine.users or silent_s < LOST_AFTER_S:
            return
        self._asked_s = now_s
        try:
            if self._client.live():
                return
            reason = "it says that it is not live"
        except ClientError as exc:
            reason = str(exc)
        self._lost = True
        _say(Lost(message=f"the server stopped answering {now_s - self._succeeded_s:.0f} s ago: {reason}"))

    def _snapshot(self) -> ServerSnapshot | None:
        try:
            return ServerSnapshot.of(self._client.statistics(self._traffic.model, self._traffic.version))
        except ClientError as exc:
            self._note = f"the server's statistics could not be had: {exc}"
            return None


class _Orders:
    """Lines from a pipe, without ever waiting longer than a tick of the engine."""

    def __init__(self, file_descriptor: int) -> None:
        self._file_descriptor, self._rest, self._ended = file_descriptor, b"", False
        self._lines: deque[str] = deque()

    def __iter__(self) -> Iterator[str]:
        """Yield each order, an empty one at every tick without any, until the pipe is closed."""
        while self._lines or not self._ended:
            if not self._lines and select.select([self._file_descriptor], [], [], Engine.pause_s)[0]:
                self._read()
            yield self._lines.popleft() if self._lines else ""

    def wait_line(self) -> str:
        """Return the next line, however long it takes; empty at the end."""
        while not self._lines and not self._ended:
            self._read()
        return self._lines.popleft() if self._lines else ""

    def _read(self) -> None:
        chunk = os.read(self._file_descriptor, 1 << 16)
        self._ended = not chunk
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._lines.extend(line.decode() for line in lines)


def _say(message: EngineMessage) -> None:
    sys.stdout.buffer.write(encode_message(message))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
