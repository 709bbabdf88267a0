"""What a load test does: what is sent, how it arrives, where it goes, how long, and what it must reach."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.slo import Slo

__all__ = [
    "Connection",
    "Data",
    "Files",
    "Golden",
    "Load",
    "LoadTest",
    "Precision",
    "Rate",
    "Sequence",
    "Synthetic",
    "Trace",
    "Traffic",
    "Users",
]

DEFAULT_URL: Final = "grpc://127.0.0.1:8001"
MAX_USERS: Final = 20_000
MAX_RATE_PER_S: Final = 1_000_000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """The server, and what it takes to be let in. Nothing of it but scheme, host and port reaches a report."""

    url: str = DEFAULT_URL
    """``grpc://host:port``, or ``grpcs://`` with TLS."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request, such as an API key; lower-case names."""
    ca: Path | None = None
    """PEM file of the authorities to trust; ``None`` trusts the system's."""
    certificate: Path | None = None
    """PEM file of the client's own certificate, where the server asks for one."""
    key: Path | None = None
    metrics_url: str | None = None
    """Triton's metrics, such as ``http://host:8002/metrics``: shows the GPUs of a server on another machine."""
    statistics_url: str | None = None
    """The servers behind a gateway, as ``grpc://host:port,host:port``, whose statistics are added up: the gateway
    would answer for one of them at a time. ``None`` asks at ``url``."""

    def __post_init__(self) -> None:
        if self.metrics_url is not None and not self.metrics_url.startswith(("http://", "https://")):
            raise InvalidPlan(f"metrics_url begins with http:// or https://, found {self.metrics_url!r}")
        if (self.certificate is None) != (self.key is None):
            raise InvalidPlan("a client's certificate and its key go together: give both, or none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Synthetic:
    """Random samples made from the model's metadata."""

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of inputs (without the batch) whose dimensions are dynamic, by name."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Smallest and largest value of an input, both included, by name."""
    string_lengths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Fewest and most characters of the strings of an input, by name."""
    num_samples: int = 64
    """How many different requests there are at most; large ones are fewer."""

    def __post_init__(self) -> None:
        if any(size < 1 for shape in self.shapes.values() for size in shape):
            raise InvalidPlan(f"shapes hold sizes of at least 1, found {dict(self.shapes)}")
        for name, (low, high) in (*self.ranges.items(), *self.string_lengths.items()):
            if not low <= high:
                raise InvalidPlan(f"a range goes from small to large, found {low} to {high} ({name})")
        if any(low < 0 for low, _ in self.string_lengths.values()):
            raise InvalidPlan(f"lengths of strings are 0 or more, found {dict(self.string_lengths)}")
        if self.num_samples < 1:
            raise InvalidPlan(f"num_samples is at least 1, found {self.num_samples}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden:
    """The samples that a version was verified with, and the outputs it gave."""

    path: Path
    """A version's ``golden.npz``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """Samples of one's own: a directory, or one file, of ``.npy``, ``.npz``, images or JSON lines."""

    path: Path
    input: str | None = None
    """The input that files without names in them (``.npy``, images) are for; ``None`` where the model has one only."""


Data = Synthetic | Golden | Files


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequence:
    """Requests that belong together, for stateful models: each one goes to the instance that had the one before."""

    length: tuple[int, int] = (10, 10)
    """Fewest and most requests of a sequence, both included."""
    pause_s: float = 0.0
    """Between an answer and the next request of the sequence."""

    def __post_init__(self) -> None:
        if not 1 <= self.length[0] <= self.length[1]:
            raise InvalidPlan(f"a sequence has at least 1 request, and at most as many as it says, found {self.length}")
        if not 0 <= self.pause_s < math.inf:
            raise InvalidPlan(f"pause_s is a number of seconds, 0 or more, found {self.pause_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """The requests to one model."""

    model: str
    version: str | None = None
    """The version to ask for; ``None`` lets the server choose."""
    weight: float = 1.0
    """Share of the arrivals, against the weights of the other models in the mix."""
    batch: int = 1
    """Rows per request."""
    data: Data = field(default_factory=Synthetic)
    check: bool = False
    """Compare every answer with the expected outputs of its sample. It costs the generator CPU time."""
    shared_memory: bool = False
    """Inputs and outputs through system shared memory; the server runs on this machine."""
    sequence: Sequence | None = None
    stream: bool = False
    """Over a gRPC stream; needed by decoupled models, which give any number of responses to a request."""
    timeout_s: float = 10.0
    """After how long a request counts as failed."""

    def __post_init__(self) -> None:
        if not self.model:
            raise InvalidPlan("expected the name of a model, found an empty one")
        if self.batch < 1:
            raise InvalidPlan(f"batch is at least 1 row per request, found {self.batch}")
        if not 0 < self.weight < math.inf:
            raise InvalidPlan(f"weight is a number above 0, found {self.weight}")
        check_seconds("timeout_s", self.timeout_s)
        if self.check and isinstance(self.data, Synthetic):
            raise InvalidPlan("check compares answers with expected ones: give data that has outputs (golden or files)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Users:
    """A closed loop: a user is one request in flight, and sends the next one as soon as the last was answered."""

    users: int = 64
    spawn_rate: float | None = None
    """Users started per second; ``None`` starts all at once."""

    def __post_init__(self) -> None:
        if not 1 <= self.users <= MAX_USERS:
            raise InvalidPlan(f"users is 1 to {MAX_USERS} requests in flight, found {self.users}")
        if self.spawn_rate is not None and not 0 < self.spawn_rate < math.inf:
            raise InvalidPlan(f"spawn_rate is a number of users per second above 0, found {self.spawn_rate}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """An open loop: requests arrive on a schedule, whether or not the server keeps up."""

    per_s: float
    arrivals: Literal["poisson", "constant"] = "poisson"
    """Independent arrivals (exponential gaps), or one every ``1 / per_s`` seconds."""
    max_in_flight: int = 10_000
    """What arrives beyond it is not sent, and counts as failed (``NotSent``)."""

    def __post_init__(self) -> None:
        if not 0 < self.per_s <= MAX_RATE_PER_S:
            raise InvalidPlan(f"a rate is a number of requests per second, above 0, found {self.per_s}")
        if self.arrivals not in ("poisson", "constant"):
            raise InvalidPlan(f"arrivals are 'poisson' or 'constant', found {self.arrivals!r}")
        _check_in_flight(self.max_in_flight)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """An open loop that replays recorded arrivals: a file with a time stamp in seconds on each line."""

    path: Path
    speed: float = 1.0
    """2 replays twice as fast."""
    max_in_flight: int = 10_000

    def __post_init__(self) -> None:
        if not 0 < self.speed < math.inf:
            raise InvalidPlan(f"speed is a number above 0, found {self.speed}")
        _check_in_flight(self.max_in_flight)


Load = Users | Rate | Trace


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """How well a percentile must be known before a run may end."""

    percentile: float = 99.0
    within: float = 0.05
    """Half the width of the 95 % confidence interval, as a fraction of the percentile."""

    def __post_init__(self) -> None:
        if not 0 < self.percentile < 100:
            raise InvalidPlan(f"a percentile lies between 0 and 100, found {self.percentile}")
        if not 0 < self.within < 1:
            raise InvalidPlan(f"within is a fraction like 0.05, found {self.within}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadTest:
    """A run: what is sent, how it arrives, how long, and what it must reach."""

    traffic: tuple[Traffic, ...] | Traffic
    """One model's requests, or a mix of several."""
    load: Load = field(default_factory=Users)
    connection: Connection = field(default_factory=Connection)
    warmup_s: float | None = None
    """Sent, but not measured; ``None`` finds out when the run is steady."""
    max_warmup_s: float = 30.0
    """Where warm-up is found out: after this long the measurement begins, steady or not, and the report says so."""
    duration_s: float = 10.0
    """The window that is measured; with ``precision``, the shortest one."""
    precision: Precision | None = None
    """Measure until a percentile is known this well; ``None`` measures ``duration_s``."""
    max_duration_s: float = 300.0
    """With ``precision``: the longest window, after which the report says that it was not reached."""
    slos: tuple[Slo, ...] = ()
    engines: int = 1
    """Processes that send."""
    transport: Literal["http2", "grpcio"] = "http2"
    """Our own HTTP/2 connection, which costs little CPU time, or the gRPC library's."""
    connections: int = 1
    """Connections of each engine."""
    realtime: bool = False
    """Have the engines run before all ordinary processes of their machine (Linux; needs root or CAP_SYS_NICE), so that
    a server beside them cannot delay them: it then has what they leave."""
    seed: int = 0
    """Of the samples and the arrivals."""
    price_per_hour: float | None = None
    """Of the server, in any currency; the report then has the cost per million requests."""
    name: str = ""
    """What the report calls this run."""

    def __post_init__(self) -> None:
        traffic = self.traffic
        object.__setattr__(self, "traffic", (traffic,) if isinstance(traffic, Traffic) else tuple(traffic))
        if not self.mix:
            raise InvalidPlan("expected requests to at least one model, found none")
        check_seconds("duration_s", self.duration_s)
        check_seconds("max_duration_s", self.max_duration_s)
        check_seconds("max_warmup_s", self.max_warmup_s)
        if self.warmup_s is not None and not 0 <= self.warmup_s < math.inf:
            raise InvalidPlan(f"warmup_s is a number of seconds, 0 or more, found {self.warmup_s}")
        if self.precision is not None and self.max_duration_s < self.duration_s:
            raise InvalidPlan(
                f"max_duration_s is at least duration_s ({self.duration_s:g}), found {self.max_duration_s:g}"
            )
        for name, value in (("engines", self.engines), ("connections", self.connections)):
            if not 1 <= value <= 256:
                raise InvalidPlan(f"{name} is 1 to 256, found {value}")
        if self.transport not in ("http2", "grpcio"):
            raise InvalidPlan(f"transport is 'http2' or 'grpcio', found {self.transport!r}")
        if self.price_per_hour is not None and not 0 < self.price_per_hour < math.inf:
            raise InvalidPlan(f"price_per_hour is a number above 0, found {self.price_per_hour}")

    @property
    def mix(self) -> tuple[Traffic, ...]:
        """``traffic`` as the tuple that it always is."""
        assert isinstance(self.traffic, tuple)
        return self.traffic

    @property
    def open_loop(self) -> bool:
        """Whether requests arrive on a schedule, and not when a user is free."""
        return not isinstance(self.load, Users)


def check_seconds(name: str, value: float) -> None:
    """Refuse what is no duration."""
    if not 0 < value < math.inf:
        raise InvalidPlan(f"{name} is a number of seconds above 0, found {value}")


def _check_in_flight(number: int) -> None:
    if number < 1:
        raise InvalidPlan(f"max_in_flight is at least 1, found {number}")
