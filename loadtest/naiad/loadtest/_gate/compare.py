"""A gate from its first pair to its verdict."""

from __future__ import annotations

import math
import operator
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final, Literal

from naiad.client import ClientError
from naiad.loadtest._gate.decision import Assessment, Verdict, assess
from naiad.loadtest._gate.metric import Objective, collect
from naiad.loadtest._gate.options import GateOptions
from naiad.loadtest._gate.pairs import Pairs
from naiad.loadtest._gate.result import GateResult
from naiad.loadtest._gate.subjects import Session
from naiad.loadtest.errors import EngineFailed, GateFailed
from naiad.loadtest.slo import Slo

if TYPE_CHECKING:
    from naiad.loadtest._engine.group import EngineGroup
    from naiad.loadtest._gate.subjects import Subject
    from naiad.loadtest._gate.wheels import WheelSubject

__all__ = ["GateProgress", "compare", "judge_session"]

_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class GateProgress:
    """How far a gate is."""

    phase: Literal["warming up", "measuring"]
    num_pairs: int
    """That count."""
    num_discarded: int
    max_pairs: int
    pair_s: float | None
    """How long a pair takes; ``None`` before the first."""
    assessment: Assessment | None
    """The last look."""
    discarded: str = ""
    """Why the last pair does not count, where it does not."""


OnProgress = Callable[[GateProgress], None]


def compare(
    baseline: Subject | WheelSubject,
    candidate: Subject | WheelSubject,
    options: GateOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
    group: EngineGroup | None = None,
) -> GateResult:
    """Compare two subjects on this machine, in interleaved pairs, until a verdict or the end of the budget.

    Args:
        baseline: What the candidate is held against: a load test of a server or a version, or a wheel of the client.
        candidate: The same kind of subject.
        options: Metrics, margin, error rate, budget; the defaults where not given.
        on_progress: Called after every pair.
        group: Engine processes to use, where some run already; the caller closes them.

    Raises:
        naiad.client.ClientError: a server does not answer, or does not serve the model.
        GateFailed: one side answered nothing.
        InvalidPlan: a metric to judge is not measured by such runs.
        EngineFailed: the processes that send the requests could not start.
    """
    from naiad.loadtest._gate.sessions import open_session

    session = open_session(baseline, candidate, group)
    try:
        return judge_session(
            session,
            options or GateOptions(),
            names=(baseline.name, candidate.name),
            slos=candidate.slos,
            on_progress=on_progress,
        )
    finally:
        session.close()


def judge_session(
    session: Session,
    options: GateOptions,
    *,
    names: tuple[str, str] = ("baseline", "candidate"),
    slos: Sequence[Slo] = (),
    on_progress: OnProgress | None = None,
) -> GateResult:
    """Do what :func:`compare` does with the runs of any session."""
    seed = secrets.randbits(32) if options.seed is None else options.seed
    course = _Course(Pairs(session, options, seed), options, seed, on_progress)
    verdict, reason = course.run()
    pairs = course.pairs
    return GateResult(
        verdict=verdict,
        reason=reason,
        baseline=names[0],
        candidate=names[1],
        metrics=collect(course.last.judgements, pairs.kept[: course.last.num_pairs]) if course.last else (),
        pairs=tuple(sorted((*pairs.kept, *pairs.discarded), key=lambda pair: pair.number)),
        options=options,
        window_s=pairs.window_s,
        seed=seed,
        elapsed_s=time.monotonic() - course.began,
        objectives=tuple(_objective(slo, pairs) for slo in slos) if pairs.kept else (),
        warnings=course.warnings(),
        interrupted=course.interrupted,
        failed=course.failed,
    )


