"""Requests over gRPC streams: one at a time on each stream, and a pool of streams that grows with what is in flight."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from naiad.loadtest._data.stream import read_stream_message
from naiad.loadtest._engine.lane import DEADLINE_EXCEEDED

if TYPE_CHECKING:
    from naiad.loadtest._engine.flight import Flight
    from naiad.loadtest._engine.lane import Lane
    from naiad.loadtest._wire.seam import Event, Wire

__all__ = ["FIRST_STREAM", "Stream", "Streams"]

FIRST_STREAM: Final = 1 << 32
"""Tokens from here on are streams; those below are flights."""
_UNKNOWN: Final = 2

Ended = Callable[["Flight", int, bool], None]


class Stream:
    """An open stream and the request that is on it."""

    __slots__ = ("flight", "lane", "token")

    def __init__(self, token: int, lane: Lane) -> None:
        self.token, self.lane = token, lane
        self.flight: Flight | None = None


class Streams:
    """All streams of an engine. A stream on which something went wrong is given up; the next request opens another."""

    def __init__(self, wire: Wire, ended: Ended) -> None:
        self._wire, self._ended = wire, ended
        self._tokens = itertools.count(FIRST_STREAM)
        self._open: dict[int, Stream] = {}
        self._idle: dict[Lane, list[Stream]] = {}

    @property
    def busy(self) -> bool:
        """Whether a request is on any of them."""
        return any(stream.flight is not None for stream in self._open.values())

    def write(self, flight: Flight, suffix: bytes) -> int:
        """Send the flight's request; return when it left."""
        stream = flight.stream
        if stream is None:
            idle = self._idle.get(flight.lane)
            stream = flight.stream = idle.pop() if idle else self._opened(flight.lane)
            stream.flight = flight
        flight.last_ns, flight.failed = 0, False
        return self._wire.write(flight.lane.prepared[flight.sample], stream.token, suffix)

    def release(self, flight: Flight) -> None:
        """Let another request have the flight's stream."""
        stream, flight.stream = flight.stream, None
        if stream is not None:
            stream.flight = None
            self._idle.setdefault(stream.lane, []).append(stream)

    def on_event(self, event: Event) -> None:
        """Take what came on a stream."""
        stream = self._open.get(event.token)
        if stream is None:  # given up before
            return
        if event.ended:
            self._on_end(stream, event)
        elif stream.flight is not None and event.message is not None:
            self._on_message(stream, stream.flight, bytes(event.message), event.at_ns)

    def expire(self, now_ns: int) -> None:
        """Give up requests whose time is over."""
        late = [
            stream
            for stream in self._open.values()
            if (flight := stream.flight) is not None and now_ns - flight.left_ns > stream.lane.timeout_s * 1e9
        ]
        for stream in late:  # what it still brings would be of a request that has failed
            assert stream.flight is not None
            self._forget(stream)
            self._wire.cancel(stream.token)
            self._lost(stream, stream.flight, DEADLINE_EXCEEDED, "Deadline Exceeded", now_ns)

    def close(self) -> None:
        """Say on every stream that nothing more comes."""
        for token in self._open:
            self._wire.close_stream(token)

    def _opened(self, lane: Lane) -> Stream:
        stream = Stream(next(self._tokens), lane)
        self._open[stream.token] = stream
        self._wire.open_stream(stream.token, None)
        return stream

    def _on_message(self, stream: Stream, flight: Flight, message: bytes, at_ns: int) -> None:
        answer, lane = read_stream_message(message), stream.lane
        if answer.error:
            self._on_error(stream, flight, answer.error)
        elif not answer.empty:
            lane.responses += 1
            if flight.last_ns:
                lane.between_responses.append(at_ns - flight.last_ns)
            else:
                lane.first_response.append(at_ns - flight.due_ns)
            flight.last_ns = at_ns
            if lane.check is not None and not lane.check(flight.sample, answer.response, flight.number):
                self._on_wrong(flight)
        if answer.final:
            if answer.error:  # whatever followed would be taken for the next request's
                self._forget(stream)
                self._wire.close_stream(stream.token)
                stream.flight = flight.stream = None
            self._ended(flight, at_ns, not flight.failed)

    def _on_error(self, stream: Stream, flight: Flight, details: str) -> None:
        """Count a request that failed; if its model goes on, the final response is still to come."""
        if not flight.failed and not flight.cleaning:
            stream.lane.failed(_UNKNOWN, details, flight.number)
        flight.failed = True

    def _on_wrong(self, flight: Flight) -> None:
        if not flight.failed and not flight.cleaning:
            flight.lane.wrong()
        flight.failed = True

    def _on_end(self, stream: Stream, event: Event) -> None:
        self._forget(stream)
        if stream.flight is not None:
            details = event.details or "the stream ended before the final response"
            self._lost(stream, stream.flight, event.status or _UNKNOWN, details, event.at_ns)

    def _lost(self, stream: Stream, flight: Flight, status: int, details: str, at_ns: int) -> None:
        stream.flight = flight.stream = None
        if not flight.failed and not flight.cleaning:
            stream.lane.failed(status, details, flight.number)
        self._ended(flight, at_ns, False)

    def _forget(self, stream: Stream) -> None:
        del self._open[stream.token]
        idle = self._idle.get(stream.lane, [])
        if stream in idle:
            idle.remove(stream)
