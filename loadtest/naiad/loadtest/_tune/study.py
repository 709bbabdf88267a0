"""The search over choices, kept by Optuna in a file so that it survives a kill: what was measured is never lost.

Small budgets: TPE proposes after a few guesses of ours and a few random choices, and successive halving (L. Li et al.,
"A System for Massively Parallel Hyperparameter Tuning", 2020) ends candidates whose short windows were among the worse
half.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from naiad.loadtest._tune.space import Choice, Space
from naiad.loadtest._tune.trial import Trial
from naiad.loadtest.errors import InvalidPlan

__all__ = ["Asked", "Study"]

_NAME: Final = "naiad tune"
_RANDOM_TRIALS: Final = 6
_TRIAL: Final = "trial"
_SUBJECT: Final = "subject"


class Asked:
    """A choice that the search proposes."""

    def __init__(self, trial: Any, choice: dict[str, Any]) -> None:
        self.trial, self.choice = trial, choice

    @property
    def number(self) -> int:
        """Counts from 0."""
        return int(self.trial.number)


class Study:
    """Choices that were asked for, and what became of them."""

    def __init__(self, space: Space, *, subject: Mapping[str, Any], path: Path | None, seed: int) -> None:
        self._space = space
        with _quiet() as optuna, _readable(path):
            storage = f"sqlite:///{path.absolute()}" if path else None
            found = optuna.create_study(storage=storage, study_name=_NAME, direction="maximize", load_if_exists=True)
            self._check_subject(found, {**subject, "space": _digest(space.values)}, path)
            self._end_killed(found, optuna)
            found.sampler = optuna.samplers.TPESampler(
                seed=seed + len(found.trials), n_startup_trials=_RANDOM_TRIALS, multivariate=True
            )
            found.pruner = optuna.pruners.SuccessiveHalvingPruner(
                min_resource=1, reduction_factor=2, min_early_stopping_rate=0
            )
            self._optuna, self._study = optuna, found
            for guess in space.guesses():
                known = {name: value for name, value in guess.items() if name in space.values}
                found.enqueue_trial(known, skip_if_exists=True)
        self._distributions = {
            name: optuna.distributions.CategoricalDistribution(values) for name, values in space.values.items()
        }

    def ask(self) -> Asked:
        """Return what to try next; its choice may be one that was tried before."""
        with _quiet():
            trial = self._study.ask(self._distributions)
        return Asked(trial, self._space.canonical({**self._space.current, **trial.params}))

    def should_prune(self, asked: Asked, score: float, rung: int) -> bool:
        """Note the score of a rung, and return whether the candidate is not worth another one."""
        with _quiet():
            asked.trial.report(score, rung + 1)
            return bool(asked.trial.should_prune())

    def tell(self, asked: Asked, trial: Trial) -> None:
        """Keep the outcome."""
        states = self._optuna.trial.TrialState
        state = {"measured": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[trial.state]
        with _quiet():
            asked.trial.set_user_attr(_TRIAL, trial.to_json())
            self._study.tell(asked.trial, trial.score if trial.state == "measured" else None, state=state)

    def repeat(self, asked: Asked, earlier: Trial) -> None:
        """Note that a choice was proposed again; the search learns the old score, and nothing is measured."""
        states = self._optuna.trial.TrialState
        with _quiet():
            if earlier.state == "measured":
                self._study.tell(asked.trial, earlier.score)
            else:
                self._study.tell(asked.trial, state=states.PRUNED if earlier.state == "pruned" else states.FAIL)

    @property
    def trials(self) -> list[Trial]:
        """What was tried, in order; choices that were proposed again are not repeated."""
        found = self._study.get_trials(deepcopy=False)
        return [Trial.from_json(trial.user_attrs[_TRIAL]) for trial in found if _TRIAL in trial.user_attrs]

    def _check_subject(self, found: Any, subject: Mapping[str, Any], path: Path | None) -> None:
        known = found.user_attrs.get(_SUBJECT)
        if known is None:
            found.set_user_attr(_SUBJECT, dict(subject))
            return
        differing = [name for name in subject if known.get(name) != subject[name]]
        if differing:
            raise InvalidPlan(
                f"{path} is a study of another {' and '.join(differing)}, so its trials cannot be compared with new "
                "ones: name another file",
                path=str(path),
            )

    @staticmethod
    def _end_killed(found: Any, optuna: Any) -> None:
        """Give up the trial that was under way when the process was killed; its choice may be proposed again."""
        for trial in found.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            found.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def config_digest(config: Mapping[str, Any]) -> str:
    """Return what tells two configurations apart."""
    return _digest({name: value for name, value in config.items() if name != "version_policy"})


def same(trials: list[Trial], choice: Choice) -> Trial | None:
    """Return an earlier trial of the same choice."""
    return next((trial for trial in trials if dict(trial.choice) == dict(choice)), None)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextmanager
def _quiet() -> Iterator[Any]:
    """Give Optuna without its log lines and its warnings of experimental parts."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield optuna


@contextmanager
def _readable(path: Path | None) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, OSError, RuntimeError) as exc:
        reason = str(getattr(exc, "orig", None) or exc).strip().splitlines()[0]
        raise InvalidPlan(
            f"{path} cannot be used for the study ({reason}): name a new file, or one that naiad tune wrote",
            path=str(path),
        ) from exc
