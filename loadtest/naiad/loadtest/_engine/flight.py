"""A place for one request in flight, used again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from naiad.loadtest._engine.lane import Lane
    from naiad.loadtest._engine.streams import Stream

__all__ = ["Flight"]


class Flight:
    """Where a user, or an arrival of an open loop, is on its way. Its number is the token of its requests."""

    __slots__ = (
        "cleaning",
        "due_ns",
        "failed",
        "lane",
        "last_ns",
        "left_ns",
        "number",
        "sample",
        "samples",
        "sequence_id",
        "step",
        "stream",
        "turn",
        "user",
    )

    lane: Lane
    stream: Stream | None

    def __init__(self, number: int, user: int = 0) -> None:
        self.number = number
        self.user = user
        """Its number among the users of all engines."""
        self.turn = 0
        """How many units (requests, or sequences) the user has begun."""
        self.due_ns = self.left_ns = 0
        self.sample = 0
        self.sequence_id = 0
        self.samples: list[int] = []
        """The requests of the sequence; none outside a sequence."""
        self.step = 0
        """Of the sequence: the request in flight, or the next one."""
        self.cleaning = False
        """Whether the request in flight only ends a sequence that went wrong; it is not recorded."""
        self.last_ns = 0
        """When the last response of a stream came; 0 before the first."""
        self.failed = False
        """Whether a response on the stream was an error, or not the expected one; more may follow."""
        self.stream = None
