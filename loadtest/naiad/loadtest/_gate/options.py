"""What a gate is told: how much worse is too much, how often it may err, how long it may take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from naiad.loadtest._gate.noise import NoiseRule
from naiad.loadtest._gate.spending import Spending, look_shares, nominal_levels
from naiad.loadtest._gate.statistics import FEWEST_PAIRS
from naiad.loadtest.errors import InvalidPlan

__all__ = ["GateMetric", "GateOptions"]

MOST_PAIRS: Final = 200
HIGHER_IS_BETTER: Final = frozenset({"throughput", "inferences", "goodput"})
SERVER_METRICS: Final = frozenset({"queue", "compute"})


@dataclass(frozen=True, kw_only=True, slots=True)
class GateMetric:
    """One metric to compare, and how much worse it may get."""

    name: str
    margin: float
    """As a fraction: 0.1 allows 10 % more latency, or 10 % more time per request of a throughput."""
    judged: bool = True
    """Whether the verdict depends on it; else it is only shown."""

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is better, as of a throughput."""
        return self.name.partition("@")[0] in HIGHER_IS_BETTER

    def difference(self, baseline: float, candidate: float) -> float:
        """Return the logarithm of the ratio, positive where the candidate is worse."""
        smallest = _SMALLEST_RATE if self.higher_is_better else _SMALLEST_US
        ratio = math.log(max(candidate, smallest) / max(baseline, smallest))
        return -ratio if self.higher_is_better else ratio


_SMALLEST_US: Final = 1.0  # below it, ratios are of rounding errors; of energies it is µJ
_SMALLEST_RATE: Final = 1e-6  # per second


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """How a gate decides. The defaults call a slowdown of 20 % in most cases within a minute."""

    metrics: tuple[str, ...] = ("p50", "p90", "throughput")
    """What the verdict depends on, each optionally with its own margin in per cent: ``p99:25``."""
    watched: tuple[str, ...] = ("p99", "queue", "compute", "energy")
    """What is compared and shown beside them."""
    margin: float = 0.10
    """How much worse is still no regression, as a fraction."""
    alpha: float = 0.05
    """How often the gate may call a regression where there is none, over all metrics and looks; and how often it may
    say "no regression" where a metric is worse by the margin."""
    pairs: int = 8
    """Pairs before the first look."""
    max_pairs: int = 30
    """The budget."""
    pairs_per_look: int = 2
    runs_per_side: int = 1
    """Runs of each side in a pair, alternating as A B B A: more of them make a pair less noisy, and longer."""
    spending: Spending = "pocock"
    window_s: float | None = None
    """Measured in each run; ``None`` chooses 0.5 to 3 s, so that a run has requests enough for its percentiles."""
    settle_s: float = 0.25
    """Sent before each window, but not measured."""
    warmup_s: float = 1.0
    """Sent to each side before the first pair."""
    noise: NoiseRule | None = field(default_factory=NoiseRule)
    """Which pairs are discarded; ``None`` discards none for noise."""
    max_discarded: float = 0.5
    """Share of the pairs, of the budget while fewer were measured: with more discarded, there is no verdict. A few bad
    seconds at the beginning end no gate."""
    refuse_blind: bool = True
    """End early where the noise would hide a change of the margin's size even with all pairs of the budget."""
    seed: int | None = None
    """Of the order within the pairs; ``None`` draws one, which the result names."""

    def __post_init__(self) -> None:
        if not 0 < self.margin < 10:
            raise InvalidPlan(f"margin is a fraction above 0 such as 0.1 for 10 %, found {self.margin}")
        if not 0 < self.alpha <= 0.5:
            raise InvalidPlan(f"alpha is a share above 0 and up to 0.5, such as 0.05, found {self.alpha}")
        if not FEWEST_PAIRS <= self.pairs <= MOST_PAIRS:
            raise InvalidPlan(f"pairs is {FEWEST_PAIRS} (fewer can show nothing) to {MOST_PAIRS}, found {self.pairs}")
        if not self.pairs <= self.max_pairs <= MOST_PAIRS:
            raise InvalidPlan(
                f"max_pairs is at least pairs ({self.pairs}), at most {MOST_PAIRS}: {self.max_pairs} found"
            )
        for name, number in (("pairs_per_look", self.pairs_per_look), ("runs_per_side", self.runs_per_side)):
            if not 1 <= number <= MOST_PAIRS:
                raise InvalidPlan(f"{name} is 1 to {MOST_PAIRS}, found {number}")
        if self.window_s is not None and not 0.25 <= self.window_s <= 600:
            raise InvalidPlan(f"a window is 0.25 to 600 seconds long, found {self.window_s:g}")
        for name, value in (("settle_s", self.settle_s), ("warmup_s", self.warmup_s)):
            if not 0 <= value <= 600:
                raise InvalidPlan(f"{name} is 0 to 600 seconds, found {value:g}")
        if not self.metrics:
            raise InvalidPlan("a gate judges at least one metric, such as p50")
        self._check_reachable()

    def _check_reachable(self) -> None:
        last = nominal_levels(self.shares, self.alpha / len(self.rules_judged), self.spending)[-1]
        if 2.0**-self.max_pairs > last:
            raise InvalidPlan(
                f"{self.max_pairs} pairs show nothing at alpha {self.alpha:g} with {len(self.rules_judged)} metrics: "
                f"give max_pairs of at least {math.ceil(-math.log2(last))}"
            )

    @property
    def rules(self) -> tuple[GateMetric, ...]:
        """Every metric, those judged first."""
        judged = [self._rule(text, judged=True) for text in self.metrics]
        names = {rule.name for rule in judged}
        watched = [self._rule(text, judged=False) for text in self.watched]
        return (*judged, *(rule for rule in watched if rule.name not in names))

    @property
    def rules_judged(self) -> tuple[GateMetric, ...]:
        """The metrics that the verdict depends on."""
        return tuple(rule for rule in self.rules if rule.judged)

    def _rule(self, text: str, *, judged: bool) -> GateMetric:
        name, _, margin = text.strip().partition(":")
        try:
            own = float(margin.removesuffix("%")) / 100 if margin else self.margin
        except ValueError:
            own = 0.0
        if name == "errors":
            raise InvalidPlan("a gate compares times and rates: bound errors by an objective such as errors<0.1%")
        if not name or not 0 < own < 10:
            raise InvalidPlan(f"expected a metric with its margin in per cent, like p99 or p99:25, found {text!r}")
        return GateMetric(name=name, margin=own, judged=judged)

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many pairs the gate looks."""
        return (*range(self.pairs, self.max_pairs, self.pairs_per_look), self.max_pairs)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of the budget that each look has used."""
        return look_shares(self.looks, self.max_pairs)

    def levels(self, look: int) -> tuple[float, ...]:
        """Return the one-sided levels of a look, by among how many metrics the error is shared: 1, 2, …"""
        return tuple(
            nominal_levels(self.shares, self.alpha / sharing, self.spending)[look]
            for sharing in range(1, len(self.rules_judged) + 1)
        )
