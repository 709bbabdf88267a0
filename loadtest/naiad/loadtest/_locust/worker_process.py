"""A Locust worker whose requests leave from engine processes; it sends what a master tells it to.

Headers and certificates do not come from the master, whose line is not encrypted: the worker has its own, given as JSON
on the first line of stdin.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from locust.env import Environment  # first: it patches the standard library

import gevent  # isort: skip
import time

from gevent.fileobject import FileObjectThread
from locust.runners import WorkerRunner

from naiad.loadtest._engine.link import EngineLink
from naiad.loadtest._engine.messages import Failed, Message, encode_message
from naiad.loadtest._engine.plans import decode_test
from naiad.loadtest._locust.clock import boot_id
from naiad.loadtest._locust.process import leave, quiet
from naiad.loadtest.errors import LoadTestError
from naiad.loadtest.plan import LoadTest

_SILENCE_S: Final = 10.0  # a master that is there answers every second
_LOOK_S: Final = 0.5


def main() -> int:
    """Work until the master lets go, or is gone; return the exit code."""
    quiet()
    host, port = sys.argv[1], int(sys.argv[2])
    headers = _read_headers()
    environment = Environment(user_classes=[])
    try:
        runner = environment.create_worker_runner(host, port)
    except ConnectionError:
        sys.stderr.write(f"no master answers at {host}:{port}\n")
        return 1
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    worker = _Worker(runner, headers)
    try:
        return worker.work()
    finally:
        worker.close()
        environment.events.quitting.fire(environment=environment)  # type: ignore[no-untyped-call]


def _read_headers() -> dict[str, str]:
    import json

    line = FileObjectThread(sys.stdin.buffer, "rb", close=False).readline()
    found: dict[str, str] = json.loads(line or b"{}")
    return found


class _Worker:
    def __init__(self, runner: WorkerRunner, headers: Mapping[str, str]) -> None:
        self._runner, self._headers = runner, headers
        self._links: list[EngineLink] = []
        self._first = 0
        self._active: list[EngineLink] = []
        self._job = 0
        self._closing = False
        runner.register_message("naiad-order", self._on_order)
        runner.register_message("naiad-ping", self._on_ping)

    def work(self) -> int:
        """Return when the master said goodbye (0), or is not there any more (1)."""
        while not self._runner.greenlet.join(timeout=_LOOK_S) and len(self._runner.greenlet):
            heard_s = self._runner.last_heartbeat_timestamp
            if heard_s and time.time() - heard_s > _SILENCE_S:
                sys.stderr.write(f"the master was not heard of for {_SILENCE_S:g} s: the load ends\n")
                return 1
        return 0

    def close(self) -> None:
        """End the engines."""
        self._closing = True
        for link in self._links:
            link.hang_up()
        for link in self._links:
            link.close()

    def _on_ping(self, environment: Environment, msg: Any) -> None:
        answer = {"number": msg.data["number"], "at_ns": time.perf_counter_ns(), "boot": boot_id()}
        self._runner.send_message("naiad-pong", answer)

    def _on_order(self, environment: Environment, msg: Any) -> None:
        order = msg.data
        match order["order"]:
            case "job":
                self._take(order)
            case "start":
                for link in self._active:
                    link.start(order["at_ns"])
            case "stop":
                for link in self._active:
                    link.stop()

    def _take(self, order: dict[str, Any]) -> None:
        self._first, self._job = order["first"], order["job"]
        try:
            test = self._with_own_headers(decode_test(order["test"]))
        except LoadTestError as exc:
            self._pass_on(order["first"], Failed(message=str(exc)))
            return
        while len(self._links) < order["engines"]:
            self._links.append(EngineLink())
            gevent.spawn(self._read, len(self._links) - 1, self._links[-1])
        self._active = self._links[: order["engines"]]
        for number, link in enumerate(self._active):
            link.job(test, engine=self._first + number, num_engines=order["total"])

    def _with_own_headers(self, test: LoadTest) -> LoadTest:
        """Fill in the values of the headers whose names the master sent."""
        wanted = test.connection.headers
        missing = [name for name in wanted if name not in self._headers]
        if missing:
            text = f"the worker lacks the header {missing[0]}: start it with --header {missing[0]}=env:VARIABLE"
            raise LoadTestError(text)
        values = {name: self._headers[name] for name in wanted}
        return replace(test, connection=replace(test.connection, headers=values))

    def _read(self, number: int, link: EngineLink) -> None:
        for job, message in link.messages():
            if job == link.number:
                self._pass_on(self._first + number, message)
        if not self._closing:
            self._pass_on(self._first + number, Failed(message=link.last_words()))

    def _pass_on(self, engine: int, message: Message) -> None:
        line = encode_message(message, self._job).decode()
        self._runner.send_message("naiad-said", {"engine": engine, "line": line})


if __name__ == "__main__":
    leave(main())
