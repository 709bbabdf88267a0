"""What is compared, and the session that measures one run of either side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from naiad.loadtest.plan import LoadTest
from naiad.loadtest.slo import Slo

__all__ = ["RunValues", "Session", "Side", "Subject"]

Side = Literal["baseline", "candidate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A server, or a version of a model on it, with the load it is measured under."""

    name: str
    """What the result calls it."""
    test: LoadTest
    """The load; its window and warm-up are the gate's, its objectives are judged on the candidate."""
    prepare: Callable[[], None] | None = None
    """Called before each of its runs, outside the measured time; such as one that loads a configuration."""

    @property
    def slos(self) -> tuple[Slo, ...]:
        """The objectives of its load test."""
        return self.test.slos


@dataclass(frozen=True, kw_only=True, slots=True)
class RunValues:
    """What one run measured."""

    values: Mapping[str, float]
    """By metric: latencies and times in µs, rates per second, shares as fractions; what was not measured is missing."""
    completed: int
    """Requests that succeeded within the window."""
    objectives: Mapping[str, float] = field(default_factory=dict)
    """By the text of each objective of the load test: what the run measured, in the objective's unit."""
    doubts: tuple[str, ...] = ()
    """Why the run says nothing about its subject; empty for a valid one."""
    failure: str = ""
    """The most frequent error, where requests failed."""


class Session(Protocol):
    """Measures runs, each over connections (or in a process) of its own."""

    def measure(self, side: Side, *, window_s: float, settle_s: float) -> RunValues:
        """Run one side once."""
        ...

    def close(self) -> None:
        """End what was started for the session."""
        ...
