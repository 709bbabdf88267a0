"""The engine: one thread that sends what is due, waits for what comes back, and notes when each happened.

A latency runs from when the request *should* have left: in an open loop its place in the schedule, in a closed loop the
moment its user was free. What keeps it from leaving then (the engine was busy) is its lag, and counts.
"""

from __future__ import annotations

import heapq
import secrets
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from naiad.loadtest._data.codec import sequence_suffix
from naiad.loadtest._engine.flight import Flight
from naiad.loadtest._engine.lane import UNFINISHED, Lane
from naiad.loadtest._engine.messages import INTERVAL_NS
from naiad.loadtest._engine.streams import FIRST_STREAM, Streams

if TYPE_CHECKING:
    from naiad.loadtest._engine.sources import Source
    from naiad.loadtest._wire.seam import Event, Wire

__all__ = ["Loop"]

LONGEST_WAIT_NS: Final = 20_000_000  # orders are looked for this often
_EXPIRY_NS: Final = 100_000_000
_CATCH_UP_NS: Final = 100_000_000
_STEP_NS: Final = 300
_EARLIEST_NS: Final = 60_000
_CHUNK: Final = 8  # answers handled before the clock is looked at again for what is due

Report = Callable[[int, int, list[dict[str, Any]]], None]
"""Takes an interval's start and end (ns since the run's start), and what each lane recorded."""