class _Course:
    """The looks of one gate."""

    def __init__(self, pairs: Pairs, options: GateOptions, seed: int, on_progress: OnProgress | None) -> None:
        self.pairs, self._options, self._seed, self._on_progress = pairs, options, seed, on_progress
        self.last: Assessment | None = None
        self.interrupted = self.failed = False
        self.began = time.monotonic()
        self._first_pair = self.began

    def run(self) -> tuple[Verdict, str]:
        """Measure and look until there is a verdict; Ctrl-C ends the gate with what there is."""
        try:
            self._tell("warming up")
            self.pairs.prepare()
            self._first_pair = time.monotonic()
            return self._measure()
        except KeyboardInterrupt:
            self.interrupted = True
            return "inconclusive", f"interrupted after {len(self.pairs.kept)} of up to {self._options.max_pairs} pairs"
        except (GateFailed, EngineFailed, ClientError) as exc:
            if not self.pairs.kept and not self.pairs.discarded:
                raise
            self.failed = True
            return "invalid", f"ended after {len(self.pairs.kept)} pairs: {exc}"

    def _measure(self) -> tuple[Verdict, str]:
        looks = self._options.looks
        for look, num_pairs in enumerate(looks):
            while len(self.pairs.kept) < num_pairs:
                pair = self.pairs.measure_next()
                self._tell("measuring", pair.discarded)
                if self.pairs.too_many_discarded:
                    return "invalid", self._why_invalid()
            found = self._look(look)
            if found is not None:
                return found
        assert self.last is not None
        return "inconclusive", f"{looks[-1]} pairs were not enough; {_advice(self.last)}"

    def _look(self, look: int) -> tuple[Verdict, str] | None:
        differences = self.pairs.differences()
        missing = [rule.name for rule in self._options.rules_judged if rule.name not in differences]
        if missing:
            raise GateFailed(f"some runs show no {missing[0]}: measure longer windows, or judge another metric")
        quick = assess(differences, self._options, look, seed=self._seed, quick=True)
        ends = quick.verdict != "inconclusive" or look == len(self._options.looks) - 1
        blind = self._options.refuse_blind and look == 0 and bool(quick.blind)
        self.last = assess(differences, self._options, look, seed=self._seed) if ends or blind else quick
        self._tell("measuring")
        if quick.verdict != "inconclusive":
            return quick.verdict, _why(self.last)
        if blind:
            names = ", ".join(item.rule.name for item in quick.blind)
            return "inconclusive", f"the noise hides a change of the margin's size in {names}; {_advice(quick)}"
        return None

    def _why_invalid(self) -> str:
        discarded = self.pairs.discarded
        noisy = sum(pair.noise for pair in discarded)
        return (
            f"{len(discarded)} of {len(discarded) + len(self.pairs.kept)} pairs do not count "
            f"({noisy} for the machine's noise, {len(discarded) - noisy} for doubts about a run), such as: "
            f"{discarded[-1].discarded}"
        )

    def warnings(self) -> tuple[str, ...]:
        """Return sentences about what a reader should know."""
        num_noisy = sum(pair.noise for pair in self.pairs.discarded)
        num_doubtful = len(self.pairs.discarded) - num_noisy
        found = []
        if num_noisy:
            found.append(f"{num_noisy} pairs were discarded for the machine's noise")
        if num_doubtful:
            found.append(f"{num_doubtful} pairs were discarded for doubts about a run")
        return tuple(found)

    def _tell(self, phase: Literal["warming up", "measuring"], discarded: str = "") -> None:
        if self._on_progress is None:
            return
        total = len(self.pairs.kept) + len(self.pairs.discarded)
        self._on_progress(
            GateProgress(
                phase=phase,
                num_pairs=len(self.pairs.kept),
                num_discarded=len(self.pairs.discarded),
                max_pairs=self._options.max_pairs,
                pair_s=(time.monotonic() - self._first_pair) / total if total else None,
                assessment=self.last,
                discarded=discarded,
            )
        )


def _why(assessment: Assessment) -> str:
    if assessment.verdict == "regression":
        worst = [item for item in assessment.judgements if item.rule.judged and item.verdict == "regression"]
        found = ", ".join(f"{item.rule.name} {math.expm1(item.effect):.1%} worse" for item in worst)
        return f"beyond the margin after {assessment.num_pairs} pairs: {found}"
    judged = [item for item in assessment.judgements if item.rule.judged]
    return (
        f"every upper bound is below its margin after {assessment.num_pairs} pairs: "
        f"{', '.join(item.rule.name for item in judged)}"
    )


def _advice(assessment: Assessment) -> str:
    """Return what would settle it: more pairs, or a wider margin, for the metric that is hardest to see."""
    undecided = [item for item in assessment.judgements if item.rule.judged and item.verdict == "inconclusive"]
    hardest = max(undecided, key=lambda item: item.margin_needed)
    return (
        f"{hardest.rule.name} would take about {hardest.pairs_needed:.0f} pairs, or a margin of "
        f"{hardest.margin_needed:.0%} (smallest change that this gate sees: {hardest.smallest_effect:.0%})"
    )


def _objective(slo: Slo, pairs: Pairs) -> Objective:
    values = [pair.candidate.objectives[slo.text] for pair in pairs.kept if slo.text in pair.candidate.objectives]
    if not values:
        return Objective(text=slo.text, metric=slo.metric, measured=None, met=False)
    measured = median(values)
    return Objective(
        text=slo.text, metric=slo.metric, measured=measured, met=_OPERATORS[slo.operator](measured, slo.limit)
    )
