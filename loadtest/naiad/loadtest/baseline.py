"""A stored result to compare with: of the same model, under the same load, on the same machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from naiad.loadtest._files import write_atomically
from naiad.loadtest.errors import InvalidBaseline
from naiad.loadtest.machine import Machine
from naiad.loadtest.measurement import Measurement
from naiad.loadtest.plan import LoadTest

__all__ = ["DEFAULT_MARGIN", "Baseline", "Comparison"]

SCHEMA_VERSION: Final = 1
DEFAULT_MARGIN: Final = 0.25  # runs of one unchanged server differ by this much and more on a shared machine
_METRICS: Final = ("throughput", "p50", "p90", "p99")
_HIGHER_IS_BETTER: Final = frozenset({"throughput"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One metric against the baseline; latencies in µs, throughput in requests per second."""

    metric: str
    baseline: float
    measured: float
    margin: float

    @property
    def worse_by(self) -> float:
        """By which fraction it got worse; negative where it got better."""
        if not self.measured or not self.baseline:
            return math.inf if self.metric in _HIGHER_IS_BETTER and self.baseline else 0.0
        ratio = self.baseline / self.measured if self.metric in _HIGHER_IS_BETTER else self.measured / self.baseline
        return ratio - 1

    @property
    def regressed(self) -> bool:
        """Whether it got worse by more than the margin."""
        return self.worse_by > self.margin


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A run's main results, with everything a fair comparison needs to know."""

    model: str
    users: int
    batch: int
    machine: Machine
    metrics: Mapping[str, float]
    """``throughput`` in requests per second, ``p50``, ``p90`` and ``p99`` in µs."""

    @classmethod
    def of(cls, test: LoadTest, measurement: Measurement) -> Self:
        """Return the baseline that a run makes."""
        found = {metric: measurement.value(metric) for metric in _METRICS}
        return cls(
            model=test.model,
            users=test.users,
            batch=test.batch,
            machine=Machine.this(),
            metrics={metric: value for metric, value in found.items() if value is not None},
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            InvalidBaseline: there is no such file, or it holds no baseline.
        """
        try:
            fields = json.loads(path.read_text("utf-8"))
        except OSError as exc:
            raise InvalidBaseline(
                f"the baseline {path} cannot be read ({exc.strerror}): make one with --save-baseline", path=str(path)
            ) from exc
        except ValueError as exc:
            raise InvalidBaseline(
                f"expected a baseline in JSON at {path}, found something else: {exc}", path=str(path)
            ) from exc
        return cls._from_json(fields, path)

    @classmethod
    def _from_json(cls, fields: Any, path: Path) -> Self:
        try:
            if fields["schema_version"] != SCHEMA_VERSION:
                raise InvalidBaseline(
                    f"expected schema version {SCHEMA_VERSION} in {path}, found {fields['schema_version']!r}: "
                    "make the baseline anew with --save-baseline",
                    path=str(path),
                )
            return cls(
                model=str(fields["model"]),
                users=int(fields["users"]),
                batch=int(fields["batch"]),
                machine=Machine.from_json(fields["machine"]),
                metrics={metric: float(fields["metrics"][metric]) for metric in _METRICS},
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise InvalidBaseline(f"{path} is no baseline: {exc!r} is missing or wrong", path=str(path)) from exc

    def write(self, path: Path) -> None:
        """Write the baseline, all or nothing."""
        fields = {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "users": self.users,
            "batch": self.batch,
            "machine": self.machine.to_json(),
            "metrics": dict(self.metrics),
        }
        write_atomically(path, json.dumps(fields, indent=2, ensure_ascii=False) + "\n")

    def check_comparable(self, test: LoadTest, *, any_machine: bool = False) -> None:
        """Refuse a comparison that would say nothing about the server.

        Raises:
            InvalidBaseline: the baseline is of another model, load or machine.
        """
        if self.model != test.model:
            raise self._mismatch("model", self.model, test.model)
        if (self.users, self.batch) != (test.users, test.batch):
            load = "{} users with batches of {}".format
            raise self._mismatch("load", load(self.users, self.batch), load(test.users, test.batch))
        if self.machine != Machine.this() and not any_machine:
            raise self._mismatch(
                "machine", str(self.machine), str(Machine.this()), " (or compare across machines with --any-machine)"
            )

    def _mismatch(self, what: str, baseline: str, this: str, way_out: str = "") -> InvalidBaseline:
        return InvalidBaseline(
            f"the baseline is of another {what}: expected {this}, found {baseline}; "
            f"make one with --save-baseline{way_out}",
            model=self.model,
        )

    def compare(self, measurement: Measurement, margin: float = DEFAULT_MARGIN) -> list[Comparison]:
        """Compare every metric that was measured."""
        pairs = ((metric, self.metrics[metric], measurement.value(metric)) for metric in _METRICS)
        return [
            Comparison(metric=metric, baseline=baseline, measured=measured, margin=margin)
            for metric, baseline, measured in pairs
            if measured is not None
        ]