class Loop:
    """Drives ``wire`` for the arrivals of ``source``. Not thread-safe; :meth:`turn` is called again and again."""

    def __init__(self, wire: Wire, lanes: Sequence[Lane], source: Source, report: Report) -> None:
        self._wire, self._lanes, self._source, self._report = wire, lanes, source, report
        self._streams = Streams(wire, self._ended)
        self._flights: dict[int, Flight] = {}
        self._timers: list[tuple[int, int, Flight]] = []  # when a flight goes on by itself
        self._sequence_id = secrets.randbits(62)
        self._start_ns = self._interval_ns = self._edge_ns = self._expiry_ns = 0
        self._early_ns = 20_000
        self._draining = False
        self.num_succeeded = 0
        self.interval_ended = False
        """Whether an interval has ended since this was last set to false."""

    @property
    def in_flight(self) -> int:
        """How many requests have left and not ended."""
        return sum(lane.in_flight for lane in self._lanes)

    @property
    def busy(self) -> bool:
        """Whether anything is still to come: a request in flight, or the end of a sequence."""
        return bool(self._flights) or self.in_flight > 0 or self._streams.busy

    def start(self, at_ns: int) -> None:
        """Begin at ``at_ns`` of ``time.perf_counter_ns()``: the zero of the schedule and of the intervals."""
        self._start_ns = self._interval_ns = at_ns
        self._edge_ns = at_ns + INTERVAL_NS
        self._source.start(self, at_ns)

    def turn(self) -> None:
        """Send what is due, and handle what comes back until the next thing is due, or for a short time."""
        now_ns = time.perf_counter_ns()
        if now_ns >= self._edge_ns:
            self._end_interval(now_ns)
        due_ns = self._send_due(now_ns)
        limit_ns, now_ns = min(self._edge_ns, now_ns + LONGEST_WAIT_NS), time.perf_counter_ns()
        wait_ns = due_ns - now_ns - self._early_ns if due_ns < limit_ns else limit_ns - now_ns
        events = self._wire.poll(wait_ns * 1e-9 if wait_ns > 0 else 0.0)
        if not events:
            if wait_ns > 0 and due_ns < limit_ns:
                self._learn(time.perf_counter_ns() - now_ns - wait_ns)
            return
        for first in range(0, len(events), _CHUNK):
            self._handle(events[first : first + _CHUNK])
            if first + _CHUNK < len(events) and time.perf_counter_ns() >= due_ns:
                due_ns = self._send_due(time.perf_counter_ns())
                self._wire.flush()

    def _learn(self, late_ns: int) -> None:
        """Follow how late the kernel wakes us up: a wait ends so much earlier, and the rest is polled away.

        The estimate rises a little after every wait that was later, and falls three times as much after one that was
        not: it stays where three quarters of the waits are later, so that little time is spent on polling.
        """
        step_ns = _STEP_NS if late_ns > self._early_ns else -3 * _STEP_NS
        self._early_ns = min(max(self._early_ns + step_ns, 0), _EARLIEST_NS)

    def begin(self, flight: Flight, lane: Lane, due_ns: int) -> None:
        """Send the first request of what ``flight`` is there for."""
        flight.lane = lane
        if lane.plain:
            flight.sample = lane.next_sample()
            self._flights[flight.number] = flight
            left_ns = self._wire.send(
                lane.prepared[flight.sample], flight.number, lane.timeout_s, lane.suffix(flight.number)
            )
            flight.due_ns, flight.left_ns = due_ns, left_ns
            lane.lag.append(left_ns - due_ns)
            lane.sent += 1
            lane.in_flight += 1
            return
        if lane.traffic.sequence is None:
            flight.sample = lane.next_sample()
        else:
            self._sequence_id += 1
            flight.sequence_id, flight.samples, flight.step = self._sequence_id, lane.draw_sequence(), 0
        self._step(flight, due_ns)

    def pause(self, flight: Flight, until_ns: int) -> None:
        """Have ``flight`` go on at ``until_ns``."""
        heapq.heappush(self._timers, (until_ns, flight.number, flight))

    def drain(self) -> None:
        """Send nothing new, but what ends a sequence."""
        now_ns = time.perf_counter_ns()
        end_ns = now_ns + _CATCH_UP_NS
        while self._send_due(now_ns) <= now_ns and time.perf_counter_ns() < end_ns:
            pass  # what should have left before this moment belongs to the run
        self._draining = True
        self._source.stop(now_ns)
        timers, self._timers = self._timers, []
        for due_ns, _, flight in timers:
            if flight.samples:
                self._step(flight, min(due_ns, now_ns))

    def finish(self) -> None:
        """End the last interval; what has not ended by now is given up."""
        for lane in self._lanes:
            if lane.in_flight:
                lane.count_error(UNFINISHED, "no answer to what was in flight when the run ended", lane.in_flight)
        for flight in self._flights.values():
            self._wire.cancel(flight.number)
        self._streams.close()
        self._wire.poll(0.0)  # so that the server is told
        self._rotate(max(time.perf_counter_ns(), self._interval_ns + 1))

    def _send_due(self, now_ns: int) -> int:
        """Send what is due; return when the next thing is."""
        timers = self._timers
        while timers and timers[0][0] <= now_ns:
            due_ns, _, flight = heapq.heappop(timers)
            if flight.samples:
                self._step(flight, due_ns)
            else:
                self._source.resume(flight, due_ns)
        due_ns = self._source.send_due(now_ns)
        return min(due_ns, timers[0][0]) if timers else due_ns

    def _handle(self, events: Sequence[Event]) -> None:
        flights, edge_ns = self._flights, self._edge_ns
        for event in events:
            token, at_ns, status = event.token, event.at_ns, event.status
            if at_ns >= edge_ns:
                self._end_interval(at_ns)
                edge_ns = self._edge_ns
            if token >= FIRST_STREAM:
                self._streams.on_event(event)
                continue
            flight = flights.pop(token)
            lane = flight.lane
            if status:
                if not flight.cleaning:
                    lane.failed(status, event.details, token)
                self._ended(flight, at_ns, False)
            elif lane.check is not None and not flight.cleaning and not self._right(flight, event):
                lane.wrong()
                self._ended(flight, at_ns, False)
            else:
                lane.responses += 1
                self._ended(flight, at_ns, True)

    def _ended(self, flight: Flight, at_ns: int, succeeded: bool) -> None:
        """Record how a request ended, and go on with the sequence, or with the source."""
        lane = flight.lane
        if not flight.cleaning:
            lane.in_flight -= 1
            if succeeded:
                lane.latencies.append(at_ns - flight.due_ns)
                lane.service.append(at_ns - flight.left_ns)
                self.num_succeeded += 1
        if lane.plain:
            self._source.ended(flight, at_ns, succeeded)
        else:
            self._go_on(flight, at_ns, succeeded)

    def _right(self, flight: Flight, event: Event) -> bool:
        assert flight.lane.check is not None
        return flight.lane.check(flight.sample, bytes(event.message or b""), flight.number)

    def _go_on(self, flight: Flight, at_ns: int, succeeded: bool) -> None:
        """Go on with what is more than one request: a sequence, or a stream that another request may have."""
        sequence, flight.step = flight.lane.traffic.sequence, flight.step + 1
        if flight.cleaning or flight.step >= len(flight.samples):
            succeeded, flight.cleaning, flight.samples = succeeded and not flight.cleaning, False, []
            self._streams.release(flight)
            self._source.ended(flight, at_ns, succeeded)
        elif not succeeded:  # end it, so that the server keeps no place for it
            flight.cleaning = True
            self._step(flight, at_ns)
        elif sequence is not None and sequence.pause_s and not self._draining:
            self.pause(flight, at_ns + round(sequence.pause_s * 1e9))
        else:
            self._step(flight, at_ns)

    def _step(self, flight: Flight, due_ns: int) -> None:
        """Send the next request of a sequence, or one over a stream."""
        lane, suffix = flight.lane, flight.lane.suffix(flight.number)
        if flight.samples:
            if self._draining or flight.cleaning:
                del flight.samples[flight.step + 1 :]
            flight.sample = flight.samples[flight.step]
            suffix += sequence_suffix(flight.sequence_id, flight.step == 0, flight.step + 1 == len(flight.samples))
        if lane.traffic.stream:
            left_ns = self._streams.write(flight, suffix)
        else:
            self._flights[flight.number] = flight
            left_ns = self._wire.send(lane.prepared[flight.sample], flight.number, lane.timeout_s, suffix)
        flight.due_ns, flight.left_ns = due_ns, left_ns
        if flight.cleaning:
            return
        lane.lag.append(left_ns - due_ns)
        lane.sent += 1
        lane.in_flight += 1

    def _end_interval(self, now_ns: int) -> None:
        """End the interval at the last edge that has passed."""
        if now_ns >= self._expiry_ns:
            self._streams.expire(now_ns)
            self._expiry_ns = now_ns + _EXPIRY_NS
        edge_ns = now_ns - (now_ns - self._start_ns) % INTERVAL_NS
        self._rotate(edge_ns)
        self._edge_ns = edge_ns + INTERVAL_NS

    def _rotate(self, end_ns: int) -> None:
        start_ns, self._interval_ns = self._interval_ns, end_ns
        self.interval_ended = True
        self._report(start_ns - self._start_ns, end_ns - self._start_ns, [lane.take() for lane in self._lanes])
