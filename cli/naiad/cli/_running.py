"""Which server a command means when it is not told one."""

from __future__ import annotations

from typing import Final

import typer

DEFAULT_URL: Final = "grpc://127.0.0.1:8001"
URL_HELP: Final = "The server's gRPC address; by default the `naiad serve` that runs here, or port 8001."


def running_url() -> str:
    """Return the address of the one `naiad serve` that runs, the default port's where none does."""
    try:
        from naiad.server import find_running
    except ImportError:  # the server's extra is not installed
        return DEFAULT_URL
    servers = find_running()
    if len(servers) > 1:
        addresses = ", ".join(f"grpc://{server.grpc_address}" for server in servers)
        raise typer.BadParameter(f"several servers run here: say which with --url ({addresses})")
    return f"grpc://{servers[0].grpc_address}" if servers else DEFAULT_URL


def admin_secret(url: str) -> str | None:
    """Return the secret of the `naiad serve` that listens there, where there is one that this user may control."""
    try:
        from naiad.server import find_running
    except ImportError:  # the server's extra is not installed
        return None
    servers = find_running(url)
    return servers[0].admin_secret if servers else None
