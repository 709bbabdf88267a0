"""Locust's master in a process of its own: hands the parts of a test to workers, and passes on what they say.

Locust's runners connect, watch over and let go of the workers; the results come as messages of ours, since Locust's own
statistics are rounded. Orders come on stdin (see :mod:`naiad.loadtest._locust.master`).
"""

from __future__ import annotations

import sys
from typing import Any, Final

from locust.env import Environment  # first: it patches the standard library

import gevent  # isort: skip
import time

from gevent.queue import Empty, Queue
from locust.runners import STATE_MISSING, MasterRunner

from naiad.loadtest._locust.clock import Offset, boot_id
from naiad.loadtest._locust.process import leave, orders, quiet, say

_NUM_PINGS: Final = 9
_PING_TIMEOUT_S: Final = 5.0
_LOOK_S: Final = 0.25


def main() -> int:
    """Obey until the orders end; return the exit code."""
    quiet()
    host, port = sys.argv[1], int(sys.argv[2])
    runner = Environment(user_classes=[]).create_master_runner(host, port)
    master = _Master(runner)
    say("listening")
    for order in orders():
        master.obey(order)
    runner.quit()
    return 0


class _Master:
    def __init__(self, runner: MasterRunner) -> None:
        self._runner = runner
        self._workers: list[str] = []
        """Those that take part, in the order of their shares."""
        self._offsets: dict[str, Offset] = {}
        self._lost: set[str] = set()
        self._pongs: Queue[tuple[str, dict[str, Any], int]] = Queue()
        runner.register_message("naiad-said", self._on_said)
        runner.register_message("naiad-pong", self._on_pong)
        gevent.spawn(self._watch)

    def obey(self, order: dict[str, Any]) -> None:
        """Do as ordered by the process that conducts the run."""
        match order["order"]:
            case "job":
                self._hand_out(order)
            case "start":
                for worker in self._workers:
                    self._send(worker, "start", at_ns=order["at_ns"] + self._offsets[worker].ahead_ns)
            case _:
                for worker in self._workers:
                    self._send(worker, order["order"])

    def _hand_out(self, order: dict[str, Any]) -> None:
        self._workers, self._lost = self._present()[: order["num_workers"]], set()
        engines, total = order["engines"], order["engines"] * len(self._workers)
        for worker in self._workers:
            self._offsets[worker] = self._ask_clock(worker)
        say("clocks", error_ns=max(offset.error_ns for offset in self._offsets.values()))
        for number, worker in enumerate(self._workers):
            self._send(
                worker,
                "job",
                test=order["test"],
                first=number * engines,
                engines=engines,
                total=total,
                job=order["job"],
            )

    def _present(self) -> list[str]:
        workers = [client.id for client in self._runner.clients.all if client.state != STATE_MISSING]
        return sorted(workers, key=self._runner.get_worker_index)

    def _ask_clock(self, worker: str) -> Offset:
        asked, same = [], False
        for number in range(_NUM_PINGS):
            left_ns = time.perf_counter_ns()
            self._runner.send_message("naiad-ping", {"number": number}, client_id=worker)
            answer, back_ns = self._pong(worker, number)
            if answer is not None:
                asked.append((left_ns, answer["at_ns"], back_ns))
                same = bool(boot_id()) and answer["boot"] == boot_id()
        if not asked:
            self._lose(worker, "does not answer")
            return Offset(0, 0)
        return Offset.of(asked, same_clock=same)

    def _pong(self, worker: str, number: int) -> tuple[dict[str, Any] | None, int]:
        try:
            while True:
                sender, answer, back_ns = self._pongs.get(timeout=_PING_TIMEOUT_S)
                if (sender, answer["number"]) == (worker, number):
                    return answer, back_ns
        except Empty:
            return None, 0

    def _send(self, worker: str, order: str, **fields: Any) -> None:
        self._runner.send_message("naiad-order", {"order": order, **fields}, client_id=worker)

    def _on_pong(self, environment: Environment, msg: Any) -> None:
        self._pongs.put((msg.node_id, msg.data, time.perf_counter_ns()))

    def _on_said(self, environment: Environment, msg: Any) -> None:
        if msg.node_id in self._workers:
            say("message", **msg.data)

    def _watch(self) -> None:
        """Tell who comes and who is gone: by its own word, or since it was not heard of for three seconds."""
        known: list[str] = []
        while True:
            present = self._present()
            if present != known:
                known = present
                say("workers", number=len(present))
            for worker in self._workers:
                if worker not in present:
                    self._lose(worker, "is gone")
            gevent.sleep(_LOOK_S)

    def _lose(self, worker: str, how: str) -> None:
        if worker not in self._lost:
            self._lost.add(worker)
            name, number = worker.rpartition("_")[0], self._workers.index(worker) + 1
            say("lost", worker=number - 1, text=f"worker {number} of {len(self._workers)} ({name}) {how}")


if __name__ == "__main__":
    leave(main())
