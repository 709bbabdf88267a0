"""A file of results, one line for each run, and what changed in it over time."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from naiad.loadtest._gate.changes import ChangePoint, change_points
from naiad.loadtest._report.files import check_writable
from naiad.loadtest.baseline import describe_load, describe_models, same_machine
from naiad.loadtest.errors import InvalidBaseline, OutputNotWritable
from naiad.loadtest.machine import Machine
from naiad.loadtest.plan import LoadTest

if TYPE_CHECKING:
    from naiad.loadtest._gate.result import GateResult
    from naiad.loadtest._truth.measurement import Measurement

__all__ = ["Entry", "MetricTrend", "Trend", "append_gate", "append_history", "read_history", "trends"]

SCHEMA_VERSION: Final = 1
RECENT: Final = 10
_METRICS: Final = ("throughput", "p50", "p90", "p99")
_RATES: Final = frozenset({"throughput", "inferences", "goodput"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line: what was measured, where, when."""

    at: datetime
    models: str
    load: str
    machine: Machine
    metrics: Mapping[str, float]
    """Latencies in µs, rates per second."""
    label: str = ""
    """What the writer calls this state of things, such as a revision."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {
            "schema_version": SCHEMA_VERSION,
            "at": self.at.isoformat(timespec="seconds"),
            "label": self.label,
            "models": self.models,
            "load": self.load,
            "machine": self.machine.to_json(),
            "metrics": dict(self.metrics),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricTrend:
    """One metric over time."""

    metric: str
    values: tuple[float, ...]
    changes: tuple[ChangePoint, ...]

    def is_worse(self, change: ChangePoint) -> bool:
        """Whether a change is for the worse."""
        return (change.ratio < 1) == (self.metric in _RATES)

    def regressed(self, recent: int = RECENT) -> bool:
        """Whether the last change is for the worse and lies within the last ``recent`` values."""
        return bool(
            self.changes and self.is_worse(self.changes[-1]) and self.changes[-1].index >= len(self.values) - recent
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """All runs of the same models under the same load on this machine, the oldest first."""

    models: str
    load: str
    entries: tuple[Entry, ...] = field(repr=False)
    metrics: tuple[MetricTrend, ...]

    def regressions(self, recent: int = RECENT) -> list[MetricTrend]:
        """Return the metrics whose last values are worse than those before."""
        return [item for item in self.metrics if item.regressed(recent)]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {
            "models": self.models,
            "load": self.load,
            "num_runs": len(self.entries),
            "metrics": [self._metric_json(item) for item in self.metrics],
        }

    def _metric_json(self, item: MetricTrend) -> dict[str, Any]:
        return {
            "metric": item.metric,
            "values": list(item.values),
            "regressed": item.regressed(),
            "changes": [
                {
                    "index": change.index,
                    "at": self.entries[change.index].at.isoformat(timespec="seconds"),
                    "label": self.entries[change.index].label,
                    "before": change.before,
                    "after": change.after,
                    "ratio": change.ratio,
                    "worse": item.is_worse(change),
                    "p": change.p_value,
                }
                for change in item.changes
            ],
        }


def append_history(path: Path, test: LoadTest, measurement: Measurement, *, label: str = "") -> None:
    """Add a run to a history file, which is made if it is missing; a writer at the same time waits.

    Raises:
        OutputNotWritable: it could not be written; the file is as it was.
    """
    from naiad.loadtest._truth.cost import energy_uj

    found = {metric: measurement.value(metric) for metric in _METRICS}
    found["energy"] = energy_uj(measurement)
    _append(path, test, {name: value for name, value in found.items() if value is not None}, label)


def append_gate(path: Path, test: LoadTest, result: GateResult, *, label: str = "") -> None:
    """Add the medians of a gate's candidate to a history file, as :func:`append_history` does with a run.

    They are listed under a load of their own: many short runs are no long one.

    Raises:
        OutputNotWritable: it could not be written; the file is as it was.
    """
    from statistics import median

    medians = {item.name: median(item.candidates) for item in result.metrics}
    _append(path, test, medians, label, suffix=f", gate of {result.window_s:g} s")


def _append(path: Path, test: LoadTest, metrics: Mapping[str, float], label: str, *, suffix: str = "") -> None:
    entry = Entry(
        at=datetime.now(UTC),
        models=describe_models(test),
        load=describe_load(test) + suffix,
        machine=Machine.this(),
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        label=label,
    )
    check_writable(path)
    line = json.dumps(entry.to_json(), ensure_ascii=False, allow_nan=False)
    try:
        _append_line(path, line.encode())
    except OSError as exc:
        raise OutputNotWritable(f"{path} could not be written: {exc.strerror or exc}", path=str(path)) from exc


def _append_line(path: Path, line: bytes) -> None:
    """Add a whole line or nothing: a lock keeps others out, what was written in part is taken back."""
    import fcntl

    with path.open("ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        line = _separator(file, size) + line + b"\n"
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                os.ftruncate(file.fileno(), size)
            raise


def _separator(file: IO[bytes], size: int) -> bytes:
    """Return a line's end where a writer that was killed left none."""
    if not size:
        return b""
    file.seek(size - 1)
    return b"" if file.read(1) == b"\n" else b"\n"


def read_history(path: Path) -> tuple[list[Entry], int]:
    """Return the lines of a history file, and how many are none (cut short, or of a later version).

    Raises:
        InvalidBaseline: there is no such file, or no line of it is one of a history.
    """
    try:
        lines = [line for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    except OSError as exc:
        raise InvalidBaseline(
            f"the history {path} cannot be read ({exc.strerror}): make one with --history", path=str(path)
        ) from exc
    entries = [entry for line in lines if (entry := _entry(line)) is not None]
    if lines and not entries:
        raise InvalidBaseline(f"expected a history of load tests in {path}, found something else", path=str(path))
    return entries, len(lines) - len(entries)


def _entry(line: str) -> Entry | None:
    try:
        fields = json.loads(line)
        if fields["schema_version"] != SCHEMA_VERSION:
            return None
        metrics = {str(name): float(value) for name, value in fields["metrics"].items()}
        return Entry(
            at=datetime.fromisoformat(fields["at"]),
            models=str(fields["models"]),
            load=str(fields["load"]),
            machine=Machine.from_json(fields["machine"]),
            metrics={name: value for name, value in metrics.items() if value > 0 and math.isfinite(value)},
            label=str(fields.get("label", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def trends(entries: Sequence[Entry], machine: Machine | None = None) -> list[Trend]:
    """Return the series of one machine (this one, where none is given), each with its change points."""
    here = machine or Machine.this()
    series: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if same_machine(entry.machine, here):
            series.setdefault((entry.models, entry.load), []).append(entry)
    return [
        Trend(models=models, load=load, entries=tuple(found), metrics=tuple(_metric_trends(found)))
        for (models, load), found in series.items()
    ]


def _metric_trends(entries: Sequence[Entry]) -> list[MetricTrend]:
    """Return the metrics that every run of a series has."""
    names = [name for name in entries[-1].metrics if all(name in entry.metrics for entry in entries)]
    found = []
    for name in names:
        values = tuple(entry.metrics[name] for entry in entries)
        found.append(MetricTrend(metric=name, values=values, changes=tuple(change_points(values))))
    return found
