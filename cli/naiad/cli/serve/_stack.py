"""Replicas of every pool with the gateway in front of them: started, restarted one by one, stopped."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from naiad.cli.serve import _service

if TYPE_CHECKING:
    from naiad.deploy.gateway import Gateway
    from naiad.deploy.service import Pool, Service
    from naiad.server import EmbeddedTriton, Replicas, RestartStep

__all__ = ["Stack", "Wanted"]

OnStep = Callable[["RestartStep"], None]
_USUAL_PORT = 8001
_USUAL_TLS_PORT = 8443
_USUAL_METRICS_PORT = 9901


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What the command line asks for."""

    repository: str
    description: Path | None
    num_replicas: int | None
    host: str
    port: int | None
    metrics_port: int | None
    secrets: Path | None
    access_log: Path | None
    log_file: Path | None
    insecure: bool
    drain_timeout_s: float
    triton: dict[str, Any]
    """Further options of `EmbeddedTriton`."""

    def service(self) -> Service:
        """Read the description, which may have changed.

        Raises:
            InvalidService: it is wrong.
            UnsafeAddress: others may reach what it leaves open.
        """
        service = _service.describe(self.description, self.num_replicas)
        _guard(service, self.host, insecure=self.insecure)
        return service


def _guard(service: Service, host: str, *, insecure: bool) -> None:
    from naiad.deploy.exposure import check_exposure

    check_exposure(host, service, insecure=insecure)


class Stack:
    """A whole service on this machine; a context manager."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._reloading = threading.Lock()
        self.service = wanted.service()
        self.pools: dict[str, Replicas] = {}
        self._gateway: Gateway | None = None
        self.key = ""
        """A key of an identity that may do everything; "" where the description has identities of its own."""

    def start(self) -> Self:
        """Start the replicas, side by side, and then the gateway.

        Raises:
            ServerError, DeployError: nothing is left behind then.
        """
        try:
            named = _service.secrets_directory(self._wanted.secrets, self._wanted.description)
            self._start_pools(_service.triton_key(named) if named else None)
            if named is None:
                named = self.directory / "secrets"
                self.key = _service.make_secrets(named)
                _service.write_triton_key(named, self.triton_secret)
            self._start_gateway(named)
        except BaseException:
            self._kill()
            raise
        return self

    def _start_pools(self, secret: str | None) -> None:
        for pool in self.service.pools:
            replicas = self._replicas(pool, secret)
            self.pools[pool.name] = replicas
            replicas.start()
            secret = replicas.admin_secret

    def _replicas(self, pool: Pool, secret: str | None) -> Replicas:
        from naiad.server import Replicas

        log = self._wanted.log_file
        several = len(self.service.pools) > 1
        return Replicas(
            _service.repository_of(pool.repository, self._wanted.repository, self._wanted.description),
            num_replicas=pool.num_replicas,
            names=[f"{pool.name}-{number}" for number in range(pool.num_replicas)],
            admin_secret=secret,
            log_path=log.with_stem(f"{log.stem}-{pool.name}") if log and several and pool.num_replicas == 1 else log,
            drain_timeout_s=self._wanted.drain_timeout_s,
            **self._wanted.triton,
        )

    def _start_gateway(self, secrets: Path) -> None:
        from naiad.deploy.gateway import Gateway

        host, wanted = self._wanted.host, self._wanted
        usual = _USUAL_TLS_PORT if self.service.tls else _USUAL_PORT
        self._gateway = Gateway(
            self.service,
            endpoints=_service.endpoints(self.pools),
            secrets=secrets,
            host=host,
            port=_service.free_or_any(host, usual) if wanted.port is None else wanted.port,
            metrics_port=(
                _service.free_or_any(host, _USUAL_METRICS_PORT) if wanted.metrics_port is None else wanted.metrics_port
            ),
            access_log=wanted.access_log,
            drain_timeout_s=wanted.drain_timeout_s,
        ).start()
        for replicas in self.pools.values():
            replicas.attach(self._gateway)

    def stop(self) -> None:
        """Take no new requests, let those in flight finish, end the replicas."""
        try:
            if self._gateway is not None:
                self._gateway.stop()
            for replicas in self.pools.values():
                replicas.stop()
        except BaseException:
            self._kill()
            raise

    def _kill(self) -> None:
        if self._gateway is not None:
            self._gateway.stop()
        for replicas in self.pools.values():
            replicas.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def reload(self, on_step: OnStep | None = None) -> None:
        """Read the description again, then restart the replicas one after the other.

        Raises:
            RestartUnderWay: somebody else's is.
            InvalidService, GatewayError: the description is wrong, or changes what only a new start can; all is as it
                was then.
            ReplicaLost: a replica did not come back; the others serve.
        """
        from naiad.server import RestartUnderWay

        if not self._reloading.acquire(blocking=False):
            raise RestartUnderWay("A reload is under way already. Wait for its end, then ask again.")
        try:
            service = self._wanted.service()
            self._check_same_place(service)
            if service != self.service:
                self.gateway.reload(service)
                self.service = service
            for replicas in self.pools.values():
                replicas.rolling_restart(self.gateway, on_step)
        finally:
            self._reloading.release()

    def _check_same_place(self, service: Service) -> None:
        """Refuse a description that needs other processes or another kind of port than there are."""
        from naiad.deploy.errors import InvalidService

        for what, now, before in (
            ("pools", _pools(service), _pools(self.service)),
            ("`tls`", service.tls, self.service.tls),
        ):
            if now != before:
                raise InvalidService(
                    f"expected the same {what} as at the start, {before}, found {now}: a reload keeps its processes "
                    "and its address. End `naiad serve` and start it again"
                )

    @property
    def reloading(self) -> bool:
        """Whether a reload is under way."""
        return self._reloading.locked()

    @property
    def gateway(self) -> Gateway:
        """The gateway; it must be started."""
        assert self._gateway is not None
        return self._gateway

    @property
    def servers(self) -> dict[str, EmbeddedTriton]:
        """The replicas of all pools by name."""
        return {name: server for replicas in self.pools.values() for name, server in replicas.servers.items()}

    @property
    def directory(self) -> Path:
        """For files of this run, removed with it."""
        return next(iter(self.pools.values())).directory

    @property
    def repository(self) -> Path | str:
        """What the first pool serves."""
        return next(iter(self.pools.values())).repository

    @property
    def triton_secret(self) -> str:
        """What the replicas ask for before they let anybody load models."""
        return next(iter(self.pools.values())).admin_secret

    @property
    def failure(self) -> Exception | None:
        """Why a pool or the gateway serves no more."""
        return next((r.failure for r in self.pools.values() if r.failure is not None), self.gateway.failure)

    def announce(self, control: Path) -> None:
        """Let other commands of this user find the service, by the address of its gateway."""
        from naiad.server import RunningServer

        main = next(iter(self.pools.values()))
        main.announce(
            RunningServer(
                grpc_address=urlsplit(self.gateway.grpc_url).netloc,
                http_url=self.gateway.http_url,
                metrics_url=self.gateway.metrics_url,
                admin_secret=self.key,
                repository=self.repository,
                pid=os.getpid(),
                tls=self.service.tls,
                replicas=tuple(server.grpc_address for server in main.servers.values()),
                replica_secret=main.admin_secret,
                control=str(control),
            )
        )


def _pools(service: Service) -> tuple[tuple[str, int, str | None], ...]:
    return tuple((pool.name, pool.num_replicas, pool.repository) for pool in service.pools)
