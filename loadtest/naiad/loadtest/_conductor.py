"""Locust without its command line: runs one plan headless and passes the engine's messages on.

The plan comes as the first line of stdin; a further line, or the end of stdin, ends the run early. Messages go to
stdout.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from naiad.loadtest.user import Sender, TritonUser, sender_of  # before everything that gevent has to patch

import gevent  # isort: skip
import locust
from gevent.event import Event
from gevent.fileobject import FileObjectThread
from locust.env import Environment

from naiad.loadtest.messages import Closed, EngineMessage, Lost, Ready, encode_message
from naiad.loadtest.plan import Traffic

_DRAIN_TIMEOUT_S = 20.0
_POLL_S = 0.05


def main() -> int:
    """Run the plan; return the exit code."""
    orders = FileObjectThread(sys.stdin.buffer, "rb", close=False)
    plan = json.loads(orders.readline())
    run = _Run(plan)
    watcher = gevent.spawn(run.stop_on_order, orders)
    exit_code = run.conduct()
    watcher.kill(block=False)
    return exit_code


class _Run:
    def __init__(self, plan: dict[str, Any]) -> None:
        traffic = Traffic.from_json(plan["traffic"])
        self._plan = plan
        self._user_class = type(
            "PlannedUser", (TritonUser,), {"traffic": classmethod(lambda _cls, _environment: traffic)}
        )
        self._environment = Environment(user_classes=[self._user_class], events=locust.events)
        self._runner = self._environment.create_local_runner()
        self._ready, self._spawned, self._stopped, self._closed = Event(), Event(), Event(), Event()
        self._environment.events.spawning_complete.add_listener(self._on_spawned)  # type: ignore[no-untyped-call]

    def conduct(self) -> int:
        """Ramp up, warm up, measure, drain."""
        sender = sender_of(self._environment, self._user_class, self._pass_on)
        sender.reader.link(lambda _: self._end())
        self._ready.wait()
        if not self._stopped.is_set():
            self._measure(sender)
        self._runner.quit()
        return self._environment.process_exit_code or 0

    def stop_on_order(self, orders: FileObjectThread) -> None:
        """Wait for an order, or for the end of whoever gives them; either ends the run."""
        orders.readline()
        self._stopped.set()

    def _on_spawned(self, **_: Any) -> None:
        self._spawned.set()

    def _measure(self, sender: Sender) -> None:
        users = self._plan["users"]
        self._runner.start(users, spawn_rate=self._plan["spawn_rate"] or users)
        while not self._spawned.wait(_POLL_S) and not self._stopped.is_set():
            pass
        if not self._stopped.wait(self._plan["warmup_s"]):
            sender.link.open_window()
            self._stopped.wait(self._plan["duration_s"])
        sender.link.close_window()
        self._closed.wait(_DRAIN_TIMEOUT_S)

    def _pass_on(self, message: EngineMessage) -> None:
        sys.stdout.buffer.write(encode_message(message))
        sys.stdout.buffer.flush()
        if isinstance(message, Ready):
            self._ready.set()
        elif isinstance(message, Closed):
            self._closed.set()
        elif isinstance(message, Lost):
            self._stopped.set()

    def _end(self) -> None:
        """The engine is gone: wait for nothing any more."""
        for event in (self._stopped, self._ready, self._closed):
            event.set()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # nothing is left to clean up, and gevent's threads would keep a blocked read of stdin waiting
