"""`naiad deploy status`: what a running gateway tells about itself and its replicas."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from naiad.cli._console import out, print_json
from naiad.cli.deploy._common import JsonOption

if TYPE_CHECKING:
    from naiad.deploy.gateway import GatewayStatus, RunningGateway
    from naiad.deploy.metrics import PoolStatus


def status(
    metrics_url: Annotated[
        str | None,
        typer.Option("--metrics-url", metavar="URL", help="A gateway elsewhere, by its metrics: http://gateway:9901."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the gateways that run here: replicas, which of them answer, are drained, and how much is in flight.

    Exit codes: 0 every replica that should answer does, 1 one does not, or no gateway runs.

    Examples:

        naiad deploy status

        docker compose run --rm tools deploy status --metrics-url http://gateway:9901
    """
    ok = _show_remote(metrics_url, as_json) if metrics_url is not None else _show_local(as_json)
    if not ok:
        raise typer.Exit(1)


def _show_local(as_json: bool) -> bool:
    from naiad.deploy import GatewayError
    from naiad.deploy.gateway import running_gateways

    found = [(gateway, _ask(gateway)) for gateway in running_gateways()]
    if as_json:
        print_json([_as_dict(gateway, told) for gateway, told in found])
    elif not found:
        raise GatewayError(
            "no gateway of this user runs on this machine: `naiad serve --replicas 2 --gateway` starts one; "
            "--metrics-url names one elsewhere"
        )
    else:
        for gateway, told in found:
            out.print(_table(gateway, told) if told is not None else f"{gateway.grpc_url}  [red]does not answer[/]")
    return bool(found) and all(told is not None and told.ok for _, told in found)


def _ask(gateway: RunningGateway) -> GatewayStatus | None:
    """Return what it tells; None where it is starting, restarting, or hangs."""
    from naiad.deploy import GatewayError

    try:
        return gateway.status()
    except GatewayError:
        return None


def _show_remote(url: str, as_json: bool) -> bool:
    from naiad.deploy.metrics import read_pools

    pools = read_pools(url)
    if as_json:
        print_json([{**asdict(pool), "ok": pool.ok} for pool in pools])
    else:
        out.print(_pools(url, pools))
    return bool(pools) and all(pool.ok for pool in pools)


def _table(gateway: RunningGateway, told: GatewayStatus) -> Table:
    table = Table(title=f"{gateway.grpc_url}  {_facts(told)}", title_justify="left")
    for column in ("replica", "state", "in flight", "requests", "errors"):
        table.add_column(column, justify="left" if column in ("replica", "state") else "right")
    for replica in told.replicas:
        drained = "[yellow]drained[/]" if replica.num_in_flight == 0 else "[yellow]draining[/]"
        state = drained if not replica.admitted else "[green]healthy[/]" if replica.healthy else "[red]unhealthy[/]"
        counts = (replica.num_in_flight, replica.num_requests, replica.num_errors)
        table.add_row(replica.name, state, *(f"{count:,}" for count in counts))
    return table


def _facts(told: GatewayStatus) -> str:
    facts = [
        f"{told.num_connections:,} connections",
        f"{told.num_in_flight:,} in flight",
        f"{told.num_requests:,} requests",
        f"{told.num_refused:,} refused",
    ]
    if told.certificate_days is not None:
        facts.append(f"certificate ends in {told.certificate_days} days")
    return ", ".join(facts)


def _pools(url: str, pools: tuple[PoolStatus, ...]) -> Table:
    table = Table(title=url, title_justify="left")
    for column in ("pool", "replicas", "healthy", "in flight", "requests"):
        table.add_column(column, justify="left" if column == "pool" else "right")
    for pool in pools:
        healthy = f"[{'green' if pool.ok else 'red'}]{pool.num_healthy}[/]"
        table.add_row(pool.name, str(pool.num_replicas), healthy, f"{pool.num_in_flight:,}", f"{pool.num_requests:,}")
    return table


def _as_dict(gateway: RunningGateway, told: GatewayStatus | None) -> dict[str, Any]:
    return {
        "grpc_url": gateway.grpc_url,
        "metrics_url": gateway.metrics_url,
        "pid": gateway.pid,
        "ok": told is not None and told.ok,
        **(asdict(told) if told is not None else {}),
    }
