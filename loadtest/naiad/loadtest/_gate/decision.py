"""From the pairs so far to one of three verdicts.

*Regression*: a judged metric's interval excludes 1 on the bad side, and its effect exceeds the margin. *No regression*:
the upper bound of every judged metric is below 1 + margin; that nothing significant was found is not enough.
*Inconclusive*: neither.

Error rates. The lower bounds are tested in Holm's order with each metric's own group-sequential levels (Holm 1979; Ye
et al., Statistics in Medicine 32, 2013), so that all metrics and looks together call a regression where there is none
with chance ``alpha`` at most. "No regression" claims something of every metric at once: each is tested at ``alpha``
without a correction (intersection-union test; Berger, Technometrics 24, 1982), again spent over the looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.special import ndtri

from naiad.loadtest._gate.options import GateMetric, GateOptions
from naiad.loadtest._gate.statistics import Estimate, holm_levels, holm_p_values

__all__ = ["Assessment", "Judgement", "Verdict", "assess"]

Verdict = Literal["regression", "no regression", "inconclusive", "invalid"]
_POWER: Final = float(ndtri(0.8))  # what "can detect" means: in four of five gates
_CAUTION: Final = 0.75  # few pairs misjudge the noise by a quarter: refuse only what is blind with less of it, too


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What the pairs so far say about one metric. Effects are logarithms of ratios, positive where it got worse."""

    rule: GateMetric
    num_pairs: int
    effect: float
    low: float
    """The lower bound, at the level that Holm's order gave this metric at this look."""
    high: float
    p_value: float
    """One-sided, against no change."""
    p_adjusted: float
    """Corrected for several metrics, not for several looks."""
    level: float
    """The one-sided level that ``p_value`` was held against."""
    verdict: Verdict
    standard_error: float
    at_budget: float
    """The standard error that is to be expected once the budget is used."""
    last_level: float
    """The one-sided level of the last look."""

    @property
    def smallest_effect(self) -> float:
        """The change, as a fraction, that the gate calls in four of five cases once the budget is used."""
        found = max(math.log1p(self.rule.margin), self._needed(self.at_budget, 0.0))
        return math.expm1(found + _POWER * self.at_budget) if math.isfinite(self.at_budget) else math.inf

    def _needed(self, standard_error: float, power: float) -> float:
        return (float(ndtri(1 - self.last_level)) + power) * standard_error

    @property
    def is_blind(self) -> bool:
        """Whether even an unchanged candidate could hardly be told from one that is worse by the margin."""
        return self._needed(_CAUTION * self.at_budget, 0.0) > math.log1p(self.rule.margin)

    @property
    def margin_needed(self) -> float:
        """The margin, as a fraction, that the budget can show to be kept in four of five cases."""
        return math.expm1(self._needed(self.at_budget, _POWER)) if math.isfinite(self.at_budget) else math.inf

    @property
    def pairs_needed(self) -> float:
        """The budget with which the margin can be shown to be kept in four of five cases."""
        one_pair = self.standard_error * math.sqrt(self.num_pairs)
        return math.ceil((self._needed(one_pair, _POWER) / math.log1p(self.rule.margin)) ** 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Assessment:
    """One look."""

    verdict: Verdict
    num_pairs: int
    judgements: tuple[Judgement, ...]

    @property
    def blind(self) -> tuple[Judgement, ...]:
        """The judged metrics that the noise hides, unless they already look worse than the margin."""
        return tuple(
            item
            for item in self.judgements
            if item.rule.judged
            and item.verdict == "inconclusive"
            and item.effect <= math.log1p(item.rule.margin)
            and item.is_blind
        )


def assess(
    differences: Mapping[str, Sequence[float]], options: GateOptions, look: int, *, seed: int = 0, quick: bool = False
) -> Assessment:
    """Judge the pairs so far, at look number ``look`` (from 0) of ``options.looks``.

    Args:
        differences: For each metric, the logarithm of the ratio in each pair, positive where the candidate is worse.
        options: The gate's.
        look: Which look this is; the last one where the gate ends before its budget is used.
        seed: Of the bootstrap.
        quick: Leave the bootstrap out where the sign flips alone allow no verdict. The verdict is the same, since the
            bootstrap only widens intervals; those of an inconclusive look may come out narrower.
    """
    estimates = {name: Estimate(np.asarray(values, float), seed) for name, values in differences.items()}
    p_values = {name: estimate.p_value() for name, estimate in estimates.items()}
    judged = {rule.name: p_values[rule.name] for rule in options.rules_judged}
    levels, last = options.levels(look), options.levels(len(options.looks) - 1)
    lower = holm_levels(judged, levels)
    adjusted = holm_p_values(judged)

    def look_at(*, resample: bool) -> tuple[Judgement, ...]:
        return tuple(
            _judge(
                rule,
                estimates[rule.name],
                levels=(lower.get(rule.name, levels[0]), levels[0], last[0]),
                p_adjusted=adjusted.get(rule.name, p_values[rule.name]),
                budget=options.max_pairs,
                resample=resample,
            )
            for rule in options.rules
            if rule.name in estimates
        )

    judgements = look_at(resample=False)
    if not quick or _overall(judgements) != "inconclusive":
        judgements = look_at(resample=True)
    return Assessment(
        verdict=_overall(judgements), num_pairs=max(e.num_pairs for e in estimates.values()), judgements=judgements
    )


def _judge(
    rule: GateMetric,
    estimate: Estimate,
    *,
    levels: tuple[float, float, float],
    p_adjusted: float,
    budget: int,
    resample: bool,
) -> Judgement:
    """Judge one metric; ``levels`` are those of the lower bound, of the upper bound, and of the last look."""
    margin = math.log1p(rule.margin)
    low, high = estimate.flip_bounds(levels[0])[0], estimate.flip_bounds(levels[1])[1]
    if resample:
        low = min(low, estimate.bootstrap_bounds(levels[0])[0])
        high = max(high, estimate.bootstrap_bounds(levels[1])[1])
    error = estimate.standard_error
    verdict: Verdict = "inconclusive"
    if low > 0 and estimate.effect > margin:
        verdict = "regression"
    elif high < margin:
        verdict = "no regression"
    return Judgement(
        rule=rule,
        num_pairs=estimate.num_pairs,
        effect=estimate.effect,
        low=low,
        high=high,
        p_value=estimate.p_value(),
        p_adjusted=p_adjusted,
        level=levels[0],
        verdict=verdict,
        standard_error=error,
        at_budget=error * math.sqrt(estimate.num_pairs / max(budget, estimate.num_pairs)),
        last_level=levels[2],
    )


def _overall(judgements: Sequence[Judgement]) -> Verdict:
    verdicts = {item.verdict for item in judgements if item.rule.judged}
    if "regression" in verdicts:
        return "regression"
    return "no regression" if verdicts == {"no regression"} else "inconclusive"
