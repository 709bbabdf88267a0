"""Several Tritons that serve one repository, so that one of them can always be away."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Self

from naiad.server import _home, _source
from naiad.server._admission import Admission, Balancer
from naiad.server._embedded import EmbeddedTriton
from naiad.server._options import Company
from naiad.server._private import PrivateDirectory
from naiad.server._running import RunningServer, announce
from naiad.server.errors import InvalidOption, NotRunning, ReplicaLost, RestartUnderWay, ServerError

_log = logging.getLogger("naiad.server")
_ONE_EACH: Final = ("grpc_port", "http_port", "metrics_port")
_DRAIN_S: Final = 30.0
_KILL_S: Final = 5.0
_POLL_S: Final = 0.1
_NOT_RUNNING: Final = "The replicas are not running: call start(), or use this object in a `with` statement."


@dataclass(frozen=True, kw_only=True, slots=True)
class RestartStep:
    """What a rolling restart does now."""

    replica: str
    doing: Literal["draining", "restarting", "checking", "serving"]
    """Waiting for its requests in flight, ending and starting it, asking each model for an inference, done."""
    elapsed_s: float
    """Since the rolling restart began."""


OnStep = Callable[[RestartStep], None]


class Replicas:
    """Embedded Tritons side by side: one repository, one secret, each looked after by a supervisor of its own.

    They start together, and the first that does not ends all. `options` are those of `EmbeddedTriton`, without ports.
    With `watch` they load changed models one after the other, never all at once.

    * `names`: unique names, one for each; by default `main-0`, `main-1`, …
    """

    def __init__(
        self, repository: str | Path, *, num_replicas: int = 2, names: Sequence[str] | None = None, **options: Any
    ) -> None:
        names = [f"main-{number}" for number in range(num_replicas)] if names is None else list(names)
        if num_replicas < 1 or len(set(names)) != num_replicas:
            raise InvalidOption(f"Expected {max(1, num_replicas)} different names of replicas, found {list(names)}.")
        if any(options.pop(name, 0) for name in _ONE_EACH) and num_replicas > 1:
            raise InvalidOption("Expected no named ports for several replicas, which take free ones.")
        found = _source.parse(repository)
        self.repository = found.absolute() if isinstance(found, Path) else found
        self.admin_secret: str = options.pop("admin_secret", None) or secrets.token_urlsafe(24)
        self._restarting = threading.Lock()
        self._home: Path | None = options.get("home")
        log_path = options.pop("log_path", None)
        turn = threading.Lock()
        self._servers: dict[str, EmbeddedTriton] = {}
        self._admission = Admission(self._servers)
        for name in names:
            path = Path(log_path) if log_path else None
            own = path.with_stem(f"{path.stem}-{name}") if path and num_replicas > 1 else path
            server = EmbeddedTriton(repository, admin_secret=self.admin_secret, log_path=own, **options)
            server._company = Company(turn=turn, tell=partial(self._admission.told, name))
            self._servers[name] = server
        self._private: PrivateDirectory | None = None

    @property
    def servers(self) -> Mapping[str, EmbeddedTriton]:
        """The replicas by name; one that was lost is not running."""
        return MappingProxyType(self._servers)

    @property
    def failures(self) -> Mapping[str, ServerError]:
        """Why replicas that do not serve any more do not: their supervisor gave up, or they were lost at a restart."""
        return {name: failure for name, server in self._servers.items() if (failure := _failure(server)) is not None}

    @property
    def failure(self) -> ServerError | None:
        """Why no replica serves any more; None as long as one of them does."""
        failures = self.failures
        return next(iter(failures.values())) if len(failures) == len(self._servers) else None

    @property
    def directory(self) -> Path:
        """A directory for files of this run: for this user only, and removed with it, also after kill -9."""
        if self._private is None:
            raise NotRunning(_NOT_RUNNING)
        return self._private.path

    def start(self) -> Self:
        """Start all of them and return when all are ready.

        Raises: the first `ServerError` of one of them; nothing is left behind then.
        """
        if self._private is None:
            # Once and here: what is not there is fetched, with a progress bar.
            _home.find(self._home)
            _home.find_numpy()
            self._private = PrivateDirectory()
            starts = _begin([server.start for server in self._servers.values()])
            try:
                _await(starts)
            except BaseException:
                for server in self._servers.values():
                    server._stopping.set()
                wait(starts)
                self.kill()
                raise
        return self

    def stop(self) -> None:
        """Let requests in flight finish and end all of them, side by side; without effect if they are stopped."""
        self._admission.balancer = None
        running = [server._running for server in self._servers.values()]
        stops = _begin([server.stop for server in self._servers.values()])
        try:
            wait(stops)
            _await(stops)
        finally:
            # Nothing to kill, unless we were interrupted.
            for server in running:
                if server is not None:
                    server.process.kill()
            wait(stops, timeout=_KILL_S)
            private, self._private = self._private, None
            if private is not None:
                private.remove()

    def kill(self) -> None:
        """End all of them at once, with what they are doing."""
        for server in self._servers.values():
            if server._running is not None:
                server._running.stopping.set()
                server._running.process.kill()
        self.stop()

    def announce(self, running: RunningServer) -> None:
        """Let `find_running` of other processes of this user find what runs here, until it stops."""
        if self._private is None:
            raise NotRunning(_NOT_RUNNING)
        self._private.claim(state_files=[str(announce(running))])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def attach(self, balancer: Balancer) -> None:
        """Have `balancer` leave out a replica as long as a process of its is dead, unless it is the last one."""
        self._admission.balancer = balancer

    def rolling_restart(
        self, balancer: Balancer, on_progress: OnStep | None = None, *, drain_timeout_s: float = _DRAIN_S
    ) -> None:
        """Restart one after the other on the same ports: drained first, admitted again when its models answer.

        Requests that are in flight when `drain_timeout_s` is over get the server's own `drain_timeout_s` in addition.
        A replica that was lost before is started, too.

        Raises:
            ReplicaLost: one did not come back. It stays out, those after it were not touched, and the others serve.
            RestartUnderWay: there is one already.
        """
        if not self._restarting.acquire(blocking=False):
            raise RestartUnderWay("A rolling restart is under way already. Wait for its end, then ask again.")
        began = time.monotonic()
        try:
            # Those that do not serve first: the others must not leave before they are back.
            for name in sorted(self._servers, key=lambda name: name in self._admission.serving):

                def report(doing: Any, name: str = name) -> None:
                    if on_progress is not None:
                        on_progress(RestartStep(replica=name, doing=doing, elapsed_s=time.monotonic() - began))

                self._restart(name, balancer, report, drain_timeout_s)
        finally:
            self._restarting.release()

    def _restart(self, name: str, balancer: Balancer, report: Callable[[str], None], drain_timeout_s: float) -> None:
        server = self._servers[name]
        self._await_others(name, drain_timeout_s)
        self._admission.hold(name)
        report("draining")
        self._drain(name, balancer, drain_timeout_s)
        try:
            report("restarting")
            server.restart()
            report("checking")
            server._check()
        except ServerError as exc:
            raise self._lost(name, exc) from exc
        self._admission.release(name)
        balancer.admit(name)
        report("serving")

    def _drain(self, name: str, balancer: Balancer, timeout_s: float) -> None:
        try:
            if not balancer.drain(name, timeout_s):
                _log.warning("Replica %s still has requests after %.0f s; they may finish", name, timeout_s)
        except BaseException:
            # Nothing has happened to it yet.
            self._admission.release(name)
            with suppress(Exception):
                balancer.admit(name)
            raise

    def _await_others(self, name: str, timeout_s: float) -> None:
        """Wait for others that are being repaired; those that were lost are not waited for, but restarted first."""
        deadline = time.monotonic() + timeout_s
        while others := self._admission.unfit - {name}:
            if time.monotonic() > deadline:
                raise ReplicaLost(
                    f"Expected {', '.join(sorted(others))} to be repaired within {timeout_s:g} s before {name} is "
                    "restarted, and the rolling restart ended there. Look at the log, then restart again.",
                    replica=min(others),
                )
            time.sleep(_POLL_S)

    def _lost(self, name: str, why: ServerError) -> ReplicaLost:
        others = ", ".join(self._admission.serving) or "no other"
        return ReplicaLost(
            f"Replica {name} did not come back from its restart, and the rolling restart ended there; {others} serve. "
            f"Repair what is wrong, then restart again. It said: {why}",
            replica=name,
        )


def _failure(server: EmbeddedTriton) -> ServerError | None:
    try:
        return server.failure
    except NotRunning as exc:
        return exc


def _begin(works: Sequence[Callable[[], object]]) -> list[Future[object]]:
    """Do all at once, in threads that nobody who is interrupted has to wait for."""
    futures: list[Future[object]] = []
    for work in works:
        future: Future[object] = Future()
        threading.Thread(target=_do, args=(work, future), daemon=True).start()
        futures.append(future)
    return futures


def _await(futures: Sequence[Future[object]]) -> None:
    """Return when all are done, and raise at once what the first that failed did."""
    done = wait(futures, return_when=FIRST_EXCEPTION).done
    for future in done:
        future.result()


def _do(work: Callable[[], object], future: "Future[object]") -> None:
    try:
        result = work()
    except BaseException as exc:  # noqa: BLE001 - it is the waiting thread's
        with suppress(Exception):
            future.set_exception(exc)
    else:
        future.set_result(result)
