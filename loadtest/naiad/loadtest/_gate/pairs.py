"""Pairs: one run of each side, next to each other, in random order, kept or discarded together."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Final

from naiad.loadtest._gate.noise import Calm, look_at_machine, reference
from naiad.loadtest._gate.options import GateMetric, GateOptions
from naiad.loadtest._gate.subjects import RunValues, Session, Side
from naiad.loadtest.errors import GateFailed, InvalidPlan

__all__ = ["Pair", "Pairs"]

_SHORTEST_S: Final = 0.5
_LONGEST_S: Final = 3.0
_MOST_SILENT: Final = 2  # runs in a row without an answer: what answers none after them is gone
_STEP_S: Final = 0.25  # of a window
_BEYOND: Final = 10.0  # requests beyond a percentile that make it steady enough to be compared


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Both runs, and why they do not count, where they do not."""

    number: int
    """From 1, in the order of time."""
    baseline: RunValues
    candidate: RunValues
    first: Side
    canary_s: float | None = None
    """The slowest canary around the two runs; ``None`` where no rule looks at it."""
    discarded: str = ""
    """The reason; empty for a pair that counts."""
    noise: bool = False
    """Whether the reason is the machine's noise, and not a doubt about one of the runs."""

    def difference(self, rule: GateMetric) -> float | None:
        """Return the logarithm of the ratio, positive where the candidate is worse; ``None`` if it was not measured."""
        baseline, candidate = self.baseline.values.get(rule.name), self.candidate.values.get(rule.name)
        if baseline is None or candidate is None:
            return None
        return rule.difference(baseline, candidate)

    def to_json(self, rules: Sequence[GateMetric]) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {
            "pair": self.number,
            "first": self.first,
            "discarded": self.discarded or None,
            "canary_ms": None if self.canary_s is None else self.canary_s * 1e3,
            "baseline": {rule.name: self.baseline.values.get(rule.name) for rule in rules},
            "candidate": {rule.name: self.candidate.values.get(rule.name) for rule in rules},
        }


