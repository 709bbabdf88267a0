"""One kind of traffic in an engine: its requests, and what is recorded of them until the interval ends."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from naiad.loadtest._data.codec import error_of

if TYPE_CHECKING:
    from naiad.loadtest._data.payloads import Payloads
    from naiad.loadtest._wire.seam import Wire
    from naiad.loadtest.plan import Traffic

__all__ = ["NOT_SENT", "UNFINISHED", "WRONG_ANSWER", "Lane"]

WRONG_ANSWER: Final = "WrongAnswer"
NOT_SENT: Final = "NotSent"
UNFINISHED: Final = "Unfinished"
_MOST_TEXTS: Final = 256
_GRPC_STATUS: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)  # by code; importing grpc for its enumeration is not worth the time
DEADLINE_EXCEEDED: Final = 4
_GIVEN_UP: Final = frozenset({1, DEADLINE_EXCEEDED, 14})  # by us or by the line: the server may still be at it


class Lane:
    """Requests of one traffic, prepared, and arrays of what they took. The loop appends to them directly."""

    def __init__(
        self,
        index: int,
        traffic: Traffic,
        payloads: Payloads,
        wire: Wire,
        *,
        url: str,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.index, self.traffic, self.payloads = index, traffic, payloads
        self.timeout_s = traffic.timeout_s
        self.check = payloads.check
        self.suffix = payloads.output_suffix
        self.plain = traffic.sequence is None and not traffic.stream
        """Whether a request is all there is to an arrival."""
        self.prepared: list[Any] = [wire.prepare(request) for request in payloads.requests]
        self.turn = len(self.prepared) * shard[0] // shard[1]  # engines begin at different samples
        self.in_flight = self.num_failed = 0
        self._url = url
        self._translated: dict[tuple[int, str], tuple[str, str]] = {}
        self._num_sequences = max(1, len(payloads.steps)) * shard[0] // shard[1] - 1
        self._lengths = np.random.default_rng((seed, shard[0], index))
        self._renew()

    def _renew(self) -> None:
        self.latencies, self.service, self.lag = array("q"), array("q"), array("q")
        self.first_response, self.between_responses = array("q"), array("q")
        self.sent = self.responses = 0
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def next_sample(self) -> int:
        """Return the index of the request whose turn it is."""
        sample = self.turn
        self.turn = sample + 1 if sample + 1 < len(self.prepared) else 0
        return sample

    def draw_sequence(self) -> list[int]:
        """Return the requests of the next sequence: a recorded one, or as many as there may be."""
        if steps := self.payloads.steps:
            self._num_sequences += 1
            return list(steps[self._num_sequences % len(steps)])
        assert self.traffic.sequence is not None
        low, high = self.traffic.sequence.length
        length = low if low == high else int(self._lengths.integers(low, high, endpoint=True))
        return [self.next_sample() for _ in range(length)]

    def failed(self, status: int, details: str, slot: int) -> None:
        """Count the request of ``slot``, which ended with a gRPC status."""
        if status in _GIVEN_UP:
            self.payloads.lost(slot)
        key = (status, details)
        found = self._translated.get(key)
        if found is None:
            name = _GRPC_STATUS[status] if 0 < status < len(_GRPC_STATUS) else "UNKNOWN"
            error = error_of(name, details, url=self._url, model=self.traffic.model, timeout_s=self.timeout_s)
            found = type(error).__name__, str(error)
            if len(self._translated) < _MOST_TEXTS:
                self._translated[key] = found
        self.count_error(*found)

    def count_error(self, name: str, text: str, number: int = 1) -> None:
        """Count requests that failed, by the class of their error."""
        self.errors[name] += number
        self.num_failed += number
        self.examples.setdefault(name, text)

    def wrong(self) -> None:
        """Count an answer that is not the expected one."""
        self.count_error(WRONG_ANSWER, f"an answer of model '{self.traffic.model}' differs from the expected output")

    def take(self) -> dict[str, Any]:
        """Return what was recorded since the last time, and begin anew."""
        taken = {
            "traffic": self.index,
            "sent": self.sent,
            "in_flight": self.in_flight,
            "responses": self.responses,
            "latencies": self.latencies,
            "service": self.service,
            "lag": self.lag,
            "first_response": self.first_response,
            "between_responses": self.between_responses,
            "errors": dict(self.errors),
            "examples": self.examples,
        }
        self._renew()
        return taken
