"""How a measurement is summed up from what engines and server said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from naiad.loadtest._data.target import Target
from naiad.loadtest._engine.messages import Interval
from naiad.loadtest._truth.points import NOT_SENT, points_of
from naiad.loadtest._truth.resources import Resources, ServerSample
from naiad.loadtest._truth.server_times import ServerTimes
from naiad.loadtest._truth.slots import SLOT_S, Slot, merge, slots_of
from naiad.loadtest._truth.step_times import PipelineTimes
from naiad.loadtest._truth.window import Counted, began_anew, count, samples_within, server_times
from naiad.loadtest.plan import LoadTest

__all__ = ["measure"]

_EMPTY: Final = Slot(start_s=0.0, end_s=0.0)
_DISTRIBUTIONS: Final = ("latencies", "service", "lag", "first_response", "between_responses")
Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """Everything that was said, and which part of it counts."""

    test: LoadTest
    targets: Sequence[Target]
    intervals: Sequence[Interval]
    samples: Sequence[ServerSample]
    start_s: float
    end_s: float
    alpha: float

    @property
    def indices(self) -> range:
        return range(len(self.test.mix))

    @property
    def by_model(self) -> list[list[int]]:
        """The indices of the mix, those together that ask the server for the same counters."""
        found: dict[tuple[str, str | None], list[int]] = {}
        for index, traffic in enumerate(self.test.mix):
            found.setdefault((traffic.model, traffic.version), []).append(index)
        return list(found.values())

    def rows(self, traffic: int) -> int:
        return self.test.mix[traffic].batch if self.targets[traffic].signature.batching else 1


def measure(
    make: Callable[..., Any],
    test: LoadTest,
    targets: Sequence[Target],
    intervals: Sequence[Interval],
    samples: Sequence[ServerSample],
    window: tuple[float, float],
    alpha: float,
) -> Fields:
    """Return the fields of the whole; ``make`` makes a part of its fields."""
    start_s, end_s = (round(edge / SLOT_S) * SLOT_S for edge in window)
    run = _Run(
        test=test,
        targets=targets,
        intervals=intervals,
        samples=sorted(samples, key=lambda sample: sample.at_s),
        start_s=start_s,
        end_s=end_s,
        alpha=alpha,
    )
    parts = [_part(run, traffic) for traffic in run.indices]
    whole = parts[0] if len(parts) == 1 else _whole(run, parts)
    near = samples_within(run.samples, start_s, end_s)
    return {
        **whole,
        "model": "",
        "cpu_shares": _cpu_shares(run),
        "resources": Resources.of(
            near,
            whole["completed"] / (end_s - start_s) if end_s > start_s else 0.0,
            window_s=end_s - start_s,
            before=[sample for sample in run.samples if sample.at_s < 0],
        ),
        "began_anew": any(began_anew(run.samples, traffic) for traffic in run.indices),
        "counted": _together([count(run.samples, intervals, traffics) for traffics in run.by_model]),
        "parts": tuple(make(**part) for part in parts) if len(parts) > 1 else (),
    }


def _part(run: _Run, traffic: int) -> Fields:
    slots = slots_of(interval for interval in run.intervals if interval.traffic == traffic)
    near = samples_within(run.samples, run.start_s, run.end_s)
    pipeline = run.targets[traffic].pipeline
    return {
        **_sums(run, slots),
        "model": run.test.mix[traffic].model,
        "rows_per_request": float(run.rows(traffic)),
        "server": server_times(near, traffic),
        "steps": None if pipeline is None else PipelineTimes.of(pipeline, run.samples, near, traffic),
    }


def _whole(run: _Run, parts: Sequence[Fields]) -> Fields:
    sums = _sums(run, slots_of(run.intervals))
    rows = sum(part["completed"] * part["rows_per_request"] for part in parts)
    servers = [parts[first]["server"] for first, *_ in run.by_model]
    known = [server for server in servers if server is not None]
    return {
        **sums,
        "rows_per_request": rows / sums["completed"] if sums["completed"] else 1.0,
        "server": ServerTimes.together(known) if len(known) == len(servers) else None,
    }


def _sums(run: _Run, slots: Sequence[Slot]) -> Fields:
    first, last = round(run.start_s / SLOT_S), round(run.end_s / SLOT_S)
    window = list(slots[first:last])
    window += [Slot(start_s=at * SLOT_S, end_s=(at + 1) * SLOT_S) for at in range(first + len(window), last)]
    after = [merge(slots[last:])] if slots[last:] and window else []
    inside = merge(window) if window else _EMPTY
    whole = merge([inside, *after]) if window else _EMPTY
    return {
        "window_s": run.end_s - run.start_s,
        "users": inside.users,
        "sent": inside.sent,
        "offered": inside.sent + inside.errors.get(NOT_SENT, 0),
        "completed": inside.completed,
        "responses": inside.responses,
        **{name: getattr(whole, name) for name in (*_DISTRIBUTIONS, "errors", "examples")},
        "points": points_of(slots, run.samples, run.start_s, run.end_s),
        "cpu_shares": (),
        "slos": run.test.slos,
        "alpha": run.alpha,
        "slots": (*window, *after),
    }


def _cpu_shares(run: _Run) -> tuple[float, ...]:
    """Return the CPU time of each engine within the window, as a share of a core."""
    spent: dict[int, float] = {}
    for interval in run.intervals:
        if run.start_s <= (interval.start_s + interval.end_s) / 2 < run.end_s:
            spent[interval.engine] = spent.get(interval.engine, 0.0) + interval.cpu_s
    return tuple(spent[engine] / (run.end_s - run.start_s) for engine in sorted(spent))


def _together(parts: Sequence[Counted | None]) -> Counted | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return Counted(
        client=sum(part.client for part in known),
        client_failed=sum(part.client_failed for part in known),
        server=sum(part.server for part in known),
    )
