"""`naiad serve --reload`: has a service that runs restart its replicas, one after the other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from naiad.cli._console import err, out, print_error
from naiad.cli.serve.control import ControlError, ask

if TYPE_CHECKING:
    from naiad.server import RunningServer

__all__ = ["reload"]


def reload(address: str | None, *, as_json: bool) -> None:
    """Ask the one service that runs, or the one at `address`, and show how it goes; exit code 1 if it failed."""
    running = _running(address)
    try:
        for answer in ask(running.control, "reload"):
            if as_json:
                out.print(json.dumps(answer), markup=False)
            elif "step" in answer:
                _show(answer["step"])
    except ControlError as exc:
        if as_json:
            out.print(json.dumps({"ok": False, "error": str(exc)}), markup=False)
        else:
            print_error(str(exc))
        raise typer.Exit(1) from None


def _running(address: str | None) -> RunningServer:
    from naiad.server import find_running

    servers = [server for server in find_running(address) if server.control]
    if len(servers) == 1:
        return servers[0]
    if not servers:
        where = f"at {address}" if address else "on this machine"
        raise typer.BadParameter(
            f"expected a running `naiad serve --gateway` of this user {where}, found none", param_hint="--reload"
        )
    found = ", ".join(server.grpc_address for server in servers)
    raise typer.BadParameter(f"several services run here: say which with --server ({found})", param_hint="--reload")


def _show(step: dict[str, Any]) -> None:
    text = f"{step['elapsed_s']:6.1f} s  {step['replica']}  {step['doing']}"
    (out if step["doing"] == "serving" else err).print(text, markup=False)
