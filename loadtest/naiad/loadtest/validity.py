"""Was it the server that was measured? Signs that the generator was the limit instead."""

from __future__ import annotations

from typing import Final

from naiad.loadtest.measurement import Measurement
from naiad.loadtest.server_times import ServerTimes

__all__ = ["foreign_load", "generator_limits", "is_of_this_run"]

MAX_CPU_SHARE: Final = 0.7
MIN_IN_FLIGHT_SHARE: Final = 0.5  # gRPC and the loopback hold up to a third of small requests of any generator
MIN_USERS: Final = 4  # a few users spend more of their time on the way than in a fast server; that is no fault
_COUNT_TOLERANCE: Final = 0.05  # client and server read their counts a moment apart


def generator_limits(measurement: Measurement) -> list[str]:
    """Return a plain sentence for each sign that the load generator, not the server, set the result.

    Little's law gives the requests that really were in the server: the rate times the time in it.
    """
    limits = []
    if measurement.cpu_share > MAX_CPU_SHARE:
        limits.append(
            f"the load generator used {measurement.cpu_share:.0%} of a core (more than {MAX_CPU_SHARE:.0%}): "
            "it may have been the limit, not the server"
        )
    server = measurement.server
    few = server is not None and server.requests and server.in_flight < MIN_IN_FLIGHT_SHARE * measurement.users
    if server is not None and few and measurement.users >= MIN_USERS:
        limits.append(
            f"of {measurement.users} requests in flight only {server.in_flight:.1f} were in the server (less than "
            f"{MIN_IN_FLIGHT_SHARE:.0%}): the others were in the load generator and on the way, so the server "
            "was under less load"
        )
    return limits


def is_of_this_run(server: ServerTimes, completed: int, users: int) -> bool:
    """Say whether the server counted all requests that succeeded; else it, or the model, began anew in between."""
    # The window lies within the server's two readings; only answers under way when it opened are not in both counts.
    return server.requests >= completed - 2 * users


def foreign_load(measurement: Measurement) -> list[str]:
    """Return a plain sentence where the server answered requests of others within the window."""
    server = measurement.server
    if server is None:
        return []
    others = server.requests - measurement.completed
    if others <= measurement.completed * _COUNT_TOLERANCE + 2 * measurement.users:
        return []
    return [f"the server answered about {others:,} requests of others within the window: its times are theirs, too"]
