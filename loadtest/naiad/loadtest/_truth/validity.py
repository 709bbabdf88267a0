"""Was it the server that was measured? Reasons to doubt it, and which of them make a result worthless.

docs/why.md has the reasons for the rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Final

from naiad.loadtest._truth.calibration import Calibration
from naiad.loadtest._truth.measurement import Measurement
from naiad.loadtest._truth.noise import MachineLoad
from naiad.loadtest._truth.steady import Steadiness, drift_of
from naiad.loadtest.plan import LoadTest

__all__ = ["GENERATOR_KINDS", "Doubt", "doubts"]

GENERATOR_KINDS: Final = frozenset({"generator_cpu", "generator_lag", "generator_waited", "in_flight"})
"""The kinds that say that the load generator may have been the limit."""

MAX_CPU_SHARE: Final = 0.7
SATURATED_CPU_SHARE: Final = 0.9
NEAR_CEILING: Final = 0.8
MIN_IN_FLIGHT_SHARE: Final = 0.8
MIN_IN_FLIGHT: Final = 4  # below, one request more or less on the way is a quarter
MIN_LAG_US: Final = 500.0
LAG_SHARE: Final = 0.1
LAG_LIMIT: Final = 0.5
FOREIGN_SHARE: Final = 0.01
FOREIGN_LIMIT: Final = 0.05
FEW: Final = 20  # a health check now and then is no load
FEW_MISSING: Final = 3  # the last answers may not be counted yet
STEAL_SHARE: Final = 0.05
PRESSURE_SHARE: Final = 0.5
ENGINE_WAIT_SHARE: Final = 0.05
OVERLOAD_SHARE: Final = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """A reason to doubt that the result describes the server; with ``invalid``, it does not."""

    kind: str
    text: str
    invalid: bool

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        return asdict(self)


def doubts(
    test: LoadTest,
    measurement: Measurement,
    *,
    steadiness: Steadiness | None = None,
    calibration: Calibration | None = None,
    machine_load: MachineLoad | None = None,
) -> list[Doubt]:
    """Return all doubts, those that make the result invalid first."""
    if not measurement.latencies.count:
        return []  # nothing was measured: that is a failure, not a doubt
    case = _Case(test=test, measurement=measurement, calibration=calibration)
    found = [
        *case.cpu(),
        *case.lag(),
        *case.in_flight(),
        *case.counts(),
        *case.changes(steadiness),
        *_of_machine(machine_load),
    ]
    return sorted(found, key=lambda doubt: not doubt.invalid)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    test: LoadTest
    measurement: Measurement
    calibration: Calibration | None

    @property
    def nominal(self) -> float:
        """How many requests were to be in flight: the mean of the users, or in an open loop as many as were."""
        users = [slot.users for slot in self.measurement.in_window]
        return (fmean(users) if users else 0.0) or self.measurement.in_flight or 0.0

    @property
    def on_the_way(self) -> float:
        """How many of them are on the way even with a server that does nothing: that is no one's fault."""
        floor_us = 0.0 if self.calibration is None else self.calibration.floor_p50_us
        return self.measurement.throughput * floor_us * 1e-6

    @property
    def missing_share(self) -> float | None:
        """Which share of the requests was neither in the server nor on the way; ``None`` where that is not known."""
        server = self.measurement.server
        if server is None or not server.requests or self.nominal < MIN_IN_FLIGHT:
            return None
        return 1 - (server.in_flight + self.on_the_way) / self.nominal

    @property
    def was_fed(self) -> bool:
        """Whether the server had the requests that it was to have: then it was the limit, however busy we were."""
        missing = self.missing_share
        return missing is not None and missing <= 1 - MIN_IN_FLIGHT_SHARE

    @property
    def near_ceiling(self) -> bool:
        """Whether the rate is close to the most that these engines can send to anybody."""
        if self.calibration is None:
            return False
        return self.measurement.throughput > NEAR_CEILING * self.calibration.ceiling_per_s * self.test.engines

    def cpu(self) -> Iterator[Doubt]:
        share = self.measurement.cpu_share
        if share <= MAX_CPU_SHARE:
            return
        limit = share > SATURATED_CPU_SHARE or self.near_ceiling
        text = f"an engine process used {share:.0%} of a core (more than {MAX_CPU_SHARE:.0%})"
        if limit and not self.was_fed:
            yield Doubt(
                kind="generator_cpu",
                text=f"{text}: it was the limit, not the server; use more engines",
                invalid=True,
            )
        else:
            yield Doubt(kind="generator_cpu", text=f"{text}: close to its own limit; use more engines", invalid=False)

    def lag(self) -> Iterator[Doubt]:
        """Requests that left late were late because of us, and their latencies say so as if it were the server."""
        lag_us, latency_us = self.measurement.lag.percentile_us(99), self.measurement.latencies.percentile_us(99)
        if lag_us is None or latency_us is None or lag_us < MIN_LAG_US or lag_us < LAG_SHARE * latency_us:
            return
        yield Doubt(
            kind="generator_lag",
            text=f"one request in a hundred left {lag_us / 1000:.1f} ms late or later, more than {LAG_SHARE:.0%} of "
            "p99: part of the latencies is the load generator's own",
            invalid=lag_us > LAG_LIMIT * latency_us,
        )

    def in_flight(self) -> Iterator[Doubt]:
        """Requests missing in the server are our fault only where we were busy; else gRPC or the network had them."""
        missing, server = self.missing_share, self.measurement.server
        if missing is None or server is None or missing <= 1 - MIN_IN_FLIGHT_SHARE:
            return
        if self.measurement.cpu_share <= MAX_CPU_SHARE and not self.near_ceiling:
            return
        yield Doubt(
            kind="in_flight",
            text=f"of {self.nominal:.1f} requests in flight {server.in_flight:.1f} were in the server (by its own "
            f"counters) and {self.on_the_way:.1f} on the way; the others waited in the load generator, which sent "
            "nearly as fast as it can: use more engines",
            invalid=True,
        )

    def counts(self) -> Iterator[Doubt]:
        counted = self.measurement.counted
        if self.measurement.began_anew:
            yield Doubt(
                kind="began_anew",
                text="the server's counters were set back within the run: it, or a model, began anew; its own times "
                "are not known",
                invalid=False,
            )
        if counted is None or any(traffic.stream for traffic in self.test.mix):
            return
        others = counted.server - counted.client - counted.client_failed
        share = others / max(counted.client, 1)
        if others > FEW and share > FOREIGN_SHARE:
            yield Doubt(
                kind="foreign_load",
                text=f"the server answered about {others:,} requests of others ({share:.0%} more than ours): they "
                "were part of its load, and its times are theirs, too",
                invalid=share > FOREIGN_LIMIT,
            )
        yield from self._foreign_steps()
        missing = counted.client - counted.server
        if missing > max(FEW_MISSING, FOREIGN_SHARE * counted.client):
            yield Doubt(
                kind="counts",
                text=f"of {counted.client:,} answers the server counted {counted.server:,}: others answered (a "
                "cache, another replica), or it began anew; its times describe only a part",
                invalid=False,
            )

    def _foreign_steps(self) -> Iterator[Doubt]:
        """The counts of a model that is called tell of others where an ensemble says how often it is called."""
        steps = () if self.measurement.steps is None else self.measurement.steps.steps
        others = {step.step.model: step.others for step in steps if step.others}
        if others:
            named = ", ".join(f"'{model}' ({number:,})" for model, number in others.items())
            yield Doubt(
                kind="foreign_steps",
                text=f"steps had requests of others as well: {named}; their times are those requests', too",
                invalid=False,
            )

    def changes(self, steadiness: Steadiness | None) -> Iterator[Doubt]:
        measurement = self.measurement
        offered = measurement.offered / measurement.window_s if measurement.window_s else 0.0
        if self.test.open_loop and measurement.throughput < OVERLOAD_SHARE * offered:
            yield Doubt(
                kind="overload",
                text=f"{offered:,.0f} requests/s arrived and {measurement.throughput:,.0f}/s were answered: latencies "
                "grow as long as such a load lasts, so they say how long this one lasted",
                invalid=False,
            )
            return
        drift = drift_of([slot.latencies for slot in measurement.in_window])
        moved = ", ".join(f"{name} × {ratio:.2f}" for name, ratio in drift.items())
        if steadiness is not None and not steadiness.steady:
            yield Doubt(kind="not_steady", text=_not_steady(steadiness, moved), invalid=bool(drift))
        elif drift:
            text = f"from the first to the second half of the window it moved: {moved}; measure longer, or warm up more"
            yield Doubt(kind="drift", text=text, invalid=False)


def _not_steady(steadiness: Steadiness, moved: str) -> str:
    return f"{steadiness.reason}{f'; within the window it moved: {moved}' if moved else ''}"


def _of_machine(load: MachineLoad | None) -> Iterator[Doubt]:
    if load is None:
        return
    if load.engine_wait_share > ENGINE_WAIT_SHARE:
        yield Doubt(
            kind="generator_waited",
            text=f"for {load.engine_wait_share:.0%} of the time an engine process was ready to run and had no core: "
            "latencies have these waits in them; keep cores free for the load generator",
            invalid=False,
        )
    if load.steal_share > STEAL_SHARE:
        yield Doubt(
            kind="machine",
            text=f"the host took {load.steal_share:.0%} of the cores' time for other machines: latencies are longer "
            "than this machine's own",
            invalid=False,
        )
    if load.pressure_share > PRESSURE_SHARE:
        yield Doubt(
            kind="machine",
            text=f"for {load.pressure_share:.0%} of the time some process waited for a core of this machine: "
            "generator, server or others disturbed each other",
            invalid=False,
        )
