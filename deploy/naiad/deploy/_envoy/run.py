"""A gateway with everything it needs around it: prepared, launched, changed while it runs, drained, removed."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from naiad.deploy._envoy import ports, running
from naiad.deploy._envoy.admin import Admin, AdminUnreachable
from naiad.deploy._envoy.binary import find_envoy
from naiad.deploy._envoy.options import Options, check_endpoints
from naiad.deploy._envoy.private import PrivateDirectory, remove_abandoned
from naiad.deploy._envoy.process import Process, StartRefused, validate
from naiad.deploy._envoy.status import in_flight
from naiad.deploy._envoy.steps import BOOTSTRAP, steps
from naiad.deploy._envoy.supervisor import Supervisor
from naiad.deploy._envoy.updates import Updates, versioned
from naiad.deploy._files import write_all
from naiad.deploy._gateway import render_gateway
from naiad.deploy.errors import GatewayError
from naiad.deploy.place import Endpoint, Place
from naiad.deploy.service import Service

_log = logging.getLogger("naiad.deploy")
_ATTEMPTS: Final = 4
_POLL_S: Final = 0.02
_QUIET_LOOKS: Final = 3
_EXIT_GRACE_S: Final = 2.0

Endpoints = Mapping[str, tuple[Endpoint, ...]]


class Run:
    """One private directory with one Envoy in it; a restart puts another process there."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.service = options.service
        self.endpoints = options.endpoints
        self.port, self.metrics_port = options.port, options.metrics_port
        self._files: dict[str, str] = {}
        self.stopping = threading.Event()
        self._changing = threading.Lock()
        self._swap = threading.Lock()
        self._envoy = find_envoy(options.envoy)
        remove_abandoned()
        self.private = PrivateDirectory()
        self.admin = Admin(self.private / "admin.sock")
        self.updates = Updates(self.admin, self.private / "config", self.log_path)
        with self._removed_on_error():
            self._launch()
        self.supervisor = Supervisor(died=self._died, restart=self._restart, stopping=self.stopping)

    @property
    def log_path(self) -> Path:
        """Where Envoy's output goes."""
        return self.private / "envoy.log"

    def change(self, service: Service | None = None, edit: Callable[[Endpoints], Endpoints] | None = None) -> None:
        """Render anew, replace what differs, and return when Envoy has taken it; as before if it refuses.

        `edit` makes the endpoints out of those that are there when it is this change's turn. Raises: `GatewayError`.
        """
        with self._changing:
            service, endpoints = service or self.service, edit(self.endpoints) if edit else self.endpoints
            check_endpoints(service, endpoints)
            files = render_gateway(service, self._place(endpoints))
            if files[BOOTSTRAP] != self._files[BOOTSTRAP]:
                raise GatewayError(
                    "The change takes a restart of the gateway (it concerns what Envoy reads once at its start: the "
                    "service's name, its memory, its number of connections). Nothing was changed."
                )
            self._apply(files)
            self.service, self.endpoints = service, endpoints
            self._note()

    def requests_in_flight(self) -> int:
        """Requests of callers that are being worked on; 0 while Envoy is being restarted."""
        with contextlib.suppress(AdminUnreachable):
            return in_flight(self.admin)
        return 0

    def stop(self) -> None:
        """Take no new requests, let those in flight finish, then end and remove everything."""
        with self._swap:
            self.stopping.set()
        self.supervisor.join()
        started = time.monotonic()
        try:
            if self.process.returncode is None:
                self._drain()
                self.process.terminate(_EXIT_GRACE_S)
        finally:
            self.remove()
        _log.info("The gateway stopped after %.1f s", time.monotonic() - started)

    def remove(self) -> None:
        """End whatever still runs at once, and remove everything."""
        self.stopping.set()
        if hasattr(self, "process"):
            self.process.kill()
        self.private.remove()

    def _drain(self) -> None:
        with contextlib.suppress(AdminUnreachable):
            # The first tells callers on open connections to make new ones, the second refuses those.
            self.admin.post("/healthcheck/fail")
            self.admin.post("/drain_listeners")
        deadline, quiet = time.monotonic() + self.options.drain_timeout_s, 0
        while quiet < _QUIET_LOOKS and self.process.returncode is None:
            quiet = 0 if self.requests_in_flight() else quiet + 1
            if time.monotonic() > deadline:
                _log.warning("Requests were still in flight after %.0f s", self.options.drain_timeout_s)
                return
            time.sleep(_POLL_S)

    def _apply(self, files: Mapping[str, str]) -> None:
        try:
            for step in steps(self._files, files):
                self.updates.apply(step)
        except BaseException:
            # In the opposite order: whatever refers to something goes before it.
            former = {name: versioned(text) for name, text in reversed(self._files.items()) if name != BOOTSTRAP}
            write_all(self.private / "config", former)
            raise
        for name in self._files.keys() - files.keys():
            (self.private / "config" / name).unlink(missing_ok=True)
        self._files = dict(files)

    def _place(self, endpoints: Endpoints) -> Place:
        options = self.options
        return Place(
            config_dir=str(self.private / "config"),
            secrets_dir=str(options.secrets or self.private / "secrets"),
            endpoints=endpoints,
            host=options.host,
            port=self.port,
            metrics_host=options.host,
            metrics_port=self.metrics_port,
            admin=str(self.private / "admin.sock"),
            access_log=str(options.access_log or os.devnull),
            collector=options.collector,
        )

    def _choose_ports(self) -> None:
        host, named = self.options.host, self._named()
        for port in named:
            if port and not ports.is_free(host, port):
                raise GatewayError(
                    f"Port {port} on {host} cannot be used: another program listens there, or the system reserves it. "
                    "Name another port, or 0 for a free one."
                )
        self.port = self.options.port or ports.free(host, {*named})
        self.metrics_port = self.options.metrics_port or ports.free(host, {*named, self.port})

    def _launch(self) -> None:
        if self.options.secrets is None:
            (self.private / "secrets" / "api-keys").touch(mode=0o600)
        for attempt in range(1, _ATTEMPTS + 1):
            self._choose_ports()
            self._files = render_gateway(self.service, self._place(self.endpoints))
            written = {name: text if name == BOOTSTRAP else versioned(text) for name, text in self._files.items()}
            write_all(self.private / "config", written)
            validate(self._envoy, self.private / "config" / BOOTSTRAP)
            self.process = self._spawn()
            try:
                self.process.wait_ready(self.admin, self.options.ready_timeout_s, self.stopping)
            except StartRefused as exc:
                self.process.kill()
                chosen = exc.port in (self.port, self.metrics_port) and exc.port not in self._named()
                if not chosen or attempt == _ATTEMPTS:
                    raise
            else:
                break
        self._note()

    def _named(self) -> tuple[int, int]:
        return (self.options.port, self.options.metrics_port)

    def _spawn(self) -> Process:
        try:
            return Process(
                self._envoy,
                self.private / "config" / BOOTSTRAP,
                directory=self.private / "cwd",
                log_path=self.log_path,
                num_threads=self.options.num_threads,
                drain_s=self.options.drain_timeout_s,
            )
        except OSError as exc:
            raise GatewayError(f"Envoy could not be started: {exc}. Look at the file named, then try again.") from exc

    def _died(self) -> GatewayError | None:
        return None if self.process.returncode is None else self.process.died()

    def _restart(self) -> None:
        with self._swap:
            if self.stopping.is_set():
                return
            self.process.kill()
            (self.private / "admin.sock").unlink(missing_ok=True)
            self.process = self._spawn()
        self.process.wait_ready(self.admin, self.options.ready_timeout_s, self.stopping)
        _log.info("Envoy serves again")

    def _note(self) -> None:
        running.note(
            self.private.path,
            grpc_url=f"{'grpcs' if self.service.tls else 'grpc'}://{self.options.host}:{self.port}",
            metrics_url=f"http://{self.options.host}:{self.metrics_port}/metrics",
            endpoints=self.endpoints,
        )

    @contextlib.contextmanager
    def _removed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.remove()
            raise


def changed(endpoints: Endpoints, name: str, **fields: object) -> Endpoints:
    """The endpoints with another value in one. Raises `GatewayError` where there is none of that name."""
    names = [endpoint.name for pool in endpoints.values() for endpoint in pool]
    if name not in names:
        raise GatewayError(f"Expected the name of a replica ({', '.join(names)}), found {name!r}.")
    return {
        pool: tuple(replace(found, **fields) if found.name == name else found for found in members)  # type: ignore[arg-type]
        for pool, members in endpoints.items()
    }
