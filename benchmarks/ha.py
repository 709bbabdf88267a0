"""What callers without retries notice when something behind the gateway dies, or is changed.

    make bench-ha     or: python benchmarks/ha.py [--requests 10000] [--sizes 4KiB,600KB] [--rows kill,…] [--json FILE]

Two embedded Tritons serve a small ONNX model in two versions behind the real Envoy, as `naiad serve --replicas 2
--gateway` has them. Callers in a process of their own keep several requests in flight, each through a connection of its
own without a retry policy (grpcio as it comes), and check every answer. When a third of the requests is through, it
happens:

    kill        one replica is killed (SIGKILL)
    term        one replica is asked to end (SIGTERM), without being drained before
    rolling     both are restarted one after the other, drained first
    promote     the model's other version is promoted, then rolled back
    reload      the description changes (identities, rights, rates), and API keys are added and revoked
    rotate      the certificate is replaced while callers go on connecting (TLS)
    stub        the Python process of one replica's model is killed

and for comparison, without gateway, one server alone is killed (`alone`). A row ends when it has its number of requests
and what happened is over: the replica serves again, both serve the other version, and so on. The exit status is 1 if a
request of a row with the gateway failed, or had a wrong answer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from ha_load import FACTORS, SIZES, Outcome, Target, load
from measure import machine
from rich.console import Console
from rich.table import Table

from naiad.client import Client
from naiad.deploy import Service
from naiad.deploy.certificates import install_server_certificate, make_authority, make_server_certificate
from naiad.deploy.gateway import Gateway
from naiad.deploy.keys import KeyFile, hash_key
from naiad.deploy.place import Endpoint
from naiad.deploy.service import Identity, Rights
from naiad.export import Repository, export
from naiad.server import EmbeddedTriton, Replicas

CALLER: Final = Identity(name="bench", rights=Rights(infer=("*",)))
IN_FLIGHT: Final = 8
PATIENCE_S: Final = 90.0
ALONE: Final = "alone"
console = Console(highlight=False, stderr=True)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a failure happens to."""

    repository: Path
    secrets: Path
    model: str
    replicas: Replicas
    gateway: Gateway
    key: str
    authority: Any = None

    def target(self, *, anew: bool = False) -> Target:
        """Whom the callers call."""
        address = urlsplit(self.gateway.grpc_url).netloc
        authority = self.authority.certificate_pem if self.authority else None
        return Target(address=address, key=self.key, authority=authority, anew=anew)


def kill(stage: Stage) -> None:
    """SIGKILL, and wait until the supervisor has it back."""
    _end(stage, signal.SIGKILL)


def term(stage: Stage) -> None:
    """SIGTERM without drain, and wait until the supervisor has it back."""
    _end(stage, signal.SIGTERM)


def rolling(stage: Stage) -> None:
    """Restart one after the other."""
    stage.replicas.rolling_restart(stage.gateway)


def promote(stage: Stage) -> None:
    """Version 1, once all serve it version 2 again."""
    repository = Repository(stage.repository)
    for number, change in (
        (1, lambda: repository.promote(stage.model, 1)),
        (2, lambda: repository.rollback(stage.model)),
    ):
        change()
        _until(lambda number=number: _versions(stage) == {number}, f"all serve version {number}")
        time.sleep(0.5)  # of requests to that version


def reload(stage: Stage) -> None:
    """Another identity with other rights; a new key added and revoked, three times."""
    service = stage.gateway.service
    other = Identity(name="other", rights=Rights(observe=("*",)), requests_per_s=5.0)
    for identities in ((CALLER, other), (CALLER,)):
        stage.gateway.reload(replace(service, identities=identities, anonymous=other.rights))
    keys = KeyFile(stage.secrets / "api-keys")
    for _ in range(3):
        other = keys.add(CALLER.name)
        time.sleep(0.5)  # the gateway looks every second
        keys.revoke(CALLER.name, hash_key(other)[:12])


def rotate(stage: Stage) -> None:
    """Three new certificates, each in force before the next."""
    for _ in range(3):
        former = _served_certificate(stage)
        _install_certificate(stage.secrets, stage.authority)
        _until(lambda former=former: _served_certificate(stage) != former, "the new certificate is served")
        time.sleep(0.5)  # of connections with it


def stub(stage: Stage) -> None:
    """SIGKILL to the process of one replica's model; wait until the replica has another one, and requests again."""
    server = next(iter(stage.replicas.servers.values()))
    victim = server.stub_pids()[0]
    started = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    _until(lambda: server.stub_pids() and victim not in server.stub_pids(), "the process is replaced")
    _until(lambda: _asked(server, stage.model), "the replica answers")
    console.print(f"  replaced after {time.monotonic() - started:.1f} s", style="dim")
    _until_admitted(stage)


ROWS: Final[dict[str, Callable[[Stage], None]]] = {
    "kill": kill,
    "term": term,
    "rolling": rolling,
    "promote": promote,
    "reload": reload,
    "rotate": rotate,
    "stub": stub,
}
NAMES: Final = {
    ALONE: "kill -9, one server, no gateway",
    "kill": "kill -9 of a replica",
    "term": "SIGTERM of a replica, not drained",
    "rolling": "rolling restart",
    "promote": "promote and roll back",
    "reload": "description and keys changed",
    "rotate": "certificates rotated (TLS)",
    "stub": "kill -9 of a Python stub",
}


