"""What a gateway is started with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from naiad.deploy.certificates import days_left
from naiad.deploy.errors import GatewayError
from naiad.deploy.place import Endpoint
from naiad.deploy.service import Service

_MAX_PORT: Final = 65_535


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The arguments of `Gateway`, checked."""

    service: Service
    endpoints: Mapping[str, tuple[Endpoint, ...]]
    secrets: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    metrics_port: int = 0
    access_log: Path | None = None
    envoy: Path | None = None
    collector: tuple[str, int] | None = None
    ready_timeout_s: float = 30.0
    drain_timeout_s: float = 10.0
    num_threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        check_endpoints(self.service, self.endpoints)
        for name, port in (("port", self.port), ("metrics_port", self.metrics_port)):
            if not 0 <= port <= _MAX_PORT:
                raise GatewayError(f"Expected {name} between 0 (any free one) and {_MAX_PORT}, found {port}.")
        if self.port and self.port == self.metrics_port:
            raise GatewayError(f"Expected different ports for callers and for metrics, found {self.port} for both.")
        if self.ready_timeout_s <= 0 or self.drain_timeout_s < 0:
            raise GatewayError(
                "Expected ready_timeout_s > 0 and drain_timeout_s >= 0, found "
                f"{self.ready_timeout_s} and {self.drain_timeout_s}."
            )
        if self.num_threads is not None and self.num_threads < 1:
            raise GatewayError(f"Expected num_threads to be at least 1, found {self.num_threads}.")
        _check_secrets(self.service, self.secrets)
        _check_writable(self.access_log)


def check_endpoints(service: Service, endpoints: Mapping[str, tuple[Endpoint, ...]]) -> None:
    """Refuse endpoints that are not those of the service's pools. Raises `GatewayError`."""
    pools = [pool.name for pool in service.pools]
    unknown = sorted(set(endpoints) - set(pools))
    if unknown:
        raise GatewayError(f"Expected endpoints of the pools {', '.join(pools)}, found some of {', '.join(unknown)}.")
    missing = [pool for pool in pools if not endpoints.get(pool)]
    if missing:
        raise GatewayError(f"Expected at least one endpoint of each pool, found none of {', '.join(missing)}.")
    names = [endpoint.name for pool in endpoints.values() for endpoint in pool]
    if len(set(names)) != len(names):
        raise GatewayError(f"Expected every replica to have a name of its own, found {', '.join(sorted(names))}.")


def _check_secrets(service: Service, secrets: Path | None) -> None:
    needed = ["tls.crt", "tls.key"] if service.tls else []
    needed += ["clients.crt"] if service.tls and service.client_certificates != "none" else []
    needed += [f"jwks/{issuer.name}.json" for issuer in service.issuers]
    if secrets is not None and not secrets.is_dir():
        raise GatewayError(
            f"Expected a directory with secrets at {secrets}, found none. `naiad deploy secrets` makes it."
        )
    missing = [name for name in needed if secrets is None or not (secrets / name).is_file()]
    if missing:
        raise GatewayError(
            f"The service needs {', '.join(missing)}, and {secrets or 'no directory of secrets'} was given, where they "
            "are not. `naiad deploy secrets` makes them."
        )
    if service.tls and secrets is not None:
        days_left(secrets / "tls.crt")  # readable, and a certificate: Envoy would not say which file it means


def _check_writable(access_log: Path | None) -> None:
    if access_log is None:
        return
    try:
        with open(access_log, "ab"):
            pass
    except OSError as exc:
        raise GatewayError(
            f"Expected to write the access log {access_log}, but: {exc.strerror}. Name another file, or none."
        ) from exc
