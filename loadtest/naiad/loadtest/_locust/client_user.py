"""Users for locustfiles that call ``naiad.client`` in ordinary Locust tasks.

They can do anything a program can do, and cost what a program costs: some hundred microseconds of one core for every
call, so that a few thousand calls per second are a process's limit. What is only load is :class:`TritonUser`'s.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import locust
from locust import User
from locust.env import Environment

from naiad.client import CallInfo, Client, ClientError, Retry, Timing
from naiad.loadtest._locust.own_share import OwnShare, tell
from naiad.loadtest._locust.statistics import METHOD, keep_microseconds
from naiad.loadtest.plan import DEFAULT_URL

__all__ = ["ClientUser"]

_INFERENCES: Final = frozenset({"ModelInfer", "ModelStreamInfer"})
"""What is counted under the model's name; other calls have their own lines."""


class ClientUser(User):
    """A Locust user with ``self.client``, a :class:`naiad.client.Client` whose calls are Locust's requests.

    ::

        class Caller(ClientUser):
            wait_time = constant(0.1)

            def on_start(self):
                self.digits = self.client.model("digits")  # a handle asks the server about the model once

            @task
            def classify(self):
                self.digits(images=self.image)

    All users of a process share one client, which is closed when the test stops. Failed calls are counted by Locust and
    raised: catch :class:`naiad.client.ClientError` to go on within a task.
    """

    abstract = True
    host: str | None = DEFAULT_URL
    client_options: ClassVar[Mapping[str, Any]] = {}
    """Keyword arguments of the client; without any there are no retries, so that every attempt is counted."""
    client: Client

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.client = _Clients.of(environment).client(self.host or DEFAULT_URL, self.client_options)


class _Clients:
    """The clients of one Locust process, and what they cost it."""

    def __init__(self, environment: Environment) -> None:
        keep_microseconds()
        self._environment = environment
        self._clients: dict[tuple[str, int], Client] = {}
        self._share: OwnShare | None = None
        environment.events.test_stop.add_listener(self._close)  # type: ignore[no-untyped-call]
        environment.events.quitting.add_listener(self._quit)  # type: ignore[no-untyped-call]

    @classmethod
    def of(cls, environment: Environment) -> _Clients:
        found: _Clients | None = getattr(environment, "naiad_clients", None)
        if found is None:
            found = cls(environment)
            environment.naiad_clients = found  # type: ignore[attr-defined]
        return found

    def client(self, url: str, options: Mapping[str, Any]) -> Client:
        key = (url, id(options))
        if self._share is None:
            self._share = OwnShare()
        if key not in self._clients:
            settings = {"retry": Retry(attempts=1), **options}
            observers = [*settings.pop("observers", ()), _Observer(self._environment)]
            self._clients[key] = Client(url, observers=observers, **settings)
        return self._clients[key]

    def _quit(self, **_: Any) -> None:
        """Have the users stop before their client is closed: a signal ends Locust without that."""
        runner = self._environment.runner
        if self._clients and runner is not None:
            runner.stop()
        self._close()

    def _close(self, **_: Any) -> None:
        """Close the channels now: left to the interpreter's end, they would wait for ever under gevent."""
        while self._clients:
            self._clients.popitem()[1].close()
        share, self._share = self._share, None
        if share is not None:
            tell(share.finish(), self._environment.stats.total.avg_response_time)


class _Observer:
    """Tells Locust of every call."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def call(self, info: CallInfo) -> _Observation:
        model = info.model or "server"
        name = model if info.method in _INFERENCES else f"{model}: {info.method}"
        return _Observation(self._environment, name)


class _Observation:
    __slots__ = ("_began_s", "_environment", "_name")

    def __init__(self, environment: Environment, name: str) -> None:
        self._environment, self._name = environment, name
        self._began_s = time.perf_counter()

    def attempt(self, endpoint: str, number: int) -> Mapping[str, str]:
        return {}

    def attempt_failed(self, error: ClientError) -> None:
        """Nothing: the call's end says it."""

    def done(self, timing: Timing, response_bytes: int, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, Exception):
            return  # the user was stopped in the middle of the call
        events: Any = self._environment.events
        events.request.fire(
            request_type=METHOD,
            name=self._name,
            response_time=(time.perf_counter() - self._began_s) * 1000,
            response_length=response_bytes,
            exception=error,
            context={},
        )


def _on_init(environment: Environment, **_: Any) -> None:
    keep_microseconds()


locust.events.init.add_listener(_on_init)  # type: ignore[no-untyped-call]
