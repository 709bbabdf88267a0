"""Locust's side: users who each keep one request in flight, sent by an engine process that knows no gevent.

Locust starts and stops the users (command line, web UI, shapes, workers) and shows the statistics; the requests leave
from the engine, which hands over what ended four times a second. Importing this module imports Locust, which patches
the standard library for gevent: nothing but a locustfile and the conductor does that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import gevent
from gevent.lock import RLock
from locust import User, constant, task
from locust.env import Environment
from locust.event import Events
from locust.stats import RequestStats, StatsEntry, StatsError

from naiad.loadtest._engine_link import EngineLink
from naiad.loadtest.errors import InvalidPlan, LoadTestError
from naiad.loadtest.measurement import Interval
from naiad.loadtest.messages import Closed, EngineMessage, Failed, Lost
from naiad.loadtest.plan import DEFAULT_URL, Traffic

__all__ = ["Sender", "TritonUser", "add_options", "feed_statistics", "give_up", "sender_of"]

_logger = logging.getLogger("naiad.loadtest")
_METHOD = "grpc"
_A_DAY_S = 86_400


class TritonUser(User):
    """A Locust user who keeps one request in flight to a model on Triton.

    Say what to send with the class attributes; ``host`` is the server's URL. Options of the command line or the web UI
    (:func:`add_options`) go before the attributes.
    """

    abstract = True
    wait_time = constant(_A_DAY_S)

    host: str | None = DEFAULT_URL
    model: ClassVar[str] = ""
    model_version: ClassVar[str | None] = None
    batch: ClassVar[int] = 1
    golden: ClassVar[str | None] = None
    check: ClassVar[bool] = False
    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}
    seed: ClassVar[int] = 0
    timeout_s: ClassVar[float] = 10.0

    @classmethod
    def traffic(cls, environment: Environment) -> Traffic:
        """Return what users of this class send.

        Raises:
            InvalidPlan: the class's attributes, or the options of the command line or web UI, make no traffic.
        """
        options = environment.parsed_options

        def given(name: str) -> Any:
            value = getattr(options, name, None)
            return getattr(cls, name) if value in (None, "") else value

        golden = given("golden")
        return Traffic(
            model=given("model"),
            url=environment.host or given("host"),
            version=given("model_version"),
            batch=_integer("batch", given("batch")),
            golden=Path(golden) if golden else None,
            check=bool(given("check")),
            shapes=cls.shapes,
            seed=_integer("seed", given("seed")),
            timeout_s=cls.timeout_s,
        )

    @task
    def hold(self) -> None:
        """Do nothing: this user's requests leave from the engine."""

    def on_start(self) -> None:
        """Have one request more in flight."""
        try:
            self._sender = sender_of(self.environment, type(self))
        except LoadTestError as exc:
            give_up(self.environment, type(self).__name__, str(exc))
            return
        self._sender.link.add_users(1)

    def on_stop(self) -> None:
        """Have one request fewer in flight."""
        sender: Sender | None = getattr(self, "_sender", None)
        if sender is not None:
            sender.link.add_users(-1)


def _integer(name: str, value: Any) -> int:
    """Read a number that the web UI may hand over as text."""
    try:
        return int(value)
    except ValueError as exc:
        raise InvalidPlan(f"{name} is a whole number, found {value!r}") from exc


def add_options(events: Events) -> None:
    """Give Locust's command line and web UI the options of :class:`TritonUser`."""
    events.init_command_line_parser.add_listener(_add_options)  # type: ignore[no-untyped-call]


def _add_options(parser: Any, **_: Any) -> None:
    group = parser.add_argument_group("Naiad")
    group.add_argument("--model", default="", env_var="NAIAD_MODEL", help="The model's name on the server")
    group.add_argument("--model-version", default="", help="A version; by default the server chooses")
    group.add_argument("--batch", type=int, help="Rows per request")
    group.add_argument("--golden", default="", help="Send the samples of this golden.npz, not random ones")
    group.add_argument("--check", action="store_true", help="Compare every answer with the golden one")
    group.add_argument("--seed", type=int, help="Of the random samples")


