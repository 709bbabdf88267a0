"""Users for locustfiles whose requests leave from an engine process that knows no gevent.

Locust starts and stops the users (command line, web UI, shapes, workers) and shows the statistics. Importing this
module imports Locust, which patches the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from locust import User, constant, task
from locust.env import Environment

from naiad.loadtest._locust.session import Session
from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.plan import (
    DEFAULT_URL,
    Connection,
    Data,
    Files,
    Golden,
    Load,
    LoadTest,
    Rate,
    Sequence,
    Synthetic,
    Traffic,
    Users,
)

__all__ = ["TritonUser"]

_A_DAY_S = 86_400


class TritonUser(User):
    """A Locust user who keeps one request in flight to a model on Triton, or sends ``rate`` requests per second.

    Say what to send with the class attributes; ``host`` is the server's URL. Options of the command line or the web UI
    (:func:`naiad.loadtest.add_options`) go before the attributes.
    """

    abstract = True
    wait_time = constant(_A_DAY_S)

    host: str | None = DEFAULT_URL
    model: ClassVar[str] = ""
    model_version: ClassVar[str | None] = None
    batch: ClassVar[int] = 1
    data: ClassVar[Data | str | None] = None
    """What to send: random values by default; a path stands for :class:`naiad.loadtest.Files`."""
    golden: ClassVar[str | None] = None
    """A version's ``golden.npz``: the samples it was verified with."""
    check: ClassVar[bool] = False
    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}
    stream: ClassVar[bool] = False
    sequence: ClassVar[Sequence | None] = None
    shared_memory: ClassVar[bool] = False
    rate_per_user: ClassVar[float | None] = None
    """An open loop: N users send N times as many requests per second, whether or not the server keeps up."""
    arrivals: ClassVar[Literal["poisson", "constant"]] = "poisson"
    headers: ClassVar[Mapping[str, str]] = {}
    seed: ClassVar[int] = 0
    timeout_s: ClassVar[float] = 10.0
    transport: ClassVar[Literal["http2", "grpcio"]] = "http2"

    @classmethod
    def traffic(cls, environment: Environment) -> Traffic:
        """Return what users of this class send.

        Raises:
            InvalidPlan: the class's attributes, or the options of the command line or web UI, make no traffic.
        """
        return Traffic(
            model=cls._given(environment, "model"),
            version=cls._given(environment, "model_version"),
            batch=_number("batch", cls._given(environment, "batch"), int),
            data=cls._data(environment),
            check=bool(cls._given(environment, "check")),
            stream=cls.stream,
            sequence=cls.sequence,
            shared_memory=cls.shared_memory,
            timeout_s=cls.timeout_s,
        )

    @classmethod
    def load(cls, environment: Environment, num_users: int = 1) -> Load:
        """Return the load of ``num_users`` users of this class."""
        rate = cls._given(environment, "rate_per_user")
        if rate is None:
            return Users(users=num_users)
        return Rate(per_s=_number("rate_per_user", rate, float) * num_users, arrivals=cls.arrivals)

    @classmethod
    def test(cls, environment: Environment, *, seed_offset: int = 0) -> LoadTest:
        """Return the part of the test that users of this class are."""
        seed = _number("seed", cls._given(environment, "seed"), int)
        return LoadTest(
            traffic=cls.traffic(environment),
            load=cls.load(environment),
            connection=Connection(url=environment.host or cls._given(environment, "host"), headers=cls.headers),
            seed=seed + seed_offset,
            transport=cls.transport,
        )

    @classmethod
    def _data(cls, environment: Environment) -> Data:
        golden, data = cls._given(environment, "golden"), cls._given(environment, "data")
        if golden:
            return Golden(path=Path(golden))
        if isinstance(data, str):
            return Files(path=Path(data))
        return data or Synthetic(shapes=cls.shapes)

    @classmethod
    def _given(cls, environment: Environment, name: str) -> Any:
        value = getattr(environment.parsed_options, name, None)
        return getattr(cls, name) if value in (None, "", False) else value

    @task
    def hold(self) -> None:
        """Do nothing: this user's requests leave from the engine."""

    def on_start(self) -> None:
        """Have one request more in flight, or a higher rate."""
        Session.of(self.environment).add_users(type(self), 1)

    def on_stop(self) -> None:
        """Have one request fewer in flight, or a lower rate."""
        Session.of(self.environment).add_users(type(self), -1)


def _number(name: str, value: Any, kind: type[int] | type[float]) -> Any:
    """Read a number that the web UI may hand over as text."""
    try:
        return kind(value)
    except ValueError as exc:
        raise InvalidPlan(f"{name} is a {'whole ' if kind is int else ''}number, found {value!r}") from exc
