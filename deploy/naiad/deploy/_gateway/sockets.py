"""Options of TCP sockets: a peer that vanished is noticed in seconds, not in the kernel's two hours."""

from naiad.deploy._gateway._document import Message

_SOL_SOCKET, _SO_KEEPALIVE = 1, 9
_IPPROTO_TCP, _TCP_KEEPIDLE, _TCP_KEEPINTVL, _TCP_KEEPCNT, _TCP_USER_TIMEOUT = 6, 4, 5, 6, 18


def keepalive_options(*, idle_s: int = 60, interval_s: int = 10, num_probes: int = 3) -> list[Message]:
    """Linux socket options: probes of an idle connection, and as long a wait for what was sent to be acknowledged."""
    unanswered_ms = (idle_s + interval_s * num_probes) * 1000
    return [
        _option("keepalive", _SOL_SOCKET, _SO_KEEPALIVE, 1),
        _option("first probe, s", _IPPROTO_TCP, _TCP_KEEPIDLE, idle_s),
        _option("between probes, s", _IPPROTO_TCP, _TCP_KEEPINTVL, interval_s),
        _option("probes", _IPPROTO_TCP, _TCP_KEEPCNT, num_probes),
        _option("unacknowledged, ms", _IPPROTO_TCP, _TCP_USER_TIMEOUT, unanswered_ms),
    ]


def _option(description: str, level: int, name: int, value: int) -> Message:
    return {"description": description, "level": level, "name": name, "int_value": value, "state": "STATE_PREBIND"}