class Sender:
    """The engine of one class of users in one Locust process, and the greenlet that reads from it."""

    def __init__(self, traffic: Traffic, on_message: Callable[[EngineMessage], None]) -> None:
        self._on_message = on_message
        self._closing = False
        self.link = EngineLink(traffic)
        self.reader = gevent.spawn(self._read)

    def close(self) -> None:
        """End the engine."""
        self._closing = True
        self.link.close()
        self.reader.join()

    def _read(self) -> None:
        exit_code = self.link.read(self._hand_out)
        if exit_code and not self._closing:
            self._on_message(Failed(message=f"the engine process ended unexpectedly (exit code {exit_code})"))

    def _hand_out(self, message: EngineMessage) -> None:
        self._closing |= isinstance(message, Failed | Closed)
        self._on_message(message)


_senders: WeakKeyDictionary[Environment, dict[type[TritonUser], Sender]] = WeakKeyDictionary()
_starting = RLock()  # starting a process lets other greenlets run, and each user asks for the engine


def sender_of(
    environment: Environment,
    user_class: type[TritonUser],
    on_message: Callable[[EngineMessage], None] | None = None,
) -> Sender:
    """Return the engine of ``user_class``, started when it is asked for first and ended when the test stops.

    ``on_message`` takes what the engine says; by default Locust's statistics do.

    Raises:
        InvalidPlan: the class's attributes, or the options, make no traffic.
    """
    with _starting:
        if environment not in _senders:
            _senders[environment] = {}
            for event in (environment.events.test_stop, environment.events.quitting):
                event.add_listener(_close_all)  # type: ignore[no-untyped-call]
        senders = _senders[environment]
        if user_class not in senders:
            traffic = user_class.traffic(environment)
            senders[user_class] = Sender(traffic, on_message or partial(_tell_locust, environment, traffic.model))
        return senders[user_class]


def _close_all(environment: Environment, **_: Any) -> None:
    senders = _senders.get(environment, {})
    while senders:
        senders.popitem()[1].close()


def _tell_locust(environment: Environment, model: str, message: EngineMessage) -> None:
    if isinstance(message, Interval):
        feed_statistics(environment.stats, model, message)
    elif isinstance(message, Failed | Lost):
        give_up(environment, model, message.message)


def give_up(environment: Environment, name: str, reason: str) -> None:
    """Stop the test: in the web UI it can be started again, without it Locust ends with exit code 1."""
    key = StatsError.create_key(_METHOD, name, reason)
    if key in environment.stats.errors:
        return  # another user said so already
    _logger.error("%s", reason)
    environment.stats.log_error(_METHOD, name, reason)
    environment.process_exit_code = 1
    runner = environment.runner
    assert runner is not None
    gevent.spawn(runner.stop if environment.web_ui else runner.quit)


def feed_statistics(statistics: RequestStats, name: str, interval: Interval) -> None:
    """Add an interval to Locust's statistics, in its milliseconds, as if each request had been logged."""
    now_s = time.time()
    for entry in (statistics.total, statistics.get(name, _METHOD)):
        _feed_entry(entry, interval, now_s)
    for error, number in interval.errors.items():
        text = interval.examples.get(error, error)
        found = statistics.errors.setdefault(
            StatsError.create_key(_METHOD, name, text), StatsError(_METHOD, name, text)
        )
        found.occurrences += number


def _feed_entry(entry: StatsEntry, interval: Interval, now_s: float) -> None:
    batch: Any = StatsEntry(RequestStats(use_response_times_cache=False), entry.name, entry.method)
    failed = sum(interval.errors.values())
    batch.start_time = entry.start_time
    batch.num_requests = interval.latencies.count + failed
    batch.num_none_requests = batch.num_failures = failed
    if not batch.num_requests:
        return
    batch.last_request_timestamp = now_s
    batch.num_reqs_per_sec[int(now_s)] = batch.num_requests
    batch.num_fail_per_sec[int(now_s)] = failed
    for latency_us, number in interval.latencies.counts():
        latency_ms = latency_us / 1000
        batch.total_response_time += latency_ms * number
        batch.response_times[_rounded(latency_ms)] += number
        batch.min_response_time = latency_ms if batch.min_response_time is None else batch.min_response_time
        batch.max_response_time = latency_ms
    entry.extend(batch)


def _rounded(latency_ms: float) -> float:
    """Keep two digits, for the web UI's percentiles; the reports of this package come from the histogram instead."""
    return float(f"{latency_ms:.2g}")
