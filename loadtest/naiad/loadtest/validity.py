"""Was it the server that was measured? Signs that the generator was the limit instead."""

from __future__ import annotations

from typing import Final

from naiad.loadtest.measurement import Measurement

__all__ = ["generator_limits"]

MAX_CPU_SHARE: Final = 0.7
MIN_IN_FLIGHT_SHARE: Final = 0.8


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
    if server is not None and server.requests and server.in_flight < MIN_IN_FLIGHT_SHARE * measurement.users:
        limits.append(
            f"of {measurement.users} requests in flight only {server.in_flight:.1f} were in the server (less than "
            f"{MIN_IN_FLIGHT_SHARE:.0%}): the others were in the load generator and on the way, so the server "
            "was under less load"
        )
    return limits
