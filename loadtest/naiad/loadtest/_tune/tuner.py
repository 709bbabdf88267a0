"""The tuner: try, prune, choose, confirm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from naiad.loadtest._tune.bench import Bench, ConfigurationRefused
from naiad.loadtest._tune.measuring import Measuring
from naiad.loadtest._tune.result import Tuning
from naiad.loadtest._tune.space import Space
from naiad.loadtest._tune.study import Asked, Study, config_digest, same
from naiad.loadtest._tune.trial import Operating, Trial
from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.plan import LoadTest, Rate, Users, check_seconds

if TYPE_CHECKING:
    from naiad.loadtest._gate.result import GateResult

__all__ = ["Confirm", "TuneProgress", "tune"]

_RUNGS: Final = 3
_MOST_REPEATS: Final = 60
"""Proposals in a row that were tried before: the space is small, or the search has made up its mind."""
_AS_GOOD: Final = 0.97
_WORTH_CONFIRMING: Final = 1.03
"""Less is within what an A/B run of reasonable length can tell."""
_CONFIRMATIONS: Final = 2
Against = Literal["current", "triton"]
Confirm = Callable[[Trial, Trial], "GateResult"]
"""Compares two trials in an A/B run: the one that is, and the candidate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneProgress:
    """How far a search is."""

    phase: Literal["searching", "confirming"]
    trials: int
    """That were tried."""
    elapsed_s: float
    text: str
    """The candidate that is being measured."""
    point: Operating | None = None
    """Its latest run."""
    best: Trial | None = None
    """The best so far."""


def tune(
    test: LoadTest,
    bench: Bench,
    space: Space,
    *,
    confirm: Confirm,
    num_trials: int | None = None,
    budget_s: float = 300.0,
    window_s: float = 1.0,
    seed: int = 0,
    study: Path | None = None,
    against: Against = "current",
    clock: Callable[[], float] = time.monotonic,
    on_progress: Callable[[TuneProgress], None] | None = None,
) -> Tuning:
    """Search for the configuration with the most throughput within ``test.slos``, and confirm it.

    Args:
        test: What is sent to the model. A load of :class:`Users` given by the caller is where the search for each
            candidate's best number of users begins; with a :class:`Rate` all are measured at that rate.
        bench: Runs the model with candidate configurations.
        space: What may be changed.
        confirm: Compares the best candidate with what there is, in an A/B run.
        num_trials: How many candidates to try in all, with those of an earlier session; ``None`` for as many as the
            budget allows.
        budget_s: How long to search; the confirmation comes after it.
        window_s: Of a candidate's first runs; later rungs double it.
        seed: Of the proposals and the data.
        study: A file that keeps what was measured; one that exists is gone on with. ``None`` keeps it in memory.
        against: What the winner has to beat: the current configuration, or Triton's own defaults.
        clock: The time in seconds.
        on_progress: Called after each run.

    Raises:
        InvalidPlan: there is no objective, or ``study`` is of another model, configuration, load or space.
        ConfigurationRefused: the server does not even load the model as it is.
    """
    _check(test, num_trials, budget_s, window_s)
    return _Tuner(test, bench, space, confirm, window_s, seed, study, against, clock, on_progress).run(
        num_trials, budget_s
    )


