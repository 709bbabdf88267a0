"""What the gateway costs: the same load straight at one Triton, and through the gateway to it.

    make bench-gateway     or: python benchmarks/gateway.py [--rounds 5] [--seconds 3] [--plain] [--json FILE]

Both ways in turn, round by round, on a model that computes next to nothing; by default with TLS, an API key and the
access log at the gateway, as it is deployed. Everything shares this machine's cores: callers, gateway and server.
`added` is the difference of the median latencies, `rate` the requests per second through the gateway over those
without it; median of the rounds, smallest and largest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ha import export_ends
from ha_load import SIZES
from measure import machine
from rich.console import Console
from rich.table import Table

from naiad.deploy.certificates import install_server_certificate, make_authority, make_server_certificate
from naiad.deploy.gateway import Gateway
from naiad.deploy.keys import KeyFile
from naiad.deploy.place import Endpoint
from naiad.deploy.service import Identity, Rights, Service
from naiad.loadtest import Connection, LoadTest, Traffic, Users, run
from naiad.server import EmbeddedTriton

CALLER: Final = Identity(name="bench", rights=Rights(infer=("*",), observe=("*",)))
IN_FLIGHT: Final = (1, 32)
WARM_UP_S: Final = 0.5
console = Console(highlight=False, stderr=True)


def main() -> None:
    """Measure every size at every number of requests in flight, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each measurement")
    parser.add_argument("--plain", action="store_true", help="no TLS between callers and gateway")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            results += measure_size(Path(folder) / size, size, arguments)
    show(results)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=1))


def measure_size(folder: Path, size: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One model, one server, one gateway."""
    model, num_values = SIZES[size]
    secrets = folder / "secrets"
    secrets.mkdir(parents=True)
    export_ends(folder / "models", model, num_values, versions=1)
    key = KeyFile(secrets / "api-keys").add(CALLER.name)
    authority = make_authority()
    install_server_certificate(secrets, make_server_certificate(authority, ["localhost", "127.0.0.1"]))
    (folder / "authority.crt").write_bytes(authority.certificate_pem)
    service = Service(tls=not arguments.plain, identities=(CALLER,))
    with EmbeddedTriton(folder / "models") as triton:
        endpoint = Endpoint(
            name="main-0", host="127.0.0.1", grpc_port=port(triton.grpc_url), http_port=port(triton.http_url)
        )
        with Gateway(service, endpoints={"main": [endpoint]}, secrets=secrets) as gateway:
            direct = Connection(url=triton.grpc_url)
            through = Connection(
                url=gateway.grpc_url,
                headers={"x-api-key": key},
                ca=None if arguments.plain else folder / "authority.crt",
                statistics_url=triton.grpc_url,
            )
            return [measure(size, users, direct, through, arguments) for users in IN_FLIGHT]


def measure(
    size: str, users: int, direct: Connection, through: Connection, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Rounds of both ways, the first of them in turn."""
    rounds = []
    for number in range(arguments.rounds):
        console.print(f"{size}, {users} in flight, round {number + 1} of {arguments.rounds} …", style="dim")
        ways = [("direct", direct), ("gateway", through)]
        found = {
            name: once(size, users, way, arguments.seconds) for name, way in (ways if number % 2 else reversed(ways))
        }
        rounds.append(found)
    return {"size": size, "in_flight": users, "rounds": rounds}


def once(size: str, users: int, connection: Connection, seconds: float) -> dict[str, float]:
    """One measurement; every request has to succeed."""
    test = LoadTest(
        traffic=Traffic(model=SIZES[size][0]),
        load=Users(users=users),
        connection=connection,
        warmup_s=WARM_UP_S,
        duration_s=seconds,
    )
    found = run(test, calibration=False).measurement
    if found.failed:
        raise RuntimeError(f"{found.failed} requests failed: {dict(found.examples)}")
    return {
        "per_s": found.completed / found.window_s,
        "p50_ms": found.latencies.percentile_us(50) / 1e3,
        "p99_ms": found.latencies.percentile_us(99) / 1e3,
    }


def port(url: str) -> int:
    """The port of a URL."""
    return int(urlsplit(url).port or 0)


def show(results: list[dict[str, Any]]) -> None:
    """The table, and what it was measured on."""
    table = Table("size", "in flight", "p50 direct", "p50 gateway", "added, ms", "rate", box=None, pad_edge=False)
    for result in results:
        rounds = result["rounds"]
        added = [each["gateway"]["p50_ms"] - each["direct"]["p50_ms"] for each in rounds]
        ratios = [each["gateway"]["per_s"] / each["direct"]["per_s"] for each in rounds]
        table.add_row(
            result["size"],
            str(result["in_flight"]),
            *(f"{statistics.median(each[way]['p50_ms'] for each in rounds):.2f} ms" for way in ("direct", "gateway")),
            spread(added),
            f"{spread(ratios)}x",
        )
    out = Console(highlight=False)
    out.print(table)
    out.print(machine())


def spread(values: list[float]) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()
