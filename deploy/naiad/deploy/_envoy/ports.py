"""Finds free ports for the gateway."""

import random
import socket
from pathlib import Path
from typing import Final

_LOWEST: Final = 20_000
_TRIES: Final = 200


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens on `port` of `host` now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A connection that still lingers from a former gateway does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free(host: str, taken: set[int]) -> int:
    """A free port that is not in `taken`, below the range of outgoing connections: a restart finds it free, too."""
    candidates = range(_LOWEST, _outgoing_from())
    for port in random.sample(candidates, k=min(_TRIES, len(candidates))):
        if port not in taken and is_free(host, port):
            return port
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def _outgoing_from() -> int:
    try:
        return max(_LOWEST, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
    except (OSError, ValueError, IndexError):
        return _LOWEST
