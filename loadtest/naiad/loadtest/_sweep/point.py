"""One run of a sweep, as the figures that a curve needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from naiad.loadtest._truth.measurement import Measurement
    from naiad.loadtest.plan import LoadTest
    from naiad.loadtest.report import Report

__all__ = ["Point", "Run", "SweepProgress"]

Run = Callable[["LoadTest"], "Report"]
"""Measures one test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepProgress:
    """How far a series of runs is."""

    done: int
    planned: int | None
    """``None`` where it is not known how many it takes."""
    text: str
    """What the latest run found, or what is measured now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What was measured at one value of the axis. Times are in µs, rates per second, shares are fractions."""

    value: float
    """Of the swept variable."""
    throughput_per_s: float
    offered_per_s: float | None = None
    """What was due to arrive; ``None`` in a closed loop."""
    inferences_per_s: float
    """Rows answered per second."""
    goodput_per_s: float | None = None
    """Requests answered within the objectives; ``None`` without an objective on the latency."""
    mean_us: float | None = None
    p50_us: float | None = None
    p50_interval_us: tuple[float, float] | None = None
    """95 % confidence."""
    p99_us: float | None = None
    p99_interval_us: tuple[float, float] | None = None
    queue_us: float | None = None
    """In the server, per request, as are the next two."""
    compute_us: float | None = None
    mean_batch: float | None = None
    error_share: float = 0.0
    requests: int = 0
    gpu_share: float | None = None
    """Of the busiest GPU."""
    requests_per_second_per_watt: float | None = None
    """Of the GPUs' power."""
    met: bool | None = None
    """Whether all objectives were met; ``None`` without any."""
    valid: bool = True
    """Whether the figures are the server's. A point that is not valid is shown, and used for nothing."""
    generator_limited: bool = False
    """Whether it is invalid because the load generator was the limit."""
    doubts: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: float, report: Report) -> Point:
        """Return the figures of a run."""
        from naiad.loadtest._truth.validity import GENERATOR_KINDS

        measured, server = report.measurement, report.measurement.server
        slos = report.test.slos
        return cls(
            value=value,
            throughput_per_s=measured.throughput,
            offered_per_s=measured.offered / measured.window_s if report.test.open_loop and measured.window_s else None,
            inferences_per_s=measured.inferences,
            goodput_per_s=measured.goodput(slos),
            mean_us=measured.value("mean"),
            p50_us=measured.value("p50"),
            p50_interval_us=measured.interval("p50"),
            p99_us=measured.value("p99"),
            p99_interval_us=measured.interval("p99"),
            queue_us=server.queue_us if server else None,
            compute_us=server.compute_us if server else None,
            mean_batch=server.mean_batch if server else None,
            error_share=measured.error_share or 0.0,
            requests=measured.completed,
            **_of_gpus(measured),
            met=all(result.met for result in report.slos) if slos else None,
            valid=report.valid,
            generator_limited=any(
                doubt.invalid and getattr(doubt, "kind", "") in GENERATOR_KINDS for doubt in report.doubts
            ),
            doubts=tuple(doubt.text for doubt in report.doubts if doubt.invalid),
        )

    @property
    def usable(self) -> bool:
        """Whether a knee may be looked for here: valid, and the latency is known."""
        return self.valid and bool(self.mean_us) and self.throughput_per_s > 0

    @property
    def text(self) -> str:
        """What a person wants to know of it, in one line."""
        words = [f"{self.throughput_per_s:,.0f}/s"]
        for name, latency_us in (("p50", self.p50_us), ("p99", self.p99_us)):
            words.append(f"{name} {'–' if latency_us is None else f'{latency_us / 1000:.2f} ms'}")
        if self.error_share:
            words.append(f"{self.error_share:.1%} failed")
        if not self.valid:
            words.append("invalid: the load generator was the limit" if self.generator_limited else "invalid")
        return ", ".join(words)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "text": self.text}


def _of_gpus(measured: Measurement) -> dict[str, Any]:
    from naiad.loadtest._truth.cost import Cost

    gpus = () if measured.resources is None else measured.resources.gpus
    return {
        "gpu_share": max((gpu.busy_share for gpu in gpus if gpu.busy_share is not None), default=None),
        "requests_per_second_per_watt": Cost.of(measured, None, None).requests_per_second_per_watt,
    }
