"""The machine a result was measured on: enough to refuse a comparison with another one, without naming it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

__all__ = ["Machine"]

_CPU: Final = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A fingerprint: no host name, no address."""

    cores: int
    """CPU cores that this process may use."""
    cpu: str
    system: str
    """Operating system and architecture, such as ``Linux x86_64``."""
    kernel: str | None = None
    """Its release; ``None`` in results of earlier versions of this package."""
    governor: str | None = None
    """How the clock is governed, such as ``performance``; ``None`` where the system does not say."""
    turbo: bool | None = None
    """Whether the clock may exceed its nominal frequency; ``None`` where the system does not say."""

    @classmethod
    def this(cls) -> Self:
        """Return the fingerprint of the machine this runs on."""
        return cls(
            cores=len(os.sched_getaffinity(0)),
            cpu=_cpu_model(),
            system=f"{platform.system()} {platform.machine()}",
            kernel=platform.release(),
            governor=_read(_CPU / "cpu0/cpufreq/scaling_governor"),
            turbo=_turbo(),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` gave, now or in an earlier version."""
        return cls(
            cores=int(fields["cores"]),
            cpu=str(fields["cpu"]),
            system=str(fields["system"]),
            kernel=fields.get("kernel"),
            governor=fields.get("governor"),
            turbo=fields.get("turbo"),
        )

    def __str__(self) -> str:
        return f"{self.cores} × {self.cpu}, {self.system}"


def _cpu_model() -> str:
    lines = (_read(Path("/proc/cpuinfo")) or "").splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or "unknown CPU"


def _turbo() -> bool | None:
    no_turbo, boost = _read(_CPU / "intel_pstate/no_turbo"), _read(_CPU / "cpufreq/boost")
    if no_turbo is not None:
        return no_turbo == "0"
    return None if boost is None else boost == "1"


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return None
