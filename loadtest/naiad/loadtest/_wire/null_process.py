"""The process of a null server: the answer on its input, the port on its output, and its end when the input ends."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Final

from naiad.loadtest._wire.line import Line
from naiad.loadtest._wire.null_connection import NullConnection

__all__ = ["main"]

_BACKLOG: Final = 512


def main() -> int:
    """Serve until the standard input ends; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which still needs answers
    source = sys.stdin.buffer
    size = int.from_bytes(source.read(8), "big")
    answer = source.read(size)
    if len(answer) != size:
        return 1
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:
        listener.setblocking(False)
        with suppress(BrokenPipeError):  # nobody waits for it any more; the input has ended, too
            os.write(sys.stdout.fileno(), f"{listener.getsockname()[1]}\n".encode())
        _serve(listener, source.fileno(), answer)
    return 0


def _serve(listener: socket.socket, lifeline: int, answer: bytes) -> None:
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    poller.register(lifeline, select.POLLIN)
    connections: dict[int, NullConnection] = {}
    while True:
        for number, events in poller.poll():
            if number == lifeline:
                return
            if number == listener.fileno():
                _accept(listener, poller, connections, answer)
                continue
            connection = connections[number]
            if events & select.POLLOUT:
                connection.resume()
            if events & ~select.POLLOUT:
                connection.read()
            if connection.dead:
                poller.unregister(number)
                connection.close()
                del connections[number]
            elif connection.blocked != bool(events & select.POLLOUT):
                poller.modify(number, select.POLLIN | (select.POLLOUT if connection.blocked else 0))


def _accept(
    listener: socket.socket, poller: select.poll, connections: dict[int, NullConnection], answer: bytes
) -> None:
    with suppress(OSError):  # it is gone already, or there are too many
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections[accepted.fileno()] = NullConnection(Line(accepted), answer)
        poller.register(accepted, select.POLLIN)


if __name__ == "__main__":
    sys.exit(main())
