"""What else the machine did meanwhile: time stolen by its host, and who waited for a core, the engines above all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

__all__ = ["MachineLoad", "Reading"]

_STAT: Final = Path("/proc/stat")
_PRESSURE: Final = Path("/proc/pressure/cpu")
_STEAL: Final = 7  # user nice system idle iowait irq softirq steal (proc_stat(5)); what follows is part of these
_IDLE: Final = (3, 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The kernel's counters at one moment; 0 where it does not keep them."""

    at_s: float
    ticks: tuple[int, ...]
    """Of all cores: what /proc/stat says of ``cpu``, up to steal."""
    waited_us: int
    """For how long some task was ready to run, and had no core."""
    delays_ns: Mapping[int, int] = field(default_factory=dict)
    """The same of the main thread of some processes, by their id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineLoad:
    """A stretch of time on the machine of the load generator."""

    steal_share: float
    """Of the cores' time, taken by the host for other machines."""
    pressure_share: float
    """Of the time, during which some task waited for a core (Linux' pressure stall information)."""
    busy_share: float
    """Of the cores' time, used by anything."""
    engine_wait_share: float = 0.0
    """Of the time, during which the engine process that waited most was ready to run, and had no core."""

    @classmethod
    def now(cls, pids: Iterable[int] = ()) -> Reading:
        """Return what the counters say now, for :meth:`since`; ``pids`` are the engine processes."""
        delays = {pid: _delay_ns(pid) for pid in pids}
        return Reading(at_s=time.monotonic(), ticks=_ticks(), waited_us=_waited_us(), delays_ns=delays)

    @classmethod
    def since(cls, before: Reading) -> Self:
        """Return what happened since ``before``."""
        now = cls.now(before.delays_ns)
        spent = [after - first for first, after in zip(before.ticks, now.ticks, strict=False)]
        total = max(1, sum(spent))
        length_s = max(now.at_s - before.at_s, 1e-9)
        return cls(
            steal_share=spent[_STEAL] / total if len(spent) > _STEAL else 0.0,
            pressure_share=min(1.0, (now.waited_us - before.waited_us) * 1e-6 / length_s),
            busy_share=1 - sum(spent[index] for index in _IDLE) / total if len(spent) > _STEAL else 0.0,
            engine_wait_share=_longest_s(before.delays_ns, now.delays_ns) / length_s,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        return asdict(self)


def _ticks() -> tuple[int, ...]:
    try:
        fields = _STAT.read_text("ascii").partition("\n")[0].split()
    except OSError:
        return ()
    return tuple(map(int, fields[1 : _STEAL + 2]))


def _waited_us() -> int:
    try:
        some = _PRESSURE.read_text("ascii").partition("\n")[0]
    except OSError:
        return 0
    return int(some.rpartition("total=")[2])


def _delay_ns(pid: int) -> int:
    """Return for how long a process' main thread was ready and had no core (sched-stats.rst of the Linux kernel)."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[1])
    except (OSError, IndexError):  # it ended, or the kernel does not count
        return 0


def _longest_s(before: Mapping[int, int], after: Mapping[int, int]) -> float:
    return max((max(0, after[pid] - before[pid]) * 1e-9 for pid in before), default=0.0)
