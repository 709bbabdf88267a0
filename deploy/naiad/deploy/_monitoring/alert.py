"""What an alert is."""

from dataclasses import dataclass, field
from typing import Any, Literal

from naiad.deploy._monitoring.targets import Targets

Severity = Literal["critical", "warning"]
"""critical: callers feel it, or soon will; somebody is woken. warning: somebody looks at it in working hours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """A condition that somebody should know of."""

    name: str
    expression: str
    hold_s: float = 0.0
    """Seconds that the condition must hold."""
    severity: Severity
    summary: str
    """One line, with what it is about."""
    description: str
    """What is the case, in numbers, and what it means."""
    labels: dict[str, str] = field(default_factory=dict)
    """Further labels of its own."""

    def rule(self, targets: Targets) -> dict[str, Any]:
        """The entry of `rules/alerts.yml`."""
        hold = {"for": targets.pace.hold(self.hold_s)} if self.hold_s else {}
        return {
            "alert": self.name,
            "expr": self.expression,
            **hold,
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook": f"{targets.runbooks}#{self.name.lower()}",
            },
        }
