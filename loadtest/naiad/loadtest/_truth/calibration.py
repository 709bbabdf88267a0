"""What the generator itself can do: measured against a server that does nothing, before the run.

The null server answers at once with an answer like the real one. What a request takes then is the floor: client, gRPC
and loopback, and nothing of a server. How many there are per second is the ceiling of one engine process.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from naiad.loadtest._data.payloads import Payloads, make_payloads, sequence_suffix
from naiad.loadtest._data.target import Target
from naiad.loadtest._engine.group import EngineGroup
from naiad.loadtest._engine.messages import Drained, Failed, Interval
from naiad.loadtest._truth import confidence
from naiad.loadtest._truth.slots import SLOT_S
from naiad.loadtest._wire.opening import open_wire
from naiad.loadtest.latencies import Latencies
from naiad.loadtest.plan import LoadTest, Traffic, Users

__all__ = ["Calibration", "calibrate"]

_FLOOR_S: Final = 0.5
_CEILING_S: Final = 0.5
_LEFT_OUT_S: Final = SLOT_S  # connecting, and first requests
_IN_FLIGHT: Final = 64
_SEQUENCE_ID: Final = (1 << 62) + 1  # of no sequence of the engines
_POLL_S: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What one engine process can do with such requests, and what a request takes without a server's work."""

    floor_p50_us: float
    """At one request in flight."""
    floor_p99_us: float
    ceiling_per_s: float
    """Requests per second of one engine process, at 64 in flight."""
    cpu_us_per_request: float
    """CPU time of the engine process."""
    request_bytes: int
    answer_bytes: int

    @property
    def text(self) -> str:
        """The whole in a sentence."""
        return (
            f"against a server that does nothing: {self.floor_p50_us:,.0f} µs at one request in flight, at most "
            f"{self.ceiling_per_s:,.0f} requests/s from an engine, {self.cpu_us_per_request:.0f} µs CPU time each"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        return {**asdict(self), "text": self.text}


def calibrate(test: LoadTest, target: Target, group: EngineGroup | None = None) -> Calibration | None:
    """Measure, for about a second, with requests of the first model in the mix; ``None`` where that is not possible.

    It is not with streams, nor where the server answers the first request with an error. ``group`` is used where
    given, and ready for :meth:`~EngineGroup.run_next` afterwards.

    Raises:
        naiad.client.ClientError: the server does not answer.
        EngineFailed: the engine could not start.
    """
    from naiad.loadtest._wire.null import NullServer

    traffic = replace(test.mix[0], check=False)
    if traffic.stream:
        return None
    with make_payloads(traffic, target.signature, seed=test.seed, connection=test.connection) as payloads:
        request_bytes, answer = payloads.request_bytes, _ask(test, traffic, payloads)
    if answer is None:
        return None
    plan = replace(test, traffic=traffic, load=Users(users=1), engines=1, slos=(), precision=None)
    with ExitStack() as stack:
        null = stack.enter_context(NullServer(answer))
        if group is None:
            engines = stack.enter_context(EngineGroup(plan, num=1, send_to=null.url))
        else:
            engines = group
            engines.run_next(plan, send_to=null.url)
        confidence.prepare()  # while the engines get ready
        alone = _probe(engines, _FLOOR_S)
        engines.run_next(replace(plan, load=Users(users=_IN_FLIGHT)), send_to=null.url)
        full = _probe(engines, _CEILING_S)
    return _sum_up(alone, full, request_bytes, len(answer))


def _ask(test: LoadTest, traffic: Traffic, payloads: Payloads) -> bytes | None:
    """Return the server's answer to the first request, serialised; ``None`` where it is an error."""
    wire = open_wire(test.connection, transport=test.transport)
    try:
        suffix = payloads.output_suffix(0)
        if traffic.sequence is not None:
            suffix += sequence_suffix(_SEQUENCE_ID, True, True)
        wire.send(wire.prepare(payloads.requests[0]), 0, traffic.timeout_s, suffix)
        deadline = time.monotonic() + traffic.timeout_s + _POLL_S
        while time.monotonic() < deadline:
            for event in wire.poll(_POLL_S):
                if event.ended:
                    return bytes(event.message) if event.status == 0 and event.message is not None else None
        return None
    finally:
        wire.close()


def _probe(engines: EngineGroup, length_s: float) -> list[Interval]:
    """Run what the engines were given; return the intervals after the first moments."""
    found: list[Interval] = []
    stopped = False
    engines.start()
    while True:
        message = engines.next_message(_POLL_S)
        if isinstance(message, Drained | Failed):
            return found
        if isinstance(message, Interval):
            if _LEFT_OUT_S - SLOT_S / 2 < message.start_s < _LEFT_OUT_S + length_s - SLOT_S / 2:
                found.append(message)
            if message.end_s >= _LEFT_OUT_S + length_s and not stopped:
                engines.stop()
                stopped = True


def _sum_up(
    alone: Sequence[Interval], full: Sequence[Interval], request_bytes: int, answer_bytes: int
) -> Calibration | None:
    floor = Latencies.merged(interval.service for interval in alone)
    num = sum(interval.service.count for interval in full)
    p50_us, p99_us = floor.percentile_us(50), floor.percentile_us(99)
    if p50_us is None or p99_us is None or not num:
        return None
    return Calibration(
        floor_p50_us=p50_us,
        floor_p99_us=p99_us,
        ceiling_per_s=num / sum(interval.end_s - interval.start_s for interval in full),
        cpu_us_per_request=sum(interval.cpu_s for interval in full) / num * 1e6,
        request_bytes=request_bytes,
        answer_bytes=answer_bytes,
    )
