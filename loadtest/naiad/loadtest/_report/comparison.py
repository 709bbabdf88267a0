"""Two runs held against each other: ratios with intervals, and what else differs between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from naiad.loadtest._report.units import show, show_ratio

__all__ = ["NEW", "OLD", "Ratio", "cautions", "differences", "ratios"]

Content = Mapping[str, Any]
OLD: Final = "before"
NEW: Final = "after"
_METRICS: Final = ("throughput", "inferences", "p50", "p90", "p95", "p99", "p99.9", "mean", "energy")
_HIGHER_IS_BETTER: Final = frozenset({"throughput", "inferences"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """A metric of two runs: latencies in µs, rates per second, the GPUs' energy of a request in µJ."""

    metric: str
    old: float
    new: float
    interval: tuple[float, float] | None
    """Of ``ratio``, 95 %: each run's own uncertainty, and not the differences from run to run."""

    @property
    def ratio(self) -> float:
        """The new value over the old one."""
        return self.new / self.old

    @property
    def judgement(self) -> str:
        """``better``, ``worse``, or ``no clear difference`` where the interval holds 1 (or there is none)."""
        if self.interval is None or self.interval[0] <= 1 <= self.interval[1]:
            return "no clear difference"
        return "better" if (self.ratio > 1) == (self.metric in _HIGHER_IS_BETTER) else "worse"

    @property
    def text(self) -> str:
        """The whole in a line."""
        range_ = f" ({show_ratio(self.interval[0])} … {show_ratio(self.interval[1])})" if self.interval else ""
        values = f"{show(self.metric, self.old)} → {show(self.metric, self.new)}"
        return f"{values}: {show_ratio(self.ratio)}{range_}, {self.judgement}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {
            "metric": self.metric,
            "old": self.old,
            "new": self.new,
            "ratio": self.ratio,
            "interval": self.interval,
            "judgement": self.judgement,
        }


def ratios(old: Content, new: Content) -> list[Ratio]:
    """Compare the results of two reports' JSON content, metric by metric."""
    return list(_ratios(old, new))


def _ratios(old: Content, new: Content) -> Iterator[Ratio]:
    for metric in _METRICS:
        before, after = _value(old, metric), _value(new, metric)
        if before and after:
            of_old, of_new = (content["results"]["intervals"].get(metric) for content in (old, new))
            ends = _interval(before, of_old, after, of_new)
            yield Ratio(metric=metric, old=before, new=after, interval=ends)


def _value(content: Content, metric: str) -> float | None:
    results = content["results"]
    if metric == "energy":  # of a request, in µJ
        joules = (content["cost"] or {}).get("joules_per_request")
        return None if joules is None else joules * 1e6
    field = {"throughput": "throughput_per_s", "inferences": "inferences_per_s"}.get(metric)
    found: float | None = results["latency_us"][metric] if field is None else results[field]
    return found


def _interval(
    old: float, of_old: Sequence[float] | None, new: float, of_new: Sequence[float] | None
) -> tuple[float, float] | None:
    """Combine two intervals on the logarithmic scale, each side by itself: independent errors add up in squares."""
    if not of_old or not of_new or min(*of_old, *of_new) <= 0:
        return None
    down = math.hypot(math.log(new / of_new[0]), math.log(of_old[1] / old))
    up = math.hypot(math.log(of_new[1] / new), math.log(old / of_old[0]))
    return new / old * math.exp(-down), new / old * math.exp(up)


def cautions(old: Content, new: Content) -> Iterator[str]:
    """Yield a sentence for each reason not to take the ratios for more than they are."""
    yield (
        "these are two single runs: even of one unchanged server they differ by more than their intervals say; "
        "what must be certain is measured with naiad gate, in interleaved pairs"
    )
    for name, content in ((OLD, old), (NEW, new)):
        if content["verdict"] == "invalid":
            yield f"the run {name} is invalid: {'; '.join(content['failures'])}"
    if old["machine"] != new["machine"]:
        yield "the load came from two different machines, or from one whose set-up has changed"
    different = [row[0] for row in differences(old, new)]
    if different:
        yield f"the runs differ in more than their time: {', '.join(different)}"


def differences(old: Content, new: Content) -> list[list[str]]:
    """Return what was set differently: name, before, after."""
    before, after = (dict(_flat({"test": content["test"], "target": content["targets"]})) for content in (old, new))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name) and not name.endswith(".text")]
    return [[name.partition(".")[2], _written(before.get(name)), _written(after.get(name))] for name in names]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flat(item, f"{name}.{index}")
    else:
        yield name, value


def _written(value: Any) -> str:
    return "–" if value is None else str(value)
