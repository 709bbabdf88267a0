"""What another machine's clock shows when this one's shows something: each machine counts from its own start."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["Offset", "boot_id"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what all processes under one kernel share; empty where it is not known."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Offset:
    """How far another clock is ahead of ours, and how wrong that may be at most."""

    ahead_ns: int
    error_ns: int

    @classmethod
    def of(cls, asked: Iterable[tuple[int, int, int]], *, same_clock: bool) -> Self:
        """Judge from questions: (when it left here, what the other clock showed, when the answer was here).

        The answer was given somewhere between the two, so that the middle is wrong by half the round trip at most
        (Cristian, "Probabilistic clock synchronization", 1989); the shortest trip is the best. Processes under one
        kernel share its clock.
        """
        if same_clock:
            return cls(0, 0)
        left, shown, back = min(asked, key=lambda times: times[2] - times[0])
        return cls(shown - (left + back) // 2, (back - left + 1) // 2)
