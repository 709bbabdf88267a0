"""The UNIX socket on which a running `naiad serve` takes orders from other commands of the same user.

One order a connection, as a line of JSON; the answer is lines of JSON, the last of which has `ok`:

    {"do": "status"}  →  {"ok": true, "status": {…}}
    {"do": "reload"}  →  {"step": {…}} …  {"ok": true}  or  {"ok": false, "error": "why"}
"""

from __future__ import annotations

import json
import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from naiad.cli.serve._stack import Stack

__all__ = ["Control", "ControlError", "ask"]

_log = logging.getLogger("naiad.server")
_CONNECT_S: Final = 5.0
_LONGEST_LINE: Final = 1 << 20
Say = Callable[[dict[str, Any]], None]


class ControlError(Exception):
    """A running `naiad serve` did not do what it was asked to, or is gone."""


class Control:
    """Takes orders for a stack as long as its `with` block lasts; the socket is for this user only."""

    def __init__(self, stack: Stack, path: Path) -> None:
        self.path = path
        before = os.umask(0o177)
        try:
            self._server = _Server(str(path), _Handler)
        finally:
            os.umask(before)
        self._server.stack = stack
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="control", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    stack: Stack


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        def say(answer: dict[str, Any]) -> None:
            # Who asked may have left; what was begun is ended all the same.
            with suppress(OSError):
                self.wfile.write(json.dumps(answer, default=str).encode() + b"\n")

        try:
            order = json.loads(self.rfile.readline(_LONGEST_LINE))["do"]
        except (ValueError, KeyError, TypeError, OSError):
            say({"ok": False, "error": 'expected one line such as {"do": "status"}, found something else'})
            return
        _obey(self.server.stack, order, say)


def _obey(stack: Stack, order: object, say: Say) -> None:
    try:
        if order == "status":
            say({"ok": True, "status": status_of(stack)})
        elif order == "reload":
            _log.info("Asked for a rolling restart")
            stack.reload(lambda step: say({"step": asdict(step)}))
            say({"ok": True})
        else:
            say({"ok": False, "error": f"expected the order status or reload, found {order!r}"})
    except Exception as exc:  # noqa: BLE001 - who asked is told, and serving goes on
        _log.error("%s: %s", order, exc)
        say({"ok": False, "error": str(exc)})


def status_of(stack: Stack) -> dict[str, Any]:
    """Return what runs, and how each replica does, for programs."""
    status = stack.gateway.status()
    seen = {replica.name: replica for replica in status.replicas}
    replicas = []
    for pool, members in stack.pools.items():
        for name, server in members.servers.items():
            failure = members.failures.get(name)
            known = {"name": name, "pool": pool, "failure": None if failure is None else str(failure)}
            running = {} if failure is not None else {"pid": server.pid, "restarts": server.restarts}
            replicas.append(known | running | (asdict(seen[name]) if name in seen else {}))
    gateway = stack.gateway
    return {
        "service": stack.service.name,
        "grpc_url": gateway.grpc_url,
        "http_url": gateway.http_url,
        "metrics_url": gateway.metrics_url,
        "gateway": {"pid": gateway.pid, "restarts": gateway.restarts},
        "reloading": stack.reloading,
        "replicas": replicas,
    }


def ask(path: str | Path, order: str) -> Iterator[dict[str, Any]]:
    """Give an order and yield the answers as they come.

    Raises:
        ControlError: it was not obeyed, or nobody is there.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_CONNECT_S)
            connection.connect(str(path))
            connection.settimeout(None)
            connection.sendall(json.dumps({"do": order}).encode() + b"\n")
            with connection.makefile("r", encoding="utf-8") as answers:
                for line in answers:
                    answer: dict[str, Any] = json.loads(line)
                    if answer.get("ok") is False:
                        raise ControlError(str(answer.get("error")))
                    yield answer
                    if answer.get("ok"):
                        return
    except OSError as exc:
        raise ControlError(f"expected a `naiad serve` that takes orders at {path}, but: {exc}") from exc
    raise ControlError("the `naiad serve` that was asked ended before it was done")
