"""What `naiad serve --gateway` serves: the description, and where it runs on this machine."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import typer

if TYPE_CHECKING:
    from naiad.deploy.place import Endpoint
    from naiad.deploy.service import Service
    from naiad.server import EmbeddedTriton, Replicas

__all__ = [
    "describe",
    "endpoints",
    "free_or_any",
    "make_secrets",
    "repository_of",
    "secrets_directory",
    "triton_key",
    "write_triton_key",
]

LOCAL_IDENTITY: Final = "local"
_ADMIN_KEY: Final = "triton-admin-key"
_KEYS: Final = "api-keys"
_DEFAULT_REPLICAS: Final = 2


def describe(path: Path | None, num_replicas: int | None) -> Service:
    """Return the service of a description, or the default one of this machine.

    Raises:
        InvalidService: the description is wrong.
    """
    from naiad.deploy.load import load_service
    from naiad.deploy.service import Pool

    if path is None:
        return _local(num_replicas or _DEFAULT_REPLICAS)
    service = load_service(path)
    if num_replicas is None:
        return service
    main: Pool = replace(service.pools[0], num_replicas=num_replicas)
    return replace(service, pools=(main, *service.pools[1:]))


def _local(num_replicas: int) -> Service:
    """Return a service that everybody on this machine may use, and its owner control."""
    from naiad.deploy.service import Identity, Pool, Rights, Service, Triton

    everything = ("*",)
    return Service(
        tls=False,
        anonymous=Rights(infer=everything, observe=everything),
        identities=(Identity(name=LOCAL_IDENTITY, rights=Rights(infer=everything, observe=everything, admin=True)),),
        pools=(Pool(name="main", num_replicas=num_replicas),),
        triton=Triton(model_control="explicit"),
    )


def repository_of(pool_repository: str | None, repository: str, description: Path | None) -> str:
    """Return where the models of a pool are; a path in the description is one beside it."""
    if pool_repository is None:
        return repository
    if "://" in pool_repository or description is None:
        return pool_repository
    return str(description.absolute().parent / pool_repository)


def secrets_directory(named: Path | None, description: Path | None) -> Path | None:
    """Return the directory with the secrets of a description; None for this machine's default service.

    Raises:
        typer.BadParameter: there is none.
    """
    if named is None and description is None:
        return None
    directory = named or _beside(description)
    if not directory.is_dir():
        raise typer.BadParameter(
            f"expected the directory with the service's secrets at {directory}, found none: make them with "
            "`naiad deploy secrets`, or name another directory",
            param_hint="--secrets",
        )
    return directory


def triton_key(directory: Path) -> str:
    """Return the replicas' secret, which the gateway adds for administrators; it is made where there is none yet."""
    path = directory / _ADMIN_KEY
    with suppress(FileNotFoundError):
        found = path.read_text().strip()
        if found:
            return found
    made = secrets.token_urlsafe(24)
    write_triton_key(directory, made)
    return made


def write_triton_key(directory: Path, key: str) -> None:
    """Give the gateway the replicas' secret."""
    from naiad.deploy._secret_files import write_secret

    write_secret(directory / _ADMIN_KEY, key.encode())


def make_secrets(directory: Path) -> str:
    """Make the secrets of this machine's default service; return the key with which everything is allowed."""
    from naiad.deploy.keys import KeyFile

    directory.mkdir(mode=0o700)
    return KeyFile(directory / _KEYS).add(LOCAL_IDENTITY)


def _beside(description: Path | None) -> Path:
    assert description is not None
    return description.absolute().parent / "secrets"


def endpoints(pools: Mapping[str, Replicas]) -> dict[str, tuple[Endpoint, ...]]:
    """Return where the gateway finds the replicas of each pool."""
    return {
        pool: tuple(_endpoint(name, server) for name, server in replicas.servers.items())
        for pool, replicas in pools.items()
    }


def _endpoint(name: str, server: EmbeddedTriton) -> Endpoint:
    from naiad.deploy.place import Endpoint

    addresses = [urlsplit(url) for url in (server.grpc_url, server.http_url, server.metrics_url)]
    grpc, http, metrics = (address.port or 0 for address in addresses)
    return Endpoint(name=name, host=addresses[0].hostname or "", grpc_port=grpc, http_port=http, metrics_port=metrics)


def free_or_any(host: str, usual: int) -> int:
    """Return the usual port where it is free, else 0, which asks for any."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), usual))
            probe.listen(1)
        except OSError:
            return 0
    return usual
