"""What a search for a configuration came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from naiad.loadtest._tune.trial import Trial, front
from naiad.loadtest.machine import Machine
from naiad.loadtest.plan import LoadTest

if TYPE_CHECKING:
    from naiad.loadtest._gate.result import GateResult, MetricResult

__all__ = ["Tuning"]

SCHEMA_VERSION: Final = 1
_CURRENT: Final = "current"
_TRITON: Final = "Triton's default"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """Every trial, and the winner where an A/B run confirmed one."""

    test: LoadTest
    trials: tuple[Trial, ...]
    confirmations: tuple[tuple[Trial, GateResult], ...]
    """The candidates that were compared in an A/B run; the last one is the winner, if any is."""
    against: str
    """What they were compared with: ``"current"`` or ``"triton"``."""
    elapsed_s: float
    interrupted: bool = False
    machine: Machine = field(default_factory=Machine.this)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def of(
        cls,
        test: LoadTest,
        trials: Sequence[Trial],
        confirmations: Sequence[tuple[Trial, GateResult]],
        *,
        against: str,
        elapsed_s: float,
        interrupted: bool,
    ) -> Self:
        """Return the result of a search."""
        return cls(
            test=test,
            trials=tuple(trials),
            confirmations=tuple(confirmations),
            against=against,
            elapsed_s=elapsed_s,
            interrupted=interrupted,
        )

    @staticmethod
    def confirms(result: GateResult) -> bool:
        """Whether an A/B run shows that the candidate is better, within the objectives."""
        judged = [metric for metric in result.metrics if metric.judged]
        return (
            result.verdict == "no regression"
            and bool(judged)
            and all(metric.improved for metric in judged)
            and all(objective.met for objective in result.objectives)
        )

    @property
    def winner(self) -> Trial | None:
        """The candidate that was confirmed; ``None`` where none was."""
        return next((trial for trial, result in self.confirmations if self.confirms(result)), None)

    @property
    def confirmation(self) -> GateResult | None:
        """The A/B run of the winner; without one, the last there was."""
        confirmed = [result for _, result in self.confirmations if self.confirms(result)]
        return confirmed[0] if confirmed else self.confirmations[-1][1] if self.confirmations else None

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials that none beats in goodput, p99 and CPU time at once; best goodput first."""
        return front(self.trials)

    def labelled(self, label: str) -> Trial | None:
        """Return the trial of the current configuration (``"current"``) or of ``"Triton's default"``."""
        return next((trial for trial in self.trials if label in trial.label), None)

    @property
    def gain(self) -> MetricResult | None:
        """What the A/B run says of the winner's throughput (or latency, at a given rate)."""
        if self.winner is None or self.confirmation is None:
            return None
        return next((metric for metric in self.confirmation.metrics if metric.judged), None)

    @property
    def text(self) -> str:
        """The outcome in one sentence."""
        kind = "the current configuration" if self.against == _CURRENT else "Triton's default configuration"
        num = len(self.trials)
        if self.winner is not None and self.gain is not None:
            low, high = self.gain.interval
            return f"{self.winner.text}: {self.gain.name} × {self.gain.ratio:.2f} ({low:.2f} to {high:.2f}) of {kind}"
        if self.interrupted:
            return f"interrupted after {num} configurations: nothing is confirmed"
        if not any(trial.best for trial in self.trials):
            return f"none of {num} configurations keeps {' and '.join(slo.text for slo in self.test.slos)}"
        if self.confirmations:
            return self._not_confirmed(kind, num)
        return f"no gain found: {kind} is as good as any of {num} that were tried"

    def _not_confirmed(self, kind: str, num: int) -> str:
        candidate, result = self.confirmations[-1]
        if result.verdict == "invalid":
            return f"no gain confirmed: the A/B run of {candidate.text} was not valid, as {result.reason}"
        missed = [objective.text for objective in result.objectives if not objective.met]
        if missed:
            return f"no gain confirmed: in the A/B run {candidate.text} missed {' and '.join(missed)}"
        return f"no gain confirmed: {kind} is as good as any of {num} that were tried, as far as the A/B run can tell"

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        reference = self.labelled(_CURRENT)
        triton = self.labelled(_TRITON)
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "tune",
            "naiad_version": version("naiad"),
            "created": self.created.isoformat(timespec="seconds"),
            "machine": self.machine.to_json(),
            "model": self.test.mix[0].model,
            "slos": [slo.text for slo in self.test.slos],
            "text": self.text,
            "interrupted": self.interrupted,
            "elapsed_s": self.elapsed_s,
            "against": self.against,
            "current": reference.to_json() if reference else None,
            "triton_default": triton.to_json() if triton else None,
            "winner": self.winner.to_json() if self.winner else None,
            "gain": self.gain.ratio if self.gain else None,
            "confirmation": self.confirmation.to_json() if self.confirmation else None,
            "front": [trial.number for trial in self.front],
            "trials": [trial.to_json() for trial in self.trials],
        }

    def write(self, *, html: Path | None = None, json: Path | None = None) -> None:
        """Write the page and the JSON document, each whole or not at all.

        Raises:
            OutputNotWritable: a file cannot be written where it was asked for.
        """
        from naiad.loadtest._report.content import to_text
        from naiad.loadtest._report.files import write_atomically
        from naiad.loadtest._tune.page import tune_html

        content = self.to_json()
        if json is not None:
            write_atomically(json, to_text(content))
        if html is not None:
            write_atomically(html, tune_html(content))
