"""The gate against itself: how often it errs when both sides are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from naiad.loadtest._gate.compare import OnProgress, compare
from naiad.loadtest._gate.options import GateOptions
from naiad.loadtest._gate.result import GateResult
from naiad.loadtest.errors import InvalidPlan

if TYPE_CHECKING:
    from naiad.loadtest._gate.subjects import Subject
    from naiad.loadtest._gate.wheels import WheelSubject

__all__ = ["FalseAlarms", "measure_false_alarms"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FalseAlarms:
    """What comparisons of one subject with itself came to."""

    verdicts: tuple[str, ...]
    alpha: float
    """What the gate promises."""

    @property
    def num_alarms(self) -> int:
        """How many called a regression, where there was none."""
        return self.verdicts.count("regression")

    @property
    def num_valid(self) -> int:
        """How many had a verdict at all."""
        return len(self.verdicts) - self.verdicts.count("invalid")

    @property
    def rate(self) -> float | None:
        """Alarms among the valid comparisons; ``None`` without any."""
        return self.num_alarms / self.num_valid if self.num_valid else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The exact 95 % interval of the rate (Clopper and Pearson 1934); ``None`` without a valid comparison."""
        if not self.num_valid:
            return None
        from scipy.stats import binomtest

        found = binomtest(self.num_alarms, self.num_valid).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)

    @property
    def ok(self) -> bool:
        """Whether the rate can be what the gate promises: the interval is not wholly above it."""
        return self.interval is not None and self.interval[0] <= self.alpha

    @property
    def text(self) -> str:
        """One sentence for people."""
        if self.rate is None or self.interval is None:
            return f"none of {len(self.verdicts)} comparisons was valid"
        low, high = self.interval
        others = Counter(self.verdicts)
        return (
            f"{self.num_alarms} false alarms in {self.num_valid} comparisons: {self.rate:.1%} "
            f"(95 % interval {low:.1%} to {high:.1%}), promised at most {self.alpha:.1%}; "
            f"{others['no regression']} passed, {others['inconclusive']} inconclusive, {others['invalid']} invalid"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {
            "kind": "false alarms",
            "comparisons": len(self.verdicts),
            "verdicts": dict(Counter(self.verdicts)),
            "false_alarms": self.num_alarms,
            "rate": self.rate,
            "interval": None if self.interval is None else list(self.interval),
            "alpha": self.alpha,
            "ok": self.ok,
            "text": self.text,
        }


def measure_false_alarms(
    subject: Subject | WheelSubject,
    options: GateOptions | None = None,
    *,
    num: int = 20,
    on_result: Callable[[GateResult], None] | None = None,
    on_progress: OnProgress | None = None,
) -> FalseAlarms:
    """Compare a subject with itself ``num`` times, each time in another random order.

    Raises:
        InvalidPlan: ``num`` is not positive.
        GateFailed: the subject answered nothing.
    """
    if num < 1:
        raise InvalidPlan(f"expected at least 1 comparison, found {num}")
    chosen = options or GateOptions()
    verdicts = []
    for number in range(num):
        seeded = chosen if chosen.seed is None else replace(chosen, seed=chosen.seed + number)
        result = compare(subject, subject, seeded, on_progress=on_progress)
        if on_result is not None:
            on_result(result)
        if result.interrupted:
            break
        verdicts.append(result.verdict)
    return FalseAlarms(verdicts=tuple(verdicts), alpha=chosen.alpha)