def main() -> int:
    """Run the rows that are asked for and print what the callers saw."""
    arguments = _arguments()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            repository = Path(folder) / f"models of {size}"
            export_ends(repository, *SIZES[size], versions=2 if "promote" in arguments.rows else 1)
            for row in arguments.rows:
                console.print(f"{NAMES[row]}, {size} …", style="dim")
                outcome = _run(row, size, repository, arguments.requests, arguments.in_flight)
                results.append({"row": row, "size": size, **outcome.to_dict()})
    _show(results)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=1))
    return int(any(result["num_failed"] for result in results if result["row"] != ALONE))


def _arguments() -> argparse.Namespace:
    def listed(known: Any) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            names = text.split(",")
            if not set(names) <= set(known):
                raise argparse.ArgumentTypeError(f"expected some of {','.join(known)}, found {text}")
            return names

        return parse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, metavar="N")
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT, metavar="N")
    parser.add_argument("--sizes", type=listed(SIZES), default=list(SIZES), metavar=",".join(SIZES))
    parser.add_argument("--rows", type=listed(NAMES), default=list(NAMES), metavar="NAME,…")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def _run(row: str, size: str, repository: Path, num_requests: int, in_flight: int) -> Outcome:
    model = SIZES[size][0]
    if row == ALONE:
        with EmbeddedTriton(repository) as server:
            target = Target(address=server.grpc_address)
            return load(target, size, num_requests, in_flight, lambda: os.kill(server.pid, signal.SIGKILL))
    with _stage(repository, model, tls=row == "rotate") as stage:
        return load(stage.target(anew=row == "rotate"), size, num_requests, in_flight, lambda: ROWS[row](stage))


@contextlib.contextmanager
def _stage(repository: Path, model: str, *, tls: bool) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory() as folder, Replicas(repository, num_replicas=2, watch=True) as replicas:
        secrets, authority = Path(folder) / "secrets", None
        secrets.mkdir()
        key = KeyFile(secrets / "api-keys").add(CALLER.name)
        if tls:
            authority = make_authority()
            _install_certificate(secrets, authority)
        service = Service(tls=tls, identities=(CALLER,))
        endpoints = [_endpoint(name, server) for name, server in replicas.servers.items()]
        with Gateway(service, endpoints={"main": endpoints}, secrets=secrets) as gateway:
            replicas.attach(gateway)
            yield Stage(
                repository=repository,
                secrets=secrets,
                model=model,
                replicas=replicas,
                gateway=gateway,
                key=key,
                authority=authority,
            )


def _endpoint(name: str, server: EmbeddedTriton) -> Endpoint:
    grpc_port, http_port, metrics_port = (
        int(url.partition("://")[2].partition("/")[0].rpartition(":")[2])
        for url in (server.grpc_url, server.http_url, server.metrics_url)
    )
    return Endpoint(name=name, host="127.0.0.1", grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port)


def export_ends(repository: Path, name: str, num_values: int, versions: int) -> None:
    """Versions of a model that costs next to nothing: the first value (once, twice) and the last one."""
    import torch

    class Ends(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.register_buffer("factors", torch.tensor([[factor, 1.0]]))

        def forward(self, x: Any) -> Any:
            return torch.cat([x[:, :1], x[:, -1:]], dim=1) * self.factors

    for factor in FACTORS[:versions]:
        sample = torch.randn(2, num_values)
        export(
            Ends(factor).eval(),
            name,
            samples=[(sample,)],
            dynamic={"x": {0: "batch"}},
            max_batch_size=8,
            repository=repository,
        )


def _end(stage: Stage, number: signal.Signals) -> None:
    server = next(iter(stage.replicas.servers.values()))
    os.kill(server.pid, number)
    _until(lambda: server.restarts, "the replica is restarted")
    _until(lambda: _asked(server, stage.model), "the replica answers")
    _until_admitted(stage)


def _until_admitted(stage: Stage) -> None:
    _until(
        lambda: all(replica.admitted and replica.healthy for replica in stage.gateway.status().replicas), "all serve"
    )


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"expected within {PATIENCE_S:.0f} s: {what}")
        time.sleep(0.02)


def _asked(server: EmbeddedTriton, model: str) -> str | None:
    """The version that answers a request; None if none does."""
    num_values = dict(SIZES.values())[model]
    with contextlib.suppress(Exception), Client(server.grpc_url) as client:
        return str(client.infer(model, {"x": np.zeros((1, num_values), np.float32)}).model_version)
    return None


def _versions(stage: Stage) -> set[int]:
    return {int(_asked(server, stage.model) or 0) for server in stage.replicas.servers.values()}


def _install_certificate(secrets: Path, authority: Any) -> None:
    install_server_certificate(secrets, make_server_certificate(authority, ["localhost", "127.0.0.1"]))


def _served_certificate(stage: Stage) -> str:
    host, _, port = urlsplit(stage.gateway.grpc_url).netloc.rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


def _show(results: list[dict[str, Any]]) -> None:
    table = Table("what happened", "size", box=None, pad_edge=False)
    for column in ("failed", "of", "worst", "p99", "requests/s"):
        table.add_column(column, justify="right")
    for result in results:
        table.add_row(
            NAMES[result["row"]],
            result["size"],
            f"{result['num_failed']:,}",
            f"{result['num_requests']:,}",
            f"{result['worst_s'] * 1e3:,.0f} ms",
            f"{result['p99_s'] * 1e3:,.1f} ms",
            f"{result['num_requests'] / result['seconds']:,.0f}",
        )
    Console(highlight=False).print(table)
    for result in results:
        reasons = [
            *result["failures"].items(),
            *([("wrong answer", result["num_wrong"])] if result["num_wrong"] else []),
        ]
        for reason, count in reasons[:5]:
            print(f"{NAMES[result['row']]}, {result['size']}: {count:,} × {reason[:300]}")


if __name__ == "__main__":
    sys.exit(main())
