"""The gateway as an object: the real Envoy, which lives as long as a `with` block."""

import contextlib
import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from naiad.deploy._envoy.admin import AdminUnreachable
from naiad.deploy._envoy.options import Options
from naiad.deploy._envoy.run import Run, changed
from naiad.deploy._envoy.running import RunningGateway as RunningGateway
from naiad.deploy._envoy.running import running_gateways as running_gateways
from naiad.deploy._envoy.status import GatewayStatus as GatewayStatus
from naiad.deploy._envoy.status import ReplicaStatus as ReplicaStatus
from naiad.deploy._envoy.status import read_status
from naiad.deploy.errors import GatewayError
from naiad.deploy.place import Endpoint
from naiad.deploy.service import Service

_log = logging.getLogger("naiad.deploy")
_POLL_S: Final = 0.02
_QUIET_LOOKS: Final = 3


class Gateway:
    """A service's gateway on this machine, in front of replicas that run already.

    It serves when `start()` (or entering the `with` block) returns, is restarted when it dies, and leaves nothing
    behind when it stops, also if this process is killed. Ports of 0 are chosen freely.

    * `endpoints`: the replicas of each pool of the service.
    * `secrets`: the directory with `api-keys`, `tls.crt` and the others; None where the service needs none of them.
      Keys and certificates that are replaced there count at once.
    * `host`: the address it listens at, for callers and for metrics.
    * `access_log`: where each request gets its line of JSON (appended); None for nowhere.
    * `envoy`: the program; None for the installed one.
    * `collector`: host and port of an OpenTelemetry collector.
    * `ready_timeout_s`, `drain_timeout_s`: how long to wait for the start, and for requests in flight at the stop.
    * `num_threads`: threads that serve; None for one a core.
    """

    def __init__(
        self,
        service: Service,
        *,
        endpoints: Mapping[str, Sequence[Endpoint]],
        secrets: str | os.PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        metrics_port: int = 0,
        access_log: str | os.PathLike[str] | None = None,
        envoy: str | os.PathLike[str] | None = None,
        collector: tuple[str, int] | None = None,
        ready_timeout_s: float = 30.0,
        drain_timeout_s: float = 10.0,
        num_threads: int | None = None,
    ) -> None:
        self._running: Run | None = None
        self._options = Options(
            service=service,
            endpoints={pool: tuple(members) for pool, members in endpoints.items()},
            secrets=Path(secrets).absolute() if secrets is not None else None,
            host=host,
            port=port,
            metrics_port=metrics_port,
            access_log=Path(access_log).absolute() if access_log is not None else None,
            envoy=Path(envoy) if envoy is not None else None,
            collector=collector,
            ready_timeout_s=ready_timeout_s,
            drain_timeout_s=drain_timeout_s,
            num_threads=num_threads,
        )

    def start(self) -> Self:
        """Start Envoy and return when it serves.

        Raises: `ToolMissing` without Envoy, `GatewayError` with the reason; nothing is left behind then.
        """
        if self._running is None:
            self._running = Run(self._options)
            self._owner = os.getpid()
            _log.info("The gateway serves: %s, metrics %s", self.grpc_url, self.metrics_url)
        return self

    def stop(self) -> None:
        """Take no new requests, let those in flight finish, end; without effect if it is stopped."""
        running, self._running = self._running, None
        # A forked child has a copy of this object, but the gateway is its parent's.
        if running is not None and self._owner == os.getpid():
            running.stop()

    def drain(self, name: str, timeout_s: float = 30.0) -> bool:
        """Send a replica nothing more, and return whether it has finished what it had within the time.

        It stays out until `admit`. Raises: `GatewayError` for an unknown name, or when Envoy refuses.
        """
        self._run.change(edit=lambda endpoints: changed(endpoints, name, admitted=False))
        deadline, quiet = time.monotonic() + timeout_s, 0
        while quiet < _QUIET_LOOKS:
            # Envoy's threads learn of the change one after the other.
            quiet = 0 if self.active_requests(name) else quiet + 1
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def admit(self, name: str, timeout_s: float = 30.0) -> None:
        """Send a replica requests again, and return when it passes the gateway's health checks.

        Raises: `GatewayError` for an unknown name, when Envoy refuses, or when the replica does not answer in time.
        """
        self._run.change(edit=lambda endpoints: changed(endpoints, name, admitted=True))
        deadline = time.monotonic() + timeout_s
        while not self._replica(name).healthy:
            if time.monotonic() > deadline:
                raise GatewayError(
                    f"Expected replica {name} to answer health checks within {timeout_s:g} s, it does not. Look at its "
                    "log; it gets requests as soon as it does."
                )
            time.sleep(_POLL_S)

    def replace(self, endpoint: Endpoint) -> None:
        """Give the replica of that name other addresses. Raises `GatewayError`."""
        fields = {name: getattr(endpoint, name) for name in ("host", "grpc_port", "http_port", "metrics_port")}
        fields["admitted"] = endpoint.admitted
        self._run.change(edit=lambda endpoints: changed(endpoints, endpoint.name, **fields))

    def reload(self, service: Service, endpoints: Mapping[str, Sequence[Endpoint]] | None = None) -> None:
        """Serve by another description (and other replicas) from now on, without losing a request.

        Raises: `GatewayError` with Envoy's reasons; everything is as before then.
        """
        members = None if endpoints is None else {pool: tuple(found) for pool, found in endpoints.items()}
        self._run.change(service, None if members is None else lambda _: members)

    def active_requests(self, name: str) -> int:
        """Requests that a replica is working on for this gateway. Raises `GatewayError` for an unknown name."""
        return self._replica(name).num_in_flight

    def status(self) -> GatewayStatus:
        """What it tells about itself. Raises `GatewayError` while it is being restarted."""
        running = self._run
        try:
            return read_status(running.admin, running.endpoints, running.supervisor.restarts)
        except AdminUnreachable as exc:
            raise GatewayError(f"The gateway does not answer: {exc}. It may be starting again.") from exc

    def reopen_logs(self) -> None:
        """Write to new files where the access log was renamed. Raises `GatewayError`."""
        try:
            self._run.admin.post("/reopen_logs")
        except AdminUnreachable as exc:
            raise GatewayError(f"The gateway does not answer: {exc}. It may be starting again.") from exc

    def _replica(self, name: str) -> ReplicaStatus:
        changed(self._run.endpoints, name)
        while True:
            with contextlib.suppress(GatewayError):
                return next(replica for replica in self.status().replicas if replica.name == name)
            if self.failure is not None:
                raise self.failure
            time.sleep(_POLL_S)

    @property
    def service(self) -> Service:
        """The description in force."""
        return self._running.service if self._running else self._options.service

    @property
    def endpoints(self) -> Mapping[str, tuple[Endpoint, ...]]:
        """The replicas of each pool."""
        return self._running.endpoints if self._running else self._options.endpoints

    @property
    def grpc_url(self) -> str:
        """The URL for `naiad.client.Client`."""
        return f"{'grpcs' if self.service.tls else 'grpc'}://{self._options.host}:{self._run.port}"

    @property
    def http_url(self) -> str:
        """The root of the HTTP service."""
        return f"{'https' if self.service.tls else 'http'}://{self._options.host}:{self._run.port}"

    @property
    def metrics_url(self) -> str:
        """The Prometheus endpoint."""
        return f"http://{self._options.host}:{self._run.metrics_port}/metrics"

    @property
    def pid(self) -> int:
        """The process id of Envoy; a restart changes it."""
        return self._run.process.pid

    @property
    def failure(self) -> GatewayError | None:
        """Why the supervisor gave up, if it did: Envoy died too often."""
        return self._run.supervisor.failure

    @property
    def restarts(self) -> int:
        """How often the supervisor had to start Envoy again."""
        return self._run.supervisor.restarts

    @property
    def log_path(self) -> Path:
        """The file with Envoy's own output; it goes with the gateway."""
        return self._run.log_path

    @property
    def admin_socket(self) -> Path:
        """The UNIX socket of Envoy's administration; whoever may open it, may do anything with the gateway."""
        return self._run.private / "admin.sock"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __del__(self) -> None:
        if getattr(self, "_running", None) is not None and self._owner == os.getpid():
            warnings.warn(f"{self!r} was never stopped", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        where = self.grpc_url if self._running else "not running"
        return f"<Gateway of {self.service.name!r}, {where}>"

    @property
    def _run(self) -> Run:
        if self._running is None:
            raise GatewayError("The gateway is not running: call start(), or use this object in a `with` statement.")
        return self._running
