"""A system of the gallery as a service: replicas of Triton behind the gateway, as `naiad serve --gateway` runs them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.cli.serve._stack import Stack
    from naiad.client import Client
    from naiad.deploy.service import Service
    from naiad.server import EmbeddedTriton

__all__ = ["RunningService", "serve_behind_gateway"]

_DRAIN_TIMEOUT_S: Final = 10.0
_LOG_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningService:
    """A service while its `with` block lasts.

    * ``keys``: the API key of each identity of the description, which nobody else has.
    * ``authority``: the root certificate that vouches for the gateway; None without TLS.
    * ``access_log``: the file with a line of JSON for each request.
    * ``directory``: for files of this run; for this user only, and removed with it, also after kill -9.
    """

    stack: Stack
    access_log: Path
    directory: Path
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    authority: Path | None = None

    @property
    def grpc_url(self) -> str:
        """The gateway, for `naiad.client.Client`."""
        return self.stack.gateway.grpc_url

    @property
    def http_url(self) -> str:
        """The root of the gateway's HTTP service."""
        return self.stack.gateway.http_url

    @property
    def metrics_url(self) -> str:
        """The gateway's own Prometheus endpoint; `replicas` have theirs."""
        return self.stack.gateway.metrics_url

    @property
    def replicas(self) -> dict[str, EmbeddedTriton]:
        """The Tritons behind the gateway by name, as `main-0`."""
        return self.stack.servers

    def client(self, identity: str = "", **options: Any) -> Client:
        """Return a client of the gateway with the key of ``identity``; without one it shows no key."""
        from naiad.client import TLS, Client

        options["metadata"] = {**self.credential(identity), **options.get("metadata", {})}
        if self.authority is not None:
            options.setdefault("tls", TLS(root_certificates=self.authority))
        return Client(self.grpc_url, **options)

    def load_options(self, identity: str = "") -> dict[str, Any]:
        """Return options of `Stage.load_test` to call as ``identity``; its key goes by a file for its owner alone.

        Where the time went is asked of the replicas.
        """
        replicas = [replica.grpc_url.removeprefix("grpc://") for replica in self.replicas.values()]
        options: dict[str, Any] = {"statistics_url": f"grpc://{','.join(replicas)}"}
        if identity:
            header = self.directory / f"bearer-{identity}"
            header.touch(mode=0o600)
            header.write_text(f"{self.credential(identity)['authorization']}\n")
            options["header"] = [f"authorization=file:{header}"]
        if self.authority is not None:
            options["ca"] = self.authority
        return options

    def kill(self, replica: str) -> None:
        """End a replica as a crash does; its supervisor starts it again."""
        os.kill(self.replicas[replica].pid, signal.SIGKILL)

    def requests(self) -> list[dict[str, Any]]:
        """Return what the access log has of each request by now, in their order; it is written about once a second.

        Without the connections that ended before there was a request, as failed handshakes do.
        """
        lines = self.access_log.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [line for line in found if "path" in line]

    def wait_for_request(self, request_id: str, *, path: str = "") -> dict[str, Any]:
        """Return the access log's line of a request, by the header x-request-id that it came with.

        Of several, the first whose path begins with ``path``. Empty if there is none after ten seconds.
        """
        deadline = time.monotonic() + _LOG_TIMEOUT_S
        while True:
            for line in self.requests():
                if line.get("request_id") == request_id and line["path"].startswith(path):
                    return line
            if time.monotonic() > deadline:
                return {}
            time.sleep(_POLL_S)

    def credential(self, identity: str) -> dict[str, str]:
        """Return the header that shows an identity's key; none for "", who has none."""
        return {"authorization": f"Bearer {self.keys[identity]}"} if identity else {}


@contextmanager
def serve_behind_gateway(
    stage: Stage,
    *models: str,
    description: str | None = None,
    num_replicas: int = 2,
    access_log: Path | None = None,
    log_file: Path | None = None,
    **triton: Any,
) -> Iterator[RunningService]:
    """Serve models of the repository by replicas behind the gateway for the time of a block.

    Keys and certificates are made for this run and gone with it.

    Args:
        stage: Whose repository is served, and where the step is shown.
        models: Those that are loaded; all if none is named.
        description: The service in TOML, as of `naiad serve --service`; None lets everybody on this machine call.
        num_replicas: Tritons side by side.
        access_log: Where each request gets its line; a file that is there is written anew. None for ``directory``.
        log_file: Where the replicas' logs go, one for each; None for their private directories.
        triton: Further options of `EmbeddedTriton`.

    Raises:
        ServerError, DeployError: it does not start; nothing is left behind then.
    """
    from naiad.cli.serve._stack import Stack, Wanted
    from naiad.deploy._envoy.private import PrivateDirectory

    private = PrivateDirectory()  # with a watchdog: keys do not outlive a killed demo
    try:
        log = access_log or private / "access.jsonl"
        log.unlink(missing_ok=True)
        log.touch(mode=0o600)
        path, keys, authority = _described(private.path, description)
        with stage.step(f"serve {num_replicas} replicas behind the gateway", spinner=False) as done:
            stack = Stack(
                Wanted(
                    repository=str(stage.repository.path),
                    description=path,
                    num_replicas=num_replicas,
                    host="127.0.0.1",
                    port=0,
                    metrics_port=0,
                    secrets=path and private / "secrets",
                    access_log=log,
                    log_file=log_file,
                    insecure=False,
                    drain_timeout_s=_DRAIN_TIMEOUT_S,
                    triton={"models": list(models) or None, **triton},
                )
            ).start()
            done(stack.gateway.grpc_url)
        with _stopped_at_the_end(stack):
            yield RunningService(stack=stack, access_log=log, directory=private.path, keys=keys, authority=authority)
    finally:
        private.remove()


@contextmanager
def _stopped_at_the_end(stack: Stack) -> Iterator[None]:
    try:
        yield
    finally:
        stack.stop()


def _described(directory: Path, description: str | None) -> tuple[Path | None, dict[str, str], Path | None]:
    """Write the description with its secrets; return its path, the keys, and the root certificate."""
    from naiad.deploy.service import Service

    if description is None:
        return None, {}, None
    path = directory / "service.toml"
    path.write_text(description)
    service = Service.load(path)
    keys = _make_secrets(service, directory)
    return path, keys, directory / "authority" / "authority.crt" if service.tls else None


def _make_secrets(service: Service, directory: Path) -> dict[str, str]:
    from naiad.deploy.keys import KeyFile
    from naiad.deploy.secrets import make_secrets

    make_secrets(service, directory / "secrets", authority=directory / "authority")
    keys = KeyFile(directory / "secrets" / "api-keys")
    return {identity.name: keys.add(identity.name) for identity in service.identities}
