"""The time axis of a run: quarter seconds, each with what all engines did in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from naiad.loadtest._engine.messages import INTERVAL_NS, Interval
from naiad.loadtest.latencies import Latencies

__all__ = ["SLOT_S", "Slot", "merge", "slots_of"]

SLOT_S: Final = INTERVAL_NS / 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """What ended between two moments, in seconds since the run's start, whoever sent it."""

    start_s: float
    end_s: float
    users: int = 0
    sent: int = 0
    in_flight: int = 0
    """At the end."""
    responses: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    service: Latencies = field(default_factory=Latencies)
    lag: Latencies = field(default_factory=Latencies)
    first_response: Latencies = field(default_factory=Latencies)
    between_responses: Latencies = field(default_factory=Latencies)
    errors: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)

    @property
    def completed(self) -> int:
        """Requests that succeeded."""
        return self.latencies.count

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return sum(self.errors.values())


def slots_of(intervals: Iterable[Interval]) -> list[Slot]:
    """Return the slots from the run's start to its end, without a gap: a silent second is slots with nothing in them.

    An interval that an engine closed late counts where its middle lies.
    """
    by_index: dict[int, list[Interval]] = {}
    for interval in intervals:
        by_index.setdefault(int((interval.start_s + interval.end_s) / 2 / SLOT_S), []).append(interval)
    last = max(by_index, default=-1)
    return [_slot(index, by_index.get(index, ())) for index in range(last + 1)]


def _slot(index: int, intervals: Sequence[Interval]) -> Slot:
    users = {interval.engine: interval.users for interval in intervals}
    in_flight = {(interval.engine, interval.traffic): interval.in_flight for interval in intervals}
    return Slot(
        start_s=index * SLOT_S,
        end_s=(index + 1) * SLOT_S,
        users=sum(users.values()),
        in_flight=sum(in_flight.values()),
        **_sums(intervals),  # type: ignore[arg-type]  # by name
    )


def merge(slots: Sequence[Slot]) -> Slot:
    """Return several neighbouring slots as one."""
    return Slot(
        start_s=slots[0].start_s,
        end_s=slots[-1].end_s,
        users=max(slot.users for slot in slots),
        in_flight=slots[-1].in_flight,
        **_sums(slots),  # type: ignore[arg-type]  # by name
    )


_DISTRIBUTIONS: Final = ("latencies", "service", "lag", "first_response", "between_responses")


def _sums(parts: Sequence[Interval] | Sequence[Slot]) -> dict[str, object]:
    errors = sum((Counter(part.errors) for part in parts), Counter[str]())
    return {
        "sent": sum(part.sent for part in parts),
        "responses": sum(part.responses for part in parts),
        "errors": dict(errors.most_common()),
        "examples": {name: text for part in parts for name, text in part.examples.items()},
        **{name: Latencies.merged(getattr(part, name) for part in parts) for name in _DISTRIBUTIONS},
    }
