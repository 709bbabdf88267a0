"""What goes on in one Locust process: engines from a test's start to its end, statistics, and the report."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self
from weakref import WeakKeyDictionary

import gevent
import locust
from gevent.event import Event
from gevent.lock import RLock
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner
from locust.stats import StatsError

from naiad.loadtest._engine.messages import Drained, Failed, Interval, Lost, Message, encode_message
from naiad.loadtest._locust.report_link import ReportLink, report_wanted
from naiad.loadtest._locust.senders import Senders
from naiad.loadtest._locust.statistics import METHOD, feed_statistics, keep_microseconds
from naiad.loadtest.errors import LoadTestError

if TYPE_CHECKING:
    from naiad.loadtest._locust.triton_user import TritonUser

__all__ = ["Session"]

_logger = logging.getLogger("naiad.loadtest")
_SEED_STEP: Final = 1000
_DRAIN_S: Final = 12.0


class Session:
    """The engines and the report of one :class:`locust.env.Environment`."""

    _all: ClassVar[WeakKeyDictionary[Environment, Session]] = WeakKeyDictionary()

    def __init__(self, environment: Environment) -> None:
        keep_microseconds()
        self._environment = environment
        self._lock = RLock()
        self._senders: Senders | None = None
        self._failed = False
        self._report: ReportLink | None = None
        self._drained: set[str] = set()
        self._all_drained = Event()
        self._registered = False
        events = environment.events
        events.test_start.add_listener(self._on_test_start)  # type: ignore[no-untyped-call]
        events.test_stop.add_listener(self._on_test_stop)  # type: ignore[no-untyped-call]
        events.quitting.add_listener(self._on_test_stop)  # type: ignore[no-untyped-call]

    @classmethod
    def of(cls, environment: Environment) -> Self:
        """Return the session of an environment."""
        if environment not in cls._all:
            cls._all[environment] = cls(environment)
        found = cls._all[environment]
        assert isinstance(found, cls)
        return found

    def connect(self) -> None:
        """Exchange messages with master or workers; the runner must be there."""
        runner = self._environment.runner
        if self._registered or runner is None:
            return
        self._registered = True
        if isinstance(runner, MasterRunner):
            runner.register_message("naiad-engine", self._on_worker)
        elif isinstance(runner, WorkerRunner):
            runner.register_message("naiad-drain", lambda **_: gevent.spawn(self._close_senders))

    def add_users(self, user_class: type[TritonUser], number: int) -> None:
        """Have more or fewer users of a class; the first one starts the engines where Locust's start did not."""
        with self._lock:  # starting takes a while, and every user asks
            if self._senders is None and number > 0 and not self._failed:
                self._start()
            if self._senders is not None:
                self._senders.add_users(user_class, number)

    @property
    def classes(self) -> list[type[TritonUser]]:
        """The classes of users that are ours."""
        from naiad.loadtest._locust.triton_user import TritonUser

        return [each for each in self._environment.user_classes if issubclass(each, TritonUser)]

    def _on_test_start(self, **_: Any) -> None:
        self.connect()
        self._failed = False
        if not self.classes:
            return
        if isinstance(self._environment.runner, MasterRunner):
            self._drained.clear()
            self._begin_report()
            if self._report is not None:
                self._report.wait()
            return
        with self._lock:
            if self._senders is None:
                self._start()

    def _start(self) -> None:
        runner, classes = self._environment.runner, self.classes
        worker = max(0, getattr(runner, "worker_index", 0))
        try:
            tests = [
                each.test(self._environment, seed_offset=worker * _SEED_STEP + number)
                for number, each in enumerate(classes)
            ]
        except LoadTestError as exc:
            self._give_up(classes[0].__name__, str(exc))
            return
        if not isinstance(runner, WorkerRunner) and not self._begin_report():
            return
        senders = Senders(classes, tests, self._on_message, first_engine=worker * len(classes))
        problem = senders.prepare()
        if problem:
            senders.close()
            self._give_up(tests[0].mix[0].model, problem)
            return
        self._senders = senders
        if self._report is not None:
            self._report.wait()
            self._report.begin(senders.start())
        else:
            senders.start()

    def _begin_report(self) -> bool:
        """Start what makes the report, where one is wanted; return whether the run may go on."""
        if report_wanted(self._environment):
            try:
                self._report = ReportLink(self._environment, self.classes)
            except LoadTestError as exc:
                self._give_up(self.classes[0].__name__, str(exc))
                return False
        return True

    def _on_message(self, user_class: type[TritonUser], message: Message) -> None:
        """Take what an engine of this process says."""
        model = user_class.traffic(self._environment).model
        if isinstance(message, Interval):
            feed_statistics(self._environment.stats, model, message)
        elif isinstance(message, Failed | Lost) and self._senders is not None:
            self._give_up(model, message.message)
        if isinstance(message, Interval | Lost | Failed):
            self._hand_on(encode_message(message).decode())

    def _hand_on(self, line: str) -> None:
        runner = self._environment.runner
        if isinstance(runner, WorkerRunner):
            if report_wanted(self._environment):
                runner.send_message("naiad-engine", {"line": line})
        elif self._report is not None:
            self._report.write(line)

    def _on_worker(self, environment: Environment, msg: Any) -> None:
        """Take what a worker's engine said."""
        if msg.data.get("drained"):
            self._drained.add(msg.node_id)
            self._all_drained.set()
        elif self._report is not None:
            self._report.write(msg.data["line"])

    def _close_senders(self) -> None:
        senders, self._senders = self._senders, None
        if senders is not None:
            senders.close()
        runner = self._environment.runner
        if isinstance(runner, WorkerRunner) and senders is not None and report_wanted(self._environment):
            runner.send_message("naiad-engine", {"drained": True})

    def _on_test_stop(self, **_: Any) -> None:
        runner = self._environment.runner
        if isinstance(runner, MasterRunner):
            self._wait_for_workers(runner)
        else:
            self._close_senders()
        report, self._report = self._report, None
        if report is not None:
            report.write(encode_message(Drained()).decode())
            report.finish()

    def _wait_for_workers(self, runner: MasterRunner) -> None:
        """Have the workers hand over what is in flight: Locust's master is done before they are."""
        if self._report is None:
            return
        waiting = {client.id for client in runner.clients.all if client.state != STATE_MISSING}
        for worker in waiting - self._drained:
            runner.send_message("naiad-drain", client_id=worker)
        with gevent.Timeout(_DRAIN_S, False):
            while not self._drained >= waiting:
                self._all_drained.clear()
                self._all_drained.wait()

    def _give_up(self, name: str, reason: str) -> None:
        """Stop the test: in the web UI it can be started again, without it Locust ends with exit code 1."""
        environment, runner = self._environment, self._environment.runner
        self._failed = True
        key = StatsError.create_key(METHOD, name, reason)
        if key in environment.stats.errors:
            return  # said so already
        _logger.error("%s", reason)
        environment.stats.log_error(METHOD, name, reason)
        environment.process_exit_code = 1
        assert runner is not None
        gevent.spawn(runner.stop if environment.web_ui else runner.quit)


def _on_init(environment: Environment, **_: Any) -> None:
    session = Session.of(environment)
    session.connect()
    if environment.web_ui is not None:
        from naiad.loadtest._locust.report_link import add_page

        add_page(environment)


locust.events.init.add_listener(_on_init)  # type: ignore[no-untyped-call]
