"""The A/B run of a winner against what there is: interleaved pairs on one server, which loads the one or the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from naiad.loadtest._gate.options import GateOptions
from naiad.loadtest._gate.subjects import Subject
from naiad.loadtest._tune.trial import Trial
from naiad.loadtest.plan import LoadTest, Rate, Users

if TYPE_CHECKING:
    from naiad.loadtest._gate.compare import GateProgress
    from naiad.loadtest._gate.result import GateResult
    from naiad.loadtest._tune.bench import Bench

__all__ = ["ABRun"]

_PAIRS: Final = 8
_MOST_PAIRS: Final = 14
_WINDOW_S: Final = 2.0


class ABRun:
    """Compares two trials, each at the load where it answered the most within the objectives.

    That is what goodput under an objective means: the throughputs that each can be run at. At one load for both, the
    candidate would win by its latency alone, or the objective would be missed by one of them.
    """

    def __init__(
        self,
        bench: Bench,
        test: LoadTest,
        *,
        seed: int | None = None,
        pairs: int = _PAIRS,
        window_s: float = _WINDOW_S,
        on_progress: Callable[[GateProgress], None] | None = None,
    ) -> None:
        self._bench, self._test, self._seed = bench, test, seed
        self._pairs, self._window_s, self._on_progress = pairs, window_s, on_progress

    def __call__(self, reference: Trial, candidate: Trial) -> GateResult:
        """Run it; a candidate that is faster and just misses the objective gets a second run with fewer users."""
        users = candidate.best.users if candidate.best else None
        found = self._compare(reference, candidate, users)
        missed = not all(objective.met for objective in found.objectives)
        if missed and users is not None and users > 1 and not found.interrupted:
            return self._compare(reference, candidate, max(users * 3 // 4, 1))
        return found

    def _compare(self, reference: Trial, candidate: Trial, users: int | None) -> GateResult:
        from naiad.loadtest._gate.compare import compare

        reference_users = reference.best.users if reference.best else _fewest_users(reference)
        options = GateOptions(
            metrics=("p99",) if isinstance(self._test.load, Rate) else ("throughput",),
            watched=("p50", "p99", "queue", "compute"),
            pairs=self._pairs,
            max_pairs=max(_MOST_PAIRS, self._pairs),
            window_s=self._window_s,
            seed=self._seed,
        )
        found = compare(
            self._subject(reference, reference_users),
            self._subject(candidate, users),
            options,
            on_progress=self._on_progress,
        )
        if found.interrupted:
            raise KeyboardInterrupt
        return found

    def _subject(self, trial: Trial, users: int | None) -> Subject:
        load = self._test.load if users is None else Users(users=users)
        where = f"{users} users" if users is not None else "the given rate"
        return Subject(
            name=f"{trial.label or 'candidate'} ({trial.text}) at {where}",
            test=replace(self._test, load=load, precision=None),
            prepare=lambda: self._bench.apply(trial.settings),
        )


def _fewest_users(trial: Trial) -> int | None:
    """Return the load that was nearest to keeping the objectives, of a configuration that kept them at none."""
    users = [point.users for point in trial.points if point.users is not None]
    return min(users, default=None)
