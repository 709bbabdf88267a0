"""An engine in a process of its own: orders on stdin, messages on stdout (see :mod:`naiad.loadtest._engine.link`).

It is given one job after another, each with fresh connections. It ends when its input does: with the one who started
it, however that one ended.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

from naiad.client import ClientError
from naiad.loadtest._data.payloads import make_payloads
from naiad.loadtest._data.target import connect, describe
from naiad.loadtest._engine.lane import Lane
from naiad.loadtest._engine.loop import Loop
from naiad.loadtest._engine.messages import (
    Drained,
    Exhausted,
    Failed,
    Lost,
    Message,
    Ready,
    encode_message,
    encode_recorded,
)
from naiad.loadtest._engine.orders import ENDED, Orders
from naiad.loadtest._engine.plans import decode_test
from naiad.loadtest._engine.priority import realtime
from naiad.loadtest._engine.schedule import Mix, arrivals
from naiad.loadtest._engine.sources import Crowd, Source, Timetable
from naiad.loadtest._engine.speaker import Speaker
from naiad.loadtest._engine.watch import Watch
from naiad.loadtest._wire.opening import open_wire
from naiad.loadtest._wire.waiting import sleep_precisely
from naiad.loadtest.errors import LoadTestError
from naiad.loadtest.plan import Connection, LoadTest, Users

DRAIN_NS: Final = 5_000_000_000
_SLOTS: Final = 64


def main() -> int:
    """Do job after job until the orders end; return the exit code."""
    sleep_precisely()
    orders, speaker = Orders(), Speaker()
    order = orders.wait()
    while order is not None and order is not ENDED:
        order = _Job(order, orders, speaker).run() if order["order"] == "job" else orders.wait()
    speaker.close()
    return 0


class _Job:
    """One test, or this engine's share of it."""

    def __init__(self, order: dict[str, Any], orders: Orders, speaker: Speaker) -> None:
        self._number, self._users = order["job"], order["users"]
        self._shard, self._num_shards = order["engine"], order["num_engines"]
        self._test_text, self._send_to = order["test"], order["send_to"]
        self._orders, self._speaker = orders, speaker
        self._cpu_s = 0.0
        self._exhausted = False

    def run(self) -> dict[str, Any] | None:
        """Prepare, then do as ordered; return the order that this job cannot obey."""
        with ExitStack() as stack:
            try:
                test = decode_test(self._test_text)
                self._prepare(test, stack)
            except (ClientError, LoadTestError) as exc:
                self._say(Failed(message=str(exc)))
                return self._orders.wait()
            order = self._orders.wait()
            while order is not None and order["order"] == "users":
                self._source.set_users(order["users"])
                order = self._orders.wait()
            if order is None or order["order"] != "start":
                return order
            with _steady_memory():
                return self._send(order["at_ns"])

    def _prepare(self, test: LoadTest, stack: ExitStack) -> None:
        self._test, weights = test, [traffic.weight for traffic in test.mix]
        payloads = []
        with connect(test.connection) as client:
            for traffic in test.mix:
                signature = describe(client, traffic).signature
                made = make_payloads(
                    traffic, signature, seed=test.seed, connection=test.connection, num_slots=self._num_slots(test)
                )
                payloads.append(stack.enter_context(made))
        peer = Connection(url=self._send_to) if self._send_to else test.connection
        self._wire = open_wire(peer, transport=test.transport, connections=test.connections)
        stack.callback(self._wire.close)  # before the payloads: the server may still write to their shared memory
        shard = self._shard, self._num_shards
        url = test.connection.url
        self._lanes = [
            Lane(index, traffic, made, self._wire, url=url, seed=test.seed, shard=shard)
            for index, (traffic, made) in enumerate(zip(test.mix, payloads, strict=True))
        ]
        self._source = self._make_source(test, weights)
        if self._users is not None:
            self._source.set_users(self._users)
        if test.realtime:
            stack.enter_context(realtime())
        self._say(
            Ready(
                num_samples=sum(made.num_samples for made in payloads),
                request_bytes=max(made.request_bytes for made in payloads),
            )
        )

    def _num_slots(self, test: LoadTest) -> int:
        """Return how many requests are in flight at a time, as far as it is known beforehand."""
        return -(-test.load.users // self._num_shards) if isinstance(test.load, Users) else _SLOTS

    def _make_source(self, test: LoadTest, weights: list[float]) -> Source:
        shard, num_shards, load = self._shard, self._num_shards, test.load
        if isinstance(load, Users):
            users = load.users // num_shards + (shard < load.users % num_shards)
            mix = Mix(weights, test.seed)
            return Crowd(self._lanes, mix, users=users, spawn_rate=load.spawn_rate, shard=shard, num_shards=num_shards)
        schedule = arrivals(load, weights, seed=test.seed, shard=shard, num_shards=num_shards)
        return Timetable(self._lanes, schedule, max_in_flight=max(1, load.max_in_flight // num_shards))

    def _send(self, at_ns: int) -> dict[str, Any] | None:
        loop = Loop(self._wire, self._lanes, self._source, self._report)
        watch = Watch(self._test.connection, lambda text: self._say(Lost(message=text)))
        self._cpu_s = time.process_time()
        loop.start(at_ns)
        waiting, turn = self._orders.waiting, loop.turn
        while True:
            turn()
            if waiting:
                order = waiting.popleft()
                if order["order"] == "users":
                    self._source.set_users(order["users"])
                elif order["order"] == "stop":
                    return self._drain(loop)
                else:
                    return order
            if loop.interval_ended:
                loop.interval_ended = False
                self._between(loop, watch)

    def _between(self, loop: Loop, watch: Watch) -> None:
        """Do what has to be done now and then, at the end of an interval."""
        gc.collect(1)  # what is older was frozen, or is in flight: this takes some microseconds
        num_failed = sum(lane.num_failed for lane in self._lanes)
        watch.look(time.perf_counter_ns(), loop.num_succeeded, num_failed, loop.in_flight)
        over_ns = getattr(self._source, "exhausted_ns", None)
        if over_ns is not None and not self._exhausted:
            self._exhausted = True
            self._say(Exhausted(at_s=over_ns / 1e9))

    def _drain(self, loop: Loop) -> dict[str, Any] | None:
        loop.drain()
        end_ns = time.perf_counter_ns() + DRAIN_NS
        while loop.busy and time.perf_counter_ns() < end_ns:
            if self._orders.waiting:
                return self._orders.wait()
            loop.turn()
        loop.finish()
        self._say(Drained())
        return self._orders.wait()

    def _report(self, start_ns: int, end_ns: int, lanes: list[dict[str, Any]]) -> None:
        cpu_s, self._cpu_s = time.process_time() - self._cpu_s, time.process_time()
        for fields in lanes:
            fields |= {"engine": self._shard, "start_s": start_ns / 1e9, "end_s": end_ns / 1e9}
            fields |= {"users": self._source.num_users, "cpu_s": 0.0 if fields["traffic"] else cpu_s}
            self._speaker.say(partial(encode_recorded, fields, self._number))

    def _say(self, message: Message) -> None:
        self._speaker.say(partial(encode_message, message, self._number))


@contextmanager
def _steady_memory() -> Iterator[None]:
    """Keep the garbage collector from stopping the loop: what was prepared is not looked at again.

    A full collection walks over every sample and module, more than ten milliseconds in which nothing would leave. The
    loop makes no cycles; what errors leave behind goes between intervals, see :meth:`_Job._between`.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


if __name__ == "__main__":
    sys.exit(main())
