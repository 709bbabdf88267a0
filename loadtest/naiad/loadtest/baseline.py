"""A stored result to compare with: of the same model, under the same load, on the same machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from naiad.loadtest._report.files import write_atomically
from naiad.loadtest.errors import InvalidBaseline
from naiad.loadtest.machine import Machine
from naiad.loadtest.plan import LoadTest, Rate, Trace, Users

if TYPE_CHECKING:
    from naiad.loadtest._truth.measurement import Measurement

__all__ = ["DEFAULT_MARGIN", "Baseline", "Comparison", "describe_load", "describe_models", "same_machine"]

SCHEMA_VERSION: Final = 2
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

    models: str
    """The models, with their shares where there are several and their rows per request, as :func:`describe_models`."""
    load: str
    """How requests arrived, as :func:`describe_load`."""
    machine: Machine
    metrics: Mapping[str, float]
    """``throughput`` in requests per second, ``p50``, ``p90`` and ``p99`` in µs."""

    @classmethod
    def of(cls, test: LoadTest, measurement: Measurement) -> Self:
        """Return the baseline that a run makes."""
        found = {metric: measurement.value(metric) for metric in _METRICS}
        return cls(
            models=describe_models(test),
            load=describe_load(test),
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
                models=str(fields["models"]),
                load=str(fields["load"]),
                machine=Machine.from_json(fields["machine"]),
                metrics={metric: float(fields["metrics"][metric]) for metric in _METRICS},
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise InvalidBaseline(f"{path} is no baseline: {exc!r} is missing or wrong", path=str(path)) from exc

    def write(self, path: Path) -> None:
        """Write the baseline, all or nothing."""
        fields = {
            "schema_version": SCHEMA_VERSION,
            "models": self.models,
            "load": self.load,
            "machine": self.machine.to_json(),
            "metrics": dict(self.metrics),
        }
        write_atomically(path, json.dumps(fields, indent=2, ensure_ascii=False) + "\n")

    def check_comparable(self, test: LoadTest, *, any_machine: bool = False) -> None:
        """Refuse a comparison that would say nothing about the server.

        Raises:
            InvalidBaseline: the baseline is of another model, load or machine.
        """
        for what, stored, this in (
            ("model", self.models, describe_models(test)),
            ("load", self.load, describe_load(test)),
        ):
            if stored != this:
                raise self._mismatch(what, stored, this)
        if not any_machine and not same_machine(self.machine, Machine.this()):
            raise self._mismatch(
                "machine", str(self.machine), str(Machine.this()), " (or compare across machines with --any-machine)"
            )

    def _mismatch(self, what: str, stored: str, this: str, way_out: str = "") -> InvalidBaseline:
        return InvalidBaseline(
            f"the baseline is of another {what}: expected {this}, found {stored}; "
            f"make one with --save-baseline{way_out}",
            model=self.models,
        )

    def compare(self, measurement: Measurement, margin: float = DEFAULT_MARGIN) -> list[Comparison]:
        """Compare every metric that was measured."""
        pairs = ((metric, self.metrics[metric], measurement.value(metric)) for metric in _METRICS)
        return [
            Comparison(metric=metric, baseline=baseline, measured=measured, margin=margin)
            for metric, baseline, measured in pairs
            if measured is not None
        ]


def describe_models(test: LoadTest) -> str:
    """Return what is asked of which models, such as ``digits × 8 rows``; equal for tests that ask the same."""
    total = sum(traffic.weight for traffic in test.mix)
    parts = []
    for traffic in test.mix:
        share = f"{traffic.weight / total:.1%} " if len(test.mix) > 1 else ""
        rows = f" × {traffic.batch} rows" if traffic.batch > 1 else ""
        parts.append(f"{share}{traffic.model}{rows}")
    return ", ".join(parts)


def describe_load(test: LoadTest) -> str:
    """Return how requests arrive, such as ``64 users``; equal for tests that load a server in the same way."""
    load = test.load
    if isinstance(load, Users):
        return f"{load.users} users"
    if isinstance(load, Rate):
        return f"{load.per_s:g} requests/s, {load.arrivals}"
    assert isinstance(load, Trace)
    return f"the arrivals of {load.path.name} at {load.speed:g} times their speed"


def same_machine(one: Machine, other: Machine) -> bool:
    """Whether results of both may be compared: a new kernel is no reason against it, another CPU is."""
    return (one.cores, one.cpu, one.system) == (other.cores, other.cpu, other.system)
