"""What `naiad serve` prints: addresses, and how to call what it serves."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.logging import RichHandler
from rich.table import Table

from naiad.cli._console import err, out

if TYPE_CHECKING:
    from naiad.cli.serve._stack import Stack
    from naiad.server import EmbeddedTriton

__all__ = ["show_log", "show_stack", "show_triton"]

_LOGGERS = ("naiad.server", "naiad.deploy")
_CTRL_C = "[dim]Ctrl-C stops it.[/]"


def show_log(*, verbose: bool) -> None:
    """Print what the servers and the gateway log."""
    handler = RichHandler(console=err, show_path=False, markup=False, log_time_format="%X")
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG if verbose else logging.INFO)
        logger.addHandler(handler)


def show_triton(triton: EmbeddedTriton, repository: str, *, as_json: bool) -> None:
    """Print where one Triton listens."""
    if as_json:
        addresses = {
            "grpc_url": triton.grpc_url,
            "http_url": triton.http_url,
            "metrics_url": triton.metrics_url,
            "pid": triton.pid,
            "repository": _absolute(repository),
            "models": triton.models,
            "log_path": str(triton.log_path),
        }
        out.print(json.dumps(addresses), markup=False)
        return
    table = _table()
    table.add_row("gRPC", triton.grpc_url)
    table.add_row("HTTP", triton.http_url)
    table.add_row("metrics", triton.metrics_url)
    table.add_row("models", ", ".join(triton.models) or "none")
    table.add_row("log", str(triton.log_path))
    out.print(table)
    err.print(_CTRL_C)


def show_stack(stack: Stack, control: Path, *, as_json: bool) -> None:
    """Print where the gateway and its replicas listen."""
    gateway, servers = stack.gateway, stack.servers
    models = sorted({model for server in servers.values() for model in server.models})
    if as_json:
        addresses = {
            "service": stack.service.name,
            "grpc_url": gateway.grpc_url,
            "http_url": gateway.http_url,
            "metrics_url": gateway.metrics_url,
            "pid": gateway.pid,
            "repository": _absolute(str(stack.repository)),
            "models": models,
            "log_path": str(gateway.log_path),
            "control": str(control),
            "replicas": [_replica(name, server) for name, server in servers.items()],
        }
        out.print(json.dumps(addresses), markup=False)
        return
    table = _table()
    table.add_row("gRPC", gateway.grpc_url)
    table.add_row("HTTP", gateway.http_url)
    table.add_row("metrics", gateway.metrics_url)
    table.add_row("models", ", ".join(models) or "none")
    for name, server in servers.items():
        table.add_row(name, f"{server.grpc_address}, metrics {server.metrics_url}, log {server.log_path}")
    table.add_row("call it", _call(stack, models))
    table.add_row("restart", "naiad serve --reload")
    out.print(table)
    err.print(_CTRL_C)


def _replica(name: str, server: EmbeddedTriton) -> dict[str, Any]:
    return {
        "name": name,
        "grpc_url": server.grpc_url,
        "http_url": server.http_url,
        "metrics_url": server.metrics_url,
        "pid": server.pid,
        "log_path": str(server.log_path),
    }


def _call(stack: Stack, models: list[str]) -> str:
    if stack.key:
        return f"naiad infer {models[0] if models else 'MODEL'}"
    options = ', tls=TLS(root_certificates="…")' if stack.service.tls else ""
    return f'Client("{stack.gateway.grpc_url}"{options}, metadata={{"x-api-key": "…"}})'


def _absolute(repository: str) -> str:
    return repository if "://" in repository else str(Path(repository).absolute())


def _table() -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    return table
