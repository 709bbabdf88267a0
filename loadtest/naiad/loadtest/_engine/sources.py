"""Where requests come from: users who are free again, or a schedule."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from naiad.loadtest._engine.flight import Flight
from naiad.loadtest._engine.lane import NOT_SENT, Lane
from naiad.loadtest._engine.schedule import Arrival, Mix

if TYPE_CHECKING:
    from naiad.loadtest._engine.loop import Loop

__all__ = ["NEVER_NS", "Crowd", "Source", "Timetable"]

NEVER_NS: Final = 1 << 62
_MOST_AT_ONCE: Final = 128  # answers and orders come in between, even where arrivals never end
PAUSE_NS: Final = 20_000_000
"""A user whose request failed waits this long, so that a server that refuses at once is not flooded."""


class Source(Protocol):
    """Decides when something is sent; :meth:`Loop.begin` sends it."""

    num_users: int

    def start(self, loop: Loop, at_ns: int) -> None:
        """Begin at ``at_ns``."""

    def send_due(self, now_ns: int) -> int:
        """Send what is due; return when the next thing is."""

    def ended(self, flight: Flight, at_ns: int, succeeded: bool) -> None:
        """Take a flight back."""

    def resume(self, flight: Flight, due_ns: int) -> None:
        """Go on with a flight that paused."""

    def set_users(self, number: int) -> None:
        """Change the load."""

    def stop(self, now_ns: int) -> None:
        """Send nothing any more; what was due by now and did not leave has failed."""


class Crowd:
    """A closed loop: each user has one request in flight."""

    def __init__(
        self, lanes: Sequence[Lane], mix: Mix, *, users: int, spawn_rate: float | None, shard: int, num_shards: int
    ) -> None:
        self._lanes, self._mix = lanes, mix
        self._alone = lanes[0] if len(lanes) == 1 else None
        self._wanted = users
        self._gap_ns = 0.0 if spawn_rate is None else 1e9 / spawn_rate
        self._shard, self._num_shards = shard, num_shards
        self._start_ns = 0
        self._free: list[Flight] = []
        self._num_flights = 0
        self.num_users = 0
        """Users that have begun, and not left."""

    def start(self, loop: Loop, at_ns: int) -> None:
        """Begin with the first users."""
        self._loop, self._start_ns = loop, at_ns

    def set_users(self, number: int) -> None:
        """Have ``number`` users at once. Surplus ones leave when what they do has ended."""
        self._wanted, self._gap_ns = number, 0.0

    def stop(self, now_ns: int) -> None:
        """Let all users leave."""
        self._wanted = 0

    def send_due(self, now_ns: int) -> int:
        """Let new users begin."""
        while self.num_users < self._wanted:
            due_ns = self._start_ns + round((self.num_users * self._num_shards + self._shard) * self._gap_ns)
            if due_ns > now_ns:
                return due_ns
            self.num_users += 1
            self._next(self._free.pop() if self._free else self._new(), due_ns if self._gap_ns else now_ns)
        return NEVER_NS

    def ended(self, flight: Flight, at_ns: int, succeeded: bool) -> None:
        """Send the user's next request, after a pause where this one failed."""
        if self.num_users > self._wanted:
            self._leave(flight)
        elif succeeded:
            self._next(flight, at_ns)
        else:
            self._loop.pause(flight, at_ns + PAUSE_NS)

    def resume(self, flight: Flight, due_ns: int) -> None:
        """Go on after the pause."""
        if self.num_users > self._wanted:
            self._leave(flight)
        else:
            self._next(flight, due_ns)

    def _next(self, flight: Flight, due_ns: int) -> None:
        lane = self._alone
        if lane is None:
            lane = self._lanes[self._mix.traffic(flight.user, flight.turn)]
            flight.turn += 1
        self._loop.begin(flight, lane, due_ns)

    def _new(self) -> Flight:
        number = self._num_flights
        self._num_flights += 1
        return Flight(number, number * self._num_shards + self._shard)

    def _leave(self, flight: Flight) -> None:
        self.num_users -= 1
        self._free.append(flight)


class Timetable:
    """An open loop: arrivals of a schedule, whether or not the server keeps up."""

    num_users = 0

    def __init__(self, lanes: Sequence[Lane], arrivals: Iterator[Arrival], *, max_in_flight: int) -> None:
        self._lanes, self._arrivals = lanes, arrivals
        self._max_in_flight = max_in_flight
        self._full = f"{max_in_flight} requests were in flight, the most that may be (max_in_flight)"
        self._free: list[Flight] = []
        self._num_flights = 0
        self._pace = 1.0  # real time that passes for the schedule's
        self._origin_ns = self._origin_due_ns = 0  # the schedule's time at a moment of the real one
        self._next: Arrival | None = None
        self._due_ns = NEVER_NS
        self.exhausted_ns: int | None = None
        """When the last arrival of a schedule that has ended was due, since the start."""

    def start(self, loop: Loop, at_ns: int) -> None:
        """Let the schedule begin at ``at_ns``."""
        self._loop, self._origin_ns, self._origin_due_ns = loop, at_ns, 0
        self._advance()

    def set_users(self, number: int) -> None:
        """Go on at ``number`` times the schedule's rate; 0 sends nothing."""
        now_ns = time.perf_counter_ns()
        if math.isfinite(self._pace):
            self._origin_due_ns += round((now_ns - self._origin_ns) / self._pace)
        self._origin_ns, self._pace = now_ns, 1 / number if number else math.inf
        self._place()

    def stop(self, now_ns: int) -> None:
        """Let no more arrive."""
        exhausted_ns = self.exhausted_ns
        while self._due_ns <= now_ns:
            assert self._next is not None
            self._lanes[self._next[1]].count_error(NOT_SENT, "the engine was too slow for the schedule")
            self._advance()
        self._next, self._due_ns, self.exhausted_ns = None, NEVER_NS, exhausted_ns

    def send_due(self, now_ns: int) -> int:
        """Send what has arrived, but only so much at a time; return when the next one does."""
        for _ in range(_MOST_AT_ONCE):
            if self._due_ns > now_ns:
                break
            assert self._next is not None
            due_ns, lane = self._due_ns, self._lanes[self._next[1]]
            flight = self._take()
            if flight is None:
                lane.count_error(NOT_SENT, self._full)
            else:
                self._loop.begin(flight, lane, due_ns)
            self._advance()
        return self._due_ns

    def ended(self, flight: Flight, at_ns: int, succeeded: bool) -> None:
        """Keep the place for another arrival."""
        self._free.append(flight)

    def resume(self, flight: Flight, due_ns: int) -> None:
        """Never needed: an arrival does not pause."""
        raise AssertionError(flight)

    def _take(self) -> Flight | None:
        if self._free:
            return self._free.pop()
        if self._num_flights >= self._max_in_flight:
            return None
        self._num_flights += 1
        return Flight(self._num_flights - 1)

    def _advance(self) -> None:
        last = self._next
        self._next = next(self._arrivals, None)
        if self._next is None and self.exhausted_ns is None:
            self.exhausted_ns = last[0] if last else 0
        self._place()

    def _place(self) -> None:
        """Work out when the next arrival is due in real time."""
        if self._next is None or not math.isfinite(self._pace):
            self._due_ns = NEVER_NS
        elif self._pace == 1.0 and not self._origin_due_ns:
            self._due_ns = self._origin_ns + self._next[0]
        else:
            self._due_ns = self._origin_ns + round((self._next[0] - self._origin_due_ns) * self._pace)
