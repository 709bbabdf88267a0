"""One configuration that was tried, and how it came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

__all__ = ["Operating", "Trial", "front"]

State = Literal["measured", "pruned", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operating:
    """What a configuration did at one load."""

    users: int | None
    """``None`` in an open loop."""
    rate_per_s: float | None
    throughput_per_s: float
    p99_us: float | None
    worst: float | None
    """The largest of the objectives' measured values over their limits: 1 or less keeps them all."""
    cpu_us: float | None
    """Of the server, per request."""
    window_s: float
    gpu_share: float | None = None
    """Of the busiest GPU."""
    requests_per_second_per_watt: float | None = None
    valid: bool = True
    note: str = ""

    @property
    def kept(self) -> bool:
        """Whether all objectives were kept, by the server and not for lack of load."""
        return self.valid and self.worst is not None and self.worst <= 1

    @property
    def score(self) -> float:
        """The throughput, cut by how far the objectives were missed, for the search to climb towards keeping them."""
        if not self.valid or self.worst is None:
            return 0.0
        missed = max(self.worst, 1.0)
        # At a given rate all that keep up answer the same number: the quicker ones are better.
        bonus = 1 + (1 - min(self.worst, 1.0)) / 2 if self.rate_per_s is not None else 1.0
        return self.throughput_per_s * bonus / missed**4

    @property
    def load(self) -> str:
        """The load in words."""
        return f"{self.users} users" if self.users is not None else f"{self.rate_per_s:g}/s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A configuration and its figures."""

    number: int
    choice: Mapping[str, Any]
    settings: Mapping[str, Any]
    text: str
    state: State
    points: Sequence[Operating] = ()
    """Every load it was measured at, in the order of time; the last windows are the longest."""
    error: str = ""
    """Why the server would not run it."""
    label: str = field(default="")
    """``"current"`` or ``"Triton's default"``."""

    @property
    def best(self) -> Operating | None:
        """Where it answered the most within the objectives, in the longest windows it got; ``None`` if nowhere."""
        longest = max((point.window_s for point in self.points), default=0.0)
        return max(
            (point for point in self.points if point.kept and point.window_s == longest),
            key=lambda point: point.score,
            default=None,
        )

    @property
    def goodput_per_s(self) -> float:
        """The highest throughput that kept the objectives; 0 where none did."""
        return self.best.throughput_per_s if self.best else 0.0

    @property
    def score(self) -> float:
        """What the search maximises."""
        longest = max((point.window_s for point in self.points), default=0.0)
        return max((point.score for point in self.points if point.window_s == longest), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        best = self.best
        return {
            "number": self.number,
            "label": self.label,
            "text": self.text,
            "state": self.state,
            "choice": dict(self.choice),
            "settings": dict(self.settings),
            "goodput_per_s": self.goodput_per_s,
            "load": best.load if best else None,
            "p99_us": best.p99_us if best else None,
            "cpu_us_per_request": best.cpu_us if best else None,
            "gpu_share": best.gpu_share if best else None,
            "requests_per_second_per_watt": best.requests_per_second_per_watt if best else None,
            "error": self.error,
            "points": [asdict(point) for point in self.points],
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` gave."""
        names = ("number", "label", "text", "state", "choice", "settings", "error")
        points = tuple(Operating(**point) for point in fields["points"])
        return cls(**{name: fields[name] for name in names}, points=points)


def front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Return the trials that none beats in goodput, p99 and CPU time per request at once; best goodput first."""
    good = [trial for trial in trials if trial.state == "measured" and trial.best]
    found = [trial for trial in good if not any(_dominates(other, trial) for other in good)]
    return tuple(sorted(found, key=lambda trial: -trial.goodput_per_s))


def _dominates(a: Trial, b: Trial) -> bool:
    ours, theirs = _costs(a), _costs(b)
    return all(x <= y for x, y in zip(ours, theirs, strict=True)) and ours != theirs


def _costs(trial: Trial) -> tuple[float, float, float]:
    assert trial.best is not None
    return -trial.goodput_per_s, trial.best.p99_us or 0.0, trial.best.cpu_us or 0.0