class _Tuner:
    """One search."""

    def __init__(
        self,
        test: LoadTest,
        bench: Bench,
        space: Space,
        confirm: Confirm,
        window_s: float,
        seed: int,
        path: Path | None,
        against: Against,
        clock: Callable[[], float],
        on_progress: Callable[[TuneProgress], None] | None,
    ) -> None:
        self._test, self._bench, self._space, self._confirm = test, bench, space, confirm
        self._against, self._clock, self._on_progress = against, clock, on_progress
        searched = isinstance(test.load, Users)
        self._study = Study(space, subject=_subject(test, space, window_s), path=path, seed=seed)
        self._measuring = Measuring(bench, test, window_s=window_s, searched=searched)
        self._began = clock()
        self._text = ""

    def run(self, num_trials: int | None, budget_s: float) -> Tuning:
        """Search, then confirm; Ctrl-C ends it with what there is."""
        confirmations: list[tuple[Trial, GateResult]] = []
        interrupted = False
        try:
            self._search(num_trials, budget_s)
            confirmations = self._confirmed()
        except KeyboardInterrupt:
            interrupted = True
        return Tuning.of(
            self._test,
            self._study.trials,
            confirmations,
            against=self._against,
            elapsed_s=self._clock() - self._began,
            interrupted=interrupted,
        )

    def _search(self, num_trials: int | None, budget_s: float) -> None:
        repeats = 0
        while repeats < _MOST_REPEATS and (num_trials is None or len(self._study.trials) < num_trials):
            if self._clock() - self._began >= budget_s and self._study.trials:
                return
            asked = self._study.ask()
            earlier = same(self._study.trials, asked.choice)
            if earlier is not None:
                self._study.repeat(asked, earlier)
                repeats += 1
                continue
            repeats = 0
            self._study.tell(asked, self._try(asked))

    def _try(self, asked: Asked) -> Trial:
        choice, settings = asked.choice, self._space.settings(asked.choice)
        self._text = self._space.describe(choice)
        trial = Trial(
            number=asked.number,
            choice=choice,
            settings=settings,
            text=self._text,
            state="measured",
            label=self._label(choice),
        )
        self._tell(None)
        try:
            self._bench.apply(settings)
        except ConfigurationRefused as exc:
            if trial.label == "current":
                raise
            return replace(trial, state="failed", error=str(exc))
        return self._measured(asked, trial)

    def _measured(self, asked: Asked, trial: Trial) -> Trial:
        best = self._best()
        if best is not None and best.best is not None and best.best.users is not None:
            self._measuring.users = best.best.users
        points = self._measuring.first(on_point=self._tell)
        found = list(points)
        for rung in range(1, _RUNGS + 1):
            last = replace(trial, points=tuple(found))
            # What the others are held against is measured to the end.
            if self._study.should_prune(asked, last.score, rung - 1) and not trial.label:
                return replace(last, state="pruned")
            if rung < _RUNGS:
                points = self._measuring.again(points, rung, on_point=self._tell)
                found += points
        return replace(trial, points=tuple(found))

    def _confirmed(self) -> list[tuple[Trial, GateResult]]:
        """Compare the best candidates with what there is, until one is confirmed."""
        reference = self._reference()
        found: list[tuple[Trial, GateResult]] = []
        for candidate in _ranked(self._study.trials)[:_CONFIRMATIONS]:
            if reference is None or candidate.number == reference.number:
                break
            if candidate.score < _WORTH_CONFIRMING * reference.score:
                break
            self._text = candidate.text
            self._tell(None, "confirming")
            found.append((candidate, self._confirm(reference, candidate)))
            if Tuning.confirms(found[-1][1]):
                break
        return found

    def _reference(self) -> Trial | None:
        label = "current" if self._against == "current" else "Triton's default"
        return next((trial for trial in self._study.trials if label in trial.label), None)

    def _label(self, choice: object) -> str:
        labels = [
            label
            for label, known in (("current", self._space.current), ("Triton's default", self._space.tritons))
            if known == choice
        ]
        return " and ".join(labels)

    def _best(self) -> Trial | None:
        return max((trial for trial in self._study.trials if trial.best), key=lambda trial: trial.score, default=None)

    def _tell(self, point: Operating | None, phase: Literal["searching", "confirming"] = "searching") -> None:
        if self._on_progress is None:
            return
        trials = self._study.trials
        self._on_progress(
            TuneProgress(
                phase=phase,
                trials=len(trials),
                elapsed_s=self._clock() - self._began,
                text=self._text,
                point=point,
                best=self._best(),
            )
        )


def _ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that kept the objectives, best first; of those nearly as good as the best, the plainest first.

    Which of equals seems best is luck, and more instances or longer delays are not to be had for luck.
    """
    good = [trial for trial in trials if trial.best and trial.state == "measured"]
    best = max((trial.score for trial in good), default=0.0)

    def order(trial: Trial) -> tuple[object, ...]:
        if trial.score < _AS_GOOD * best:
            return (1, -trial.score)
        plain = [trial.choice.get(name, 0) for name in ("instances", "threads", "delay_us", "preferred")]
        return (0, *plain)

    return sorted(good, key=order)


def _subject(test: LoadTest, space: Space, window_s: float) -> dict[str, object]:
    """Return what trials must have in common to be compared."""
    traffic = test.mix[0]
    load = f"{test.load.per_s:g}/s" if isinstance(test.load, Rate) else "closed loop"
    return {
        "model": traffic.model,
        "configuration": config_digest(space.config),
        "objectives": sorted(slo.text for slo in test.slos),
        "load": f"{load}, batch {traffic.batch}",
        "windows": window_s,
    }


def _check(test: LoadTest, num_trials: int | None, budget_s: float, window_s: float) -> None:
    if len(test.mix) != 1:
        raise InvalidPlan(f"the tuner works on one model at a time, found a mix of {len(test.mix)}")
    if not test.slos:
        raise InvalidPlan('expected an objective to keep, like "p99<20ms": without one, more users are always better')
    if num_trials is not None and num_trials < 1:
        raise InvalidPlan(f"trials is at least 1, found {num_trials}")
    check_seconds("budget_s", budget_s)
    if not 0.25 <= window_s <= 600:
        raise InvalidPlan(f"a window is 0.25 to 600 seconds long, found {window_s:g}")
