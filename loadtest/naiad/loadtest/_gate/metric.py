"""What one metric of a gate showed, and whether an objective was met."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from naiad.loadtest._gate.decision import Judgement, Verdict
from naiad.loadtest._gate.pairs import Pair
from naiad.loadtest._report.units import show

__all__ = ["MetricResult", "Objective", "collect"]

_RATES: Final = frozenset({"throughput", "inferences", "goodput"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """An objective of the load test, held against the median of the candidate's runs."""

    text: str
    metric: str
    measured: float | None
    """In the objective's own unit (µs, 1/s, a fraction); ``None`` where the runs do not show it."""
    met: bool

    @property
    def line(self) -> str:
        """The objective and what was measured, for people."""
        return f"{self.text} ({show(self.metric, self.measured)} in the median run)"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {"slo": self.text, "measured": self.measured, "met": self.met}


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricResult:
    """One metric: both sides' medians, and the ratio of candidate to baseline with its interval."""

    judgement: Judgement
    baselines: tuple[float, ...]
    """One value for each pair that counts."""
    candidates: tuple[float, ...]

    @property
    def name(self) -> str:
        """The metric: ``p50``, ``throughput``, ``queue``, …"""
        return self.judgement.rule.name

    @property
    def unit(self) -> str:
        """The unit of its values."""
        name = self.name.partition("@")[0]
        return "1/s" if name in _RATES else {"errors": "1", "energy": "uJ"}.get(name, "us")

    def written(self, value: float) -> str:
        """Return a value of it with its unit."""
        return show({"1/s": "throughput", "1": "errors", "uJ": "energy"}.get(self.unit, "p50"), value)

    @property
    def ratio(self) -> float:
        """Candidate over baseline: above 1 is worse for times, better for rates."""
        return math.exp(self._signed(self.judgement.effect))

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the ratio, as wide as all looks and metrics together demand."""
        ends = sorted(_exp(self._signed(bound)) for bound in (self.judgement.low, self.judgement.high))
        return ends[0], ends[1]

    def _signed(self, effect: float) -> float:
        return -effect if self.judgement.rule.higher_is_better else effect

    @property
    def worse_by(self) -> float:
        """By which fraction the candidate is worse; negative where it is better."""
        return math.expm1(self.judgement.effect)

    @property
    def improved(self) -> bool:
        """Whether the whole interval lies on the good side of 1."""
        return self.judgement.high < 0

    @property
    def p_value(self) -> float:
        """One-sided, of the sign-flip test against no change."""
        return self.judgement.p_value

    @property
    def p_adjusted(self) -> float:
        """The same, corrected for several metrics."""
        return self.judgement.p_adjusted

    @property
    def margin(self) -> float:
        """How much worse is still no regression, as a fraction."""
        return self.judgement.rule.margin

    @property
    def judged(self) -> bool:
        """Whether the verdict depends on it."""
        return self.judgement.rule.judged

    @property
    def verdict(self) -> Verdict:
        """What this metric alone says."""
        return self.judgement.verdict

    @property
    def smallest_effect(self) -> float:
        """The smallest change, as a fraction, that the gate calls in four of five cases within its budget."""
        return self.judgement.smallest_effect

    @property
    def text(self) -> str:
        """One line for people."""
        low, high = self.interval
        word = "worse" if self.worse_by > 0 else "better"
        change = f"{abs(self.worse_by):.1%} {word}"
        return (
            f"{self.name}: {change}, ratio {self.ratio:.3f} ({low:.3f} to {high:.3f}), margin {self.margin:.0%}: "
            f"{self.verdict if self.judged else 'not judged'}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them; ratios that have no bound are ``null``."""
        return {
            "metric": self.name,
            "unit": self.unit,
            "judged": self.judged,
            "verdict": self.verdict,
            "baseline": median(self.baselines),
            "candidate": median(self.candidates),
            "ratio": self.ratio,
            "interval": [_finite(end) for end in self.interval],
            "worse_by": self.worse_by,
            "improved": self.improved,
            "p": self.p_value,
            "p_adjusted": self.p_adjusted,
            "level": self.judgement.level,
            "margin": self.margin,
            "smallest_effect": _finite(self.smallest_effect),
            "pairs_needed": _finite(self.judgement.pairs_needed),
            "margin_needed": _finite(self.judgement.margin_needed),
            "text": self.text,
            "pairs": [
                {"pair": number, "baseline": baseline, "candidate": candidate, "ratio": _ratio(baseline, candidate)}
                for number, (baseline, candidate) in enumerate(
                    zip(self.baselines, self.candidates, strict=True), start=1
                )
            ],
        }


def collect(judgements: Sequence[Judgement], kept: Sequence[Pair]) -> tuple[MetricResult, ...]:
    """Return the metrics' results of the pairs that count."""
    return tuple(
        MetricResult(
            judgement=item,
            baselines=tuple(pair.baseline.values[item.rule.name] for pair in kept),
            candidates=tuple(pair.candidate.values[item.rule.name] for pair in kept),
        )
        for item in judgements
    )


def _ratio(baseline: float, candidate: float) -> float | None:
    return candidate / baseline if baseline else None


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
