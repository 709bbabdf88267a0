"""What an audit finds."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Severity(StrEnum):
    """How bad a finding is; the first is the worst."""

    CRITICAL = "critical"
    """Foreign code can run here, or everybody is an administrator."""
    HIGH = "high"
    """Data or the service are open to others; nothing but luck protects them."""
    MEDIUM = "medium"
    """One line of defence is missing."""
    LOW = "low"
    """Worth doing when you pass by."""
    UNKNOWN = "unknown"
    """It could not be looked at; says why."""
    OK = "ok"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Severity).index(self)

    def at_least(self, other: "Severity") -> bool:
        """Whether this is as bad as `other`, or worse."""
        return self.rank <= other.rank


GUIDE: Final = "https://github.com/triton-inference-server/server/blob/main/docs/customization_guide/deploy.md"
"""NVIDIA's own considerations on secure deployment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at, and what came of it."""

    id: str
    """Stable, as `model-control-open`; a check has the same one whether it finds something or not."""
    severity: Severity
    where: str
    """What was looked at: an address, a process, a line of a file."""
    found: str
    """What there is, as a sentence."""
    why: str = ""
    """What somebody could do with it; empty where all is well."""
    fix: str = ""
    """What to do about it."""
    source: str = ""
    """Where this is written down."""


def ok(check: str, where: str, found: str) -> Finding:
    """A check that found nothing to complain about."""
    return Finding(id=check, severity=Severity.OK, where=where, found=found)


def unknown(check: str, where: str, why_not: str) -> Finding:
    """A check that could not be made."""
    return Finding(id=check, severity=Severity.UNKNOWN, where=where, found=f"not checked: {why_not}")
