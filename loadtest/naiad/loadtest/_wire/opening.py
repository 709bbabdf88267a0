"""Which wire a run uses."""

from __future__ import annotations

from typing import Literal

from naiad.loadtest._wire.http2 import Http2Wire
from naiad.loadtest._wire.peer import Peer
from naiad.loadtest._wire.seam import Wire
from naiad.loadtest.plan import Connection

__all__ = ["open_wire"]


def open_wire(connection: Connection, *, transport: Literal["http2", "grpcio"] = "http2", connections: int = 1) -> Wire:
    """Connect to the server; that it cannot be reached shows in the events of the first requests.

    Raises:
        naiad.loadtest.InvalidPlan: the URL, a header or a file of the connection is wrong.
    """
    peer = Peer.of(connection)
    if transport == "http2":
        return Http2Wire(peer, connections)
    from naiad.loadtest._wire.grpcio import GrpcioWire

    return GrpcioWire(peer, connections)
