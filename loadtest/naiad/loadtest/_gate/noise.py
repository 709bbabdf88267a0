"""What else the machine did: a canary, its waits, stolen time, and the rule that discards pairs, fixed beforehand.

The canary is a small piece of work that never changes, timed while no load runs: before and after each run. The rule
looks at nothing that the subjects themselves cause (waits for a core and CPU use under load would be such), since a
rule that discards the runs of a slower candidate more often than those of its baseline would bend the verdict. It
discards a pair or keeps it, never one of its runs.

The canary's waits are those that the kernel counts for this thread (/proc/PID/schedstat). The pressure stall
information would tell of all processes, but is brought up to date every two seconds only: what is read right after a
run is of the run.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from naiad.loadtest.errors import InvalidPlan

__all__ = ["Calm", "NoiseRule", "look_at_machine", "reference"]

_WORK: Final = bytes(64 * 1024)
_ROUNDS: Final = 48
_TIMES: Final = 3  # the median of them: what a run leaves to be tidied up may hit one
_REFERENCE_LOOKS: Final = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseRule:
    """Which pairs are discarded."""

    max_canary_ratio: float = 1.5
    """The slowest canary of a pair, against the median before the first pair."""
    max_steal: float = 0.05
    """Share of the machine's CPU time that its host gave to others, over the pair."""
    max_wait: float = 0.30
    """Share of the canaries' time in which they were ready to run, and had no core."""

    def __post_init__(self) -> None:
        if self.max_canary_ratio <= 1:
            raise InvalidPlan(f"max_canary_ratio is above 1, found {self.max_canary_ratio}")

    def reason(self, looks: Sequence[Calm], reference_s: float) -> str:
        """Return why the pair around which these looks were taken is discarded; empty to keep it."""
        slowest = max(look.canary_s for look in looks)
        if slowest > self.max_canary_ratio * reference_s:
            return f"the canary took {slowest / reference_s:.1f} times as long as before the first pair"
        steal = steal_share(looks[0], looks[-1])
        if steal > self.max_steal:
            return f"{steal:.0%} of the machine's CPU time was stolen"
        wait = median(look.wait for look in looks)
        if wait > self.max_wait:
            return f"the canary waited for a core {wait:.0%} of its time, although no load ran"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Return the limits as JSON has them."""
        return {
            "max_canary_ratio": self.max_canary_ratio,
            "max_steal": self.max_steal,
            "max_wait": self.max_wait,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Calm:
    """One look at the machine while no load runs."""

    canary_s: float
    """Wall-clock time of the canary, which takes about 2 ms of a core: the median of three."""
    wait: float
    """Share of the canaries' time in which they waited for a core; 0 where the system does not tell."""
    steal_ticks: int
    total_ticks: int


def look_at_machine() -> Calm:
    """Run the canary a few times, and read the machine's counters."""
    waited, began = _waited_s(), time.perf_counter()
    canary_s = median(_canary_s() for _ in range(_TIMES))
    elapsed_s = time.perf_counter() - began
    steal, total = _ticks()
    wait = min(1.0, max(0.0, (_waited_s() - waited) / elapsed_s))
    return Calm(canary_s=canary_s, wait=wait, steal_ticks=steal, total_ticks=total)


def _canary_s() -> float:
    began = time.perf_counter()
    digest = hashlib.sha256()
    for _ in range(_ROUNDS):
        digest.update(_WORK)
    return time.perf_counter() - began


def reference() -> float:
    """Return how long the canary takes on this machine now, in seconds: the median of several."""
    return median(look_at_machine().canary_s for _ in range(_REFERENCE_LOOKS))


def steal_share(before: Calm, after: Calm) -> float:
    """Return the share of the CPU time between two looks that the host gave to others."""
    total = after.total_ticks - before.total_ticks
    return (after.steal_ticks - before.steal_ticks) / total if total > 0 else 0.0


def _ticks() -> tuple[int, int]:
    """Return the stolen and all ticks of the machine's cores since it started; zeros where there is no ``/proc``."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return 0, 0
    return (fields[7] if len(fields) > 7 else 0), sum(fields)


def _waited_s() -> float:
    """Return for how long this thread has been ready to run without a core; 0 where the system does not tell."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text("ascii").split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0
