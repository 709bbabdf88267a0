"""What an engine process and the one who started it say to each other: one JSON object on each line.

To the engine: the orders of :mod:`naiad.loadtest._engine.link`. From the engine: the messages below.
"""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from naiad.loadtest.latencies import Latencies

__all__ = [
    "INTERVAL_NS",
    "Drained",
    "Exhausted",
    "Failed",
    "Interval",
    "Lost",
    "Message",
    "Ready",
    "decode_message",
    "encode_message",
    "encode_recorded",
]

INTERVAL_NS: Final = 250_000_000
DISTRIBUTIONS: Final = ("latencies", "service", "lag", "first_response", "between_responses")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The requests are encoded, the first one may leave."""

    num_samples: int
    request_bytes: int
    """Size of the largest request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """What one engine did for one kind of traffic between two moments (seconds since the run's start).

    The moments are multiples of 0.25 s, the same in all engines; only the last interval of a run may end anywhere.
    """

    traffic: int = 0
    """Index in the mix of the load test."""
    engine: int = 0
    start_s: float
    end_s: float
    users: int = 0
    """Users of this engine at the end; they are not of one traffic alone. 0 in an open loop."""
    sent: int = 0
    in_flight: int = 0
    """At the end."""
    responses: int = 0
    """Answers that came; with decoupled models, any number for a request."""
    latencies: Latencies = field(default_factory=Latencies)
    """Of the requests that succeeded, from when they should have left to when their (last) answer was here."""
    service: Latencies = field(default_factory=Latencies)
    """Of the requests that succeeded, from when they left."""
    lag: Latencies = field(default_factory=Latencies)
    """Of all that left, from when they should have."""
    first_response: Latencies = field(default_factory=Latencies)
    """Of streamed requests, from when they should have left to their first answer."""
    between_responses: Latencies = field(default_factory=Latencies)
    """Of streamed requests, from one answer to the next."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """How many requests failed, by the name of the error's class."""
    examples: Mapping[str, str] = field(default_factory=dict)
    """One message for each class in ``errors``."""
    cpu_s: float = 0.0
    """CPU time of the engine process; on the first traffic only."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        fields |= {name: fields[name].encode() for name in DISTRIBUTIONS if fields[name].count}
        return {name: value for name, value in fields.items() if not isinstance(value, Latencies)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` gave."""
        found = {name: Latencies.decode(fields[name]) for name in DISTRIBUTIONS if name in fields}
        return cls(**{**fields, **found})


_FIELDS: Final = tuple(Interval.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """For some time nothing succeeded, and the server does not answer."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Exhausted:
    """The schedule is over: a recorded trace has no more arrivals."""

    at_s: float
    """When the last one was due, in seconds since the run's start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drained:
    """What was in flight when the run was stopped has ended, or was given up; nothing more will be said of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The engine could not start, or ended by itself."""

    message: str


Message = Ready | Interval | Lost | Exhausted | Drained | Failed
_KINDS: Final = {
    "ready": Ready,
    "interval": Interval,
    "lost": Lost,
    "exhausted": Exhausted,
    "drained": Drained,
    "failed": Failed,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def encode_message(message: Message, job: int = 0) -> bytes:
    """Return the line for ``message``; ``job`` counts what one engine process was given to do."""
    fields = message.to_json() if isinstance(message, Interval) else asdict(message)
    return _line({"type": _NAMES[type(message)], "job": job, **fields})


def encode_recorded(fields: Mapping[str, Any], job: int = 0) -> bytes:
    """Return the line for an interval whose distributions are arrays of nanoseconds.

    An engine sends what it recorded as it is: the histograms are made by the one who reads, off the engine's core.
    """
    plain = {
        name: base64.b64encode(value).decode() if isinstance(value, array) else value for name, value in fields.items()
    }
    return _line({"type": "recorded", "job": job, **plain})


def decode_message(line: bytes | str) -> tuple[int, Message]:
    """Read a line that :func:`encode_message` or :func:`encode_recorded` wrote; return the job and the message."""
    fields = json.loads(line)
    kind, job = fields.pop("type"), fields.pop("job")
    if kind == "recorded":
        found = {name: Latencies(_array(fields[name])) for name in DISTRIBUTIONS if name in fields}
        return job, Interval(**{**fields, **found})
    if kind == "interval":
        return job, Interval.from_json(fields)
    message: Message = _KINDS[kind](**fields)
    return job, message


def _array(text: str) -> array[int]:
    found = array("q")
    found.frombytes(base64.b64decode(text))
    return found


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"
