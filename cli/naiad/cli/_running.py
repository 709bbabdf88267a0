"""Which server a command means when it is not told one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from naiad.server import RunningServer

DEFAULT_URL: Final = "grpc://127.0.0.1:8001"
URL_HELP: Final = "The server's gRPC address; by default the `naiad serve` that runs here, or port 8001."


def running_url() -> str:
    """Return the address of the one `naiad serve` that runs, the default port's where none does."""
    servers = _found(None)
    if len(servers) > 1:
        addresses = ", ".join(_url(server) for server in servers)
        raise typer.BadParameter(f"several servers run here: say which with --url ({addresses})")
    return _url(servers[0]) if servers else DEFAULT_URL


def admin_secret(url: str) -> str | None:
    """Return the secret of the `naiad serve` that listens there, where there is one that this user may control."""
    servers = _found(url)
    return servers[0].admin_secret or None if servers else None


def replicas_behind(url: str) -> tuple[str, str] | None:
    """Return the addresses and the secret of the replicas that serve behind a gateway; None where none is known.

    A gateway answers for one of them at a time: who wants the figures of all, such as their statistics, asks them.
    """
    servers = [server for server in _found(url) if server.replicas]
    if not servers:
        return None
    return f"grpc://{','.join(servers[0].replicas)}", servers[0].replica_secret


def _found(url: str | None) -> tuple[RunningServer, ...]:
    try:
        from naiad.server import find_running
    except ImportError:  # the server's extra is not installed
        return ()
    return find_running(url)


def _url(server: RunningServer) -> str:
    return f"{'grpcs' if server.tls else 'grpc'}://{server.grpc_address}"
