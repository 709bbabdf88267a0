"""The machine a result was measured on: enough to refuse a comparison with another one, without naming it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["Machine"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A fingerprint: no host name, no address."""

    cores: int
    """CPU cores that this process may use."""
    cpu: str
    system: str
    """Operating system and architecture, such as ``Linux x86_64``."""

    @classmethod
    def this(cls) -> Self:
        """Return the fingerprint of the machine this runs on."""
        return cls(
            cores=len(os.sched_getaffinity(0)), cpu=_cpu_model(), system=f"{platform.system()} {platform.machine()}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` gave."""
        return cls(cores=int(fields["cores"]), cpu=str(fields["cpu"]), system=str(fields["system"]))

    def __str__(self) -> str:
        return f"{self.cores} × {self.cpu}, {self.system}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or "unknown CPU"
