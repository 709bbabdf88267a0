"""Finds free loopback ports, and refuses taken ones."""

import random
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from naiad.server.errors import InvalidOption, PortInUse

LOOPBACK: Final = "127.0.0.1"
_LOWEST: Final = 20_000
_MAX_PORT: Final = 65_535


def choose(requested: Sequence[int]) -> tuple[int, ...]:
    """One port for each of `requested`, where 0 asks for any free one; all different.

    Raises: `InvalidOption`, `PortInUse`.
    """
    for port in requested:
        _check(port)
    named = [port for port in requested if port]
    if len(set(named)) != len(named):
        raise InvalidOption(f"Expected different ports for gRPC, HTTP and metrics, found {list(requested)}.")
    taken = set(named)
    return tuple(port or _free(taken) for port in requested)


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback interface now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As Triton does: a connection that still lingers from a former server does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _check(port: int) -> None:
    if not 0 <= port <= _MAX_PORT:
        raise InvalidOption(f"Expected a port between 0 (any free one) and {_MAX_PORT}, found {port}.")
    if port and not is_free(port):
        raise PortInUse(
            f"Port {port} on {LOOPBACK} cannot be used: another program listens there, or the system reserves it. "
            "Name another port, or 0 for a free one.",
            port=port,
        )


def _free(taken: set[int]) -> int:
    # Below the range of outgoing connections: a restarted server finds its port unoccupied, too.
    candidates = range(_LOWEST, _outgoing_from())
    for port in random.sample(candidates, k=min(200, len(candidates))):
        if port not in taken and is_free(port):
            taken.add(port)
            return port
    return _any_free(taken)


def _any_free(taken: set[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            taken.add(port)
            return port


def _outgoing_from() -> int:
    try:
        return max(_LOWEST, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
    except (OSError, ValueError, IndexError):
        return _LOWEST
