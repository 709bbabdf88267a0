"""What a load test does: the traffic to send, and the run around it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.slo import Slo

__all__ = ["LoadTest", "Traffic"]

DEFAULT_URL: Final = "grpc://127.0.0.1:8001"
MAX_USERS: Final = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """What is sent, and where to: all that an engine process needs to know."""

    model: str
    url: str = DEFAULT_URL
    """``grpc://host:port``, ``grpcs://`` with TLS. A secret in it never reaches a report."""
    version: str | None = None
    """The version to ask for; ``None`` lets the server choose."""
    batch: int = 1
    """Rows per request."""
    golden: Path | None = None
    """A version's ``golden.npz`` with the samples to send; ``None`` sends random ones."""
    check: bool = False
    """Compare every answer with the golden one. It costs the generator CPU time."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of inputs (without the batch) whose dimensions are dynamic, by name."""
    seed: int = 0
    """Of the random samples."""
    timeout_s: float = 10.0
    """After how long a request counts as failed."""

    def __post_init__(self) -> None:
        if not self.model:
            raise InvalidPlan("expected the name of a model, found an empty one")
        if self.batch < 1:
            raise InvalidPlan(f"batch is at least 1 row per request, found {self.batch}")
        check_seconds("timeout_s", self.timeout_s)
        if self.check and self.golden is None:
            raise InvalidPlan("check compares answers with golden ones: name the file that has them (golden)")
        if any(size < 1 for shape in self.shapes.values() for size in shape):
            raise InvalidPlan(f"shapes hold sizes of at least 1, found {dict(self.shapes)}")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {
            "model": self.model,
            "url": self.url,
            "version": self.version,
            "batch": self.batch,
            "golden": None if self.golden is None else str(self.golden),
            "check": self.check,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "seed": self.seed,
            "timeout_s": self.timeout_s,
        }

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` gave."""
        golden, shapes = json["golden"], json["shapes"]
        return cls(
            **{
                **json,
                "golden": None if golden is None else Path(golden),
                "shapes": {name: tuple(shape) for name, shape in shapes.items()},
            }
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadTest(Traffic):
    """A run: what is sent, by how many users, how long, and what it must reach.

    A user is one request in flight: it sends the next one as soon as the last was answered (a closed loop).
    """

    users: int = 64
    spawn_rate: float | None = None
    """Users started per second; ``None`` starts all at once."""
    warmup_s: float = 2.0
    """Sent, but not measured, after the last user started."""
    duration_s: float = 10.0
    """The window that is measured."""
    slos: tuple[Slo, ...] = ()

    def __post_init__(self) -> None:
        Traffic.__post_init__(self)  # super() without arguments finds the class that slots replaced
        if not 1 <= self.users <= MAX_USERS:
            raise InvalidPlan(f"users is 1 to {MAX_USERS} requests in flight, found {self.users}")
        check_seconds("duration_s", self.duration_s)
        if not 0 <= self.warmup_s < math.inf:
            raise InvalidPlan(f"warmup_s is a number of seconds, 0 or more, found {self.warmup_s}")
        if self.spawn_rate is not None and not 0 < self.spawn_rate < math.inf:
            raise InvalidPlan(f"spawn_rate is a number of users per second above 0, found {self.spawn_rate}")

    @property
    def traffic(self) -> Traffic:
        """What an engine has to know of this."""
        return Traffic(**{field.name: getattr(self, field.name) for field in fields(Traffic)})


def check_seconds(name: str, value: float) -> None:
    """Refuse what is no duration."""
    if not 0 < value < math.inf:
        raise InvalidPlan(f"{name} is a number of seconds above 0, found {value}")