class Pairs:
    """Measures pairs. ``kept`` and ``discarded`` are what there is so far."""

    def __init__(self, session: Session, options: GateOptions, seed: int) -> None:
        self._session, self._options = session, options
        self._coin = random.Random(seed)  # noqa: S311  (an order, no secret)
        self._reference_s = 0.0
        self.window_s = options.window_s or _SHORTEST_S
        self._silent: dict[Side, int] = {"baseline": 0, "candidate": 0}
        self.kept: list[Pair] = []
        self.discarded: list[Pair] = []

    def prepare(self) -> None:
        """Warm both sides up, choose the window, and learn how fast the canary is while nothing runs.

        Raises:
            GateFailed: one side answered nothing.
            InvalidPlan: a metric to judge is not measured by such runs.
        """
        settle_s = max(self._options.warmup_s, self._options.settle_s)
        pilots = [
            self._measure(side, window_s=self.window_s, settle_s=settle_s, most_silent=0)
            for side in ("baseline", "candidate")
        ]
        if self._options.window_s is None:
            rate = min(pilot.completed for pilot in pilots) / self.window_s
            self.window_s = fitting_window_s(rate, [rule.name for rule in self._options.rules_judged])
        self._check_metrics(pilots)
        if self._options.noise is not None:
            self._reference_s = reference()

    def _check_metrics(self, pilots: Sequence[RunValues]) -> None:
        for rule in self._options.rules_judged:
            if any(rule.name not in pilot.values for pilot in pilots):
                known = ", ".join(sorted(set(pilots[0].values) & set(pilots[1].values)))
                raise InvalidPlan(f"{rule.name} is not among what these runs measure: judge one of {known}")

    def measure_next(self) -> Pair:
        """Measure one more pair."""
        first: Side = "baseline" if self._coin.random() < 0.5 else "candidate"
        second: Side = "candidate" if first == "baseline" else "baseline"
        looks = self._looks()
        runs: dict[Side, list[RunValues]] = {"baseline": [], "candidate": []}
        for at in range(self._options.runs_per_side):
            for side in (first, second) if at % 2 == 0 else (second, first):  # A B B A: a drift falls on both alike
                runs[side].append(self._measure(side, window_s=self.window_s, settle_s=self._options.settle_s))
                looks += self._looks()
        merged = {side: _merged(side_runs) for side, side_runs in runs.items()}
        noise = "" if self._options.noise is None else self._options.noise.reason(looks, self._reference_s)
        pair = Pair(
            number=len(self.kept) + len(self.discarded) + 1,
            baseline=merged["baseline"],
            candidate=merged["candidate"],
            first=first,
            canary_s=max((look.canary_s for look in looks), default=None),
            discarded=noise or _doubts(merged),
            noise=bool(noise),
        )
        (self.discarded if pair.discarded else self.kept).append(pair)
        return pair

    def _looks(self) -> list[Calm]:
        return [] if self._options.noise is None else [look_at_machine()]

    def _measure(self, side: Side, *, window_s: float, settle_s: float, most_silent: int = _MOST_SILENT) -> RunValues:
        run = self._session.measure(side, window_s=window_s, settle_s=settle_s)
        self._silent[side] = 0 if run.completed else self._silent[side] + 1
        if self._silent[side] > most_silent:
            raise GateFailed(f"the {side} answered no request{': ' + run.failure if run.failure else ''}")
        if not run.completed:
            return replace(run, doubts=("it answered no request within the window", *run.doubts))
        return run

    @property
    def too_many_discarded(self) -> bool:
        """Whether so many pairs do not count that there is no verdict."""
        total = max(len(self.kept) + len(self.discarded), self._options.max_pairs)
        return len(self.discarded) > self._options.max_discarded * total

    def differences(self) -> dict[str, list[float]]:
        """Return the logarithms of the ratios of the pairs that count, by metric, where every pair has one."""
        found: dict[str, list[float]] = {}
        for rule in self._options.rules:
            values = [value for pair in self.kept if (value := pair.difference(rule)) is not None]
            if len(values) == len(self.kept):
                found[rule.name] = values
        return found


def _merged(runs: Sequence[RunValues]) -> RunValues:
    """Return one side's runs of a pair as one: the geometric means of what all of them measured."""
    if len(runs) == 1:
        return runs[0]
    names = set(runs[0].values).intersection(*(run.values for run in runs[1:]))
    objectives = set(runs[0].objectives).intersection(*(run.objectives for run in runs[1:]))
    return RunValues(
        values={name: _geometric_mean([run.values[name] for run in runs]) for name in sorted(names)},
        completed=sum(run.completed for run in runs),
        objectives={text: fmean(run.objectives[text] for run in runs) for text in sorted(objectives)},
        doubts=tuple(doubt for run in runs for doubt in run.doubts),
        failure=next((run.failure for run in runs if run.failure), ""),
    )


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(fmean(math.log(value) for value in values)) if min(values) > 0 else fmean(values)


def _doubts(runs: Mapping[Side, RunValues]) -> str:
    return "; ".join(f"{side}: {run.doubts[0]}" for side, run in sorted(runs.items()) if run.doubts)


def fitting_window_s(rate_per_s: float, metrics: Sequence[str]) -> float:
    """Return the window, 0.5 to 3 s, in which enough requests end for the percentiles that are compared."""
    needed = max((_requests_for(metric) for metric in metrics), default=0.0)
    wanted_s = math.ceil(needed / rate_per_s / _STEP_S) * _STEP_S
    return min(_LONGEST_S, max(_SHORTEST_S, wanted_s))


def _requests_for(metric: str) -> float:
    if not (metric[:1] == "p" and metric[1:2].isdigit()):
        return 100.0
    return _BEYOND * 100 / (100 - float(metric[1:].partition("@")[0]))
