"""The gate's result: the verdict, and all that it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from naiad.loadtest._gate.decision import Verdict
from naiad.loadtest._gate.metric import MetricResult, Objective
from naiad.loadtest._gate.options import GateOptions
from naiad.loadtest._gate.pairs import Pair
from naiad.loadtest.machine import Machine

__all__ = ["GateResult", "MetricResult"]

SCHEMA_VERSION: Final = 1
_EXIT_CODES: Final = {"no regression": 0, "regression": 1, "inconclusive": 3, "invalid": 4}
_OBJECTIVE_MISSED: Final = 2
_FAILED: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class GateResult:
    """What a gate found. ``verdict`` is about the two subjects, ``exit_code`` also about the objectives."""

    verdict: Verdict
    reason: str
    """One sentence that says why."""
    baseline: str
    candidate: str
    metrics: tuple[MetricResult, ...]
    pairs: tuple[Pair, ...]
    """All that were measured, in the order of time."""
    options: GateOptions
    window_s: float
    seed: int
    """Of the order within the pairs."""
    elapsed_s: float
    objectives: tuple[Objective, ...] = ()
    warnings: tuple[str, ...] = ()
    interrupted: bool = False
    failed: bool = False
    """Whether one side could no longer be measured, such as a server that died; the verdict is "invalid" then."""
    machine: Machine = field(default_factory=Machine.this)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def num_pairs(self) -> int:
        """How many pairs count."""
        return sum(not pair.discarded for pair in self.pairs)

    @property
    def discarded(self) -> tuple[Pair, ...]:
        """The pairs that do not count."""
        return tuple(pair for pair in self.pairs if pair.discarded)

    @property
    def exit_code(self) -> int:
        """0 no regression, 1 regression, 2 an objective missed, 3 inconclusive, 4 invalid, 5 one side failed."""
        if self.failed:
            return _FAILED
        found = _EXIT_CODES[self.verdict]
        missed = any(not objective.met for objective in self.objectives)
        return _OBJECTIVE_MISSED if missed and self.verdict in ("no regression", "inconclusive") else found

    @property
    def ok(self) -> bool:
        """Whether it is shown that nothing got worse by its margin, and every objective is met."""
        return self.exit_code == 0

    @property
    def metric(self) -> Mapping[str, MetricResult]:
        """The metrics by name."""
        return {item.name: item for item in self.metrics}

    @property
    def text(self) -> str:
        """One sentence for people."""
        return f"{self.verdict}: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON has it; docs/loadtest.md describes the fields."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "gate",
            "naiad_version": version("naiad"),
            "created": self.created.isoformat(timespec="seconds"),
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "text": self.text,
            "baseline": {"name": self.baseline},
            "candidate": {"name": self.candidate},
            "num_pairs": self.num_pairs,
            "discarded": [{"pair": pair.number, "reason": pair.discarded} for pair in self.discarded],
            "metrics": [item.to_json() for item in self.metrics],
            "pairs": [pair.to_json(self.options.rules) for pair in self.pairs],
            "slos": [objective.to_json() for objective in self.objectives],
            "options": self._options_json(),
            "warnings": list(self.warnings),
            "interrupted": self.interrupted,
            "failed": self.failed,
            "elapsed_s": self.elapsed_s,
            "machine": self.machine.to_json(),
        }

    def _options_json(self) -> dict[str, Any]:
        options = self.options
        return {
            "alpha": options.alpha,
            "margin": options.margin,
            "pairs": options.pairs,
            "max_pairs": options.max_pairs,
            "pairs_per_look": options.pairs_per_look,
            "runs_per_side": options.runs_per_side,
            "spending": options.spending,
            "window_s": self.window_s,
            "settle_s": options.settle_s,
            "seed": self.seed,
            "noise_rule": None if options.noise is None else options.noise.to_json(),
        }
