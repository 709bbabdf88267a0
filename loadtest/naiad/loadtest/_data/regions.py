"""Regions of shared memory that a server knows from this process, and those that dead processes left behind.

They carry the name of an owner whose lock tells if it lives: regions of a generator that was killed are removed by the
next one, or by the next client.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Final

from naiad.client import AccessDenied, Client, ClientError, InvalidInput, ServerUnavailable
from naiad.loadtest._data import codec
from naiad.loadtest._data.codec import Owner, Segment
from naiad.loadtest._data.target import connect
from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.plan import Connection

__all__ = ["Regions", "reap"]

_EXTENSION: Final = "system_shared_memory"
_FIRST_SAFE_VERSION: Final = (2, 50)  # older ones die when memory is unregistered that they still use
_LEAVE_S: Final = 1.0
_STILL_IN_USE_S: Final = 0.02


class Regions:
    """The regions that one server knows from this process, until they are closed."""

    def __init__(self, connection: Connection) -> None:
        """Ask the server whether it takes shared memory, and remove what dead processes left there.

        Raises:
            InvalidPlan: it does not.
            naiad.client.ClientError: it does not answer.
        """
        self._connection = connection
        self._segments: list[Segment] = []
        with connect(connection) as client:
            _check_server(client)
            reap(client)
        try:
            self._owner = Owner()
        except OSError as exc:
            raise InvalidPlan(f"expected shared memory on this machine, found none: {exc}") from exc

    def add(self, size_bytes: int) -> Segment:
        """Make a region and register it.

        Raises:
            InvalidPlan: there is not that much memory, or the server refuses it.
            naiad.client.ClientError: it does not answer.
        """
        try:
            segment = self._owner.segment(size_bytes)
        except OSError as exc:
            raise InvalidPlan(
                f"expected {size_bytes >> 10} KiB of shared memory for requests or answers, could not have it: {exc}; "
                "send fewer different or smaller requests at a time, or leave shared memory out"
            ) from exc
        self._segments.append(segment)
        try:
            with connect(self._connection) as client:
                _register(client, segment)
        except InvalidPlan:  # the server said no: it has nothing to forget
            self._segments.remove(segment)
            segment.unlink()
            raise
        return segment

    def close(self) -> None:
        """Unregister and remove all regions; doing it twice does nothing."""
        segments, self._segments = self._segments, []
        try:
            if segments:
                with suppress(ClientError), connect(self._connection, _LEAVE_S) as client:
                    _unregister(client, [segment.name for segment in segments])
        finally:
            for segment in segments:
                segment.unlink()
                segment.let_go()
            self._owner.close()


def reap(client: Client) -> None:
    """Remove the regions of processes that are gone, here and at the server."""
    codec.sweep()
    with suppress(ClientError):
        for name in filter(codec.is_orphan, codec.registered(client)):
            with suppress(InvalidInput):  # a request of the dead still runs: the next one who comes will do it
                codec.unregister(client, name)


def _check_server(client: Client) -> None:
    metadata = client.server_metadata()
    if _EXTENSION not in metadata.extensions:
        raise InvalidPlan(f"{client.url} takes no shared memory (no extension {_EXTENSION}): leave shared memory out")
    version = tuple(int(part) for part in re.findall(r"\d+", metadata.version)[:2])
    if metadata.name == "triton" and version < _FIRST_SAFE_VERSION:
        raise InvalidPlan(
            f"expected Triton 2.50 or later at {client.url} for shared memory, found {metadata.version}, which may die "
            "when memory is given back: leave shared memory out"
        )


def _register(client: Client, segment: Segment) -> None:
    try:
        codec.register(client, segment)
    except AccessDenied as exc:
        raise InvalidPlan(
            f"{client.url} lets only those register shared memory who have its admin secret: "
            "give it with the address (grpc://:SECRET@host:port), or leave shared memory out"
        ) from exc
    except ServerUnavailable:
        raise
    except ClientError as exc:
        raise InvalidPlan(
            f"{client.url} does not take this machine's shared memory, it has to run here and see the same /dev/shm: "
            f"{exc}"
        ) from exc


def _unregister(client: Client, names: list[str]) -> None:
    """Unregister regions, those still in use again until a moment has passed: a cancelled request ends soon."""
    deadline = time.monotonic() + _LEAVE_S
    while names:
        left = []
        for name in names:
            try:
                codec.unregister(client, name)
            except ServerUnavailable:
                return
            except ClientError:
                left.append(name)
        names = left
        if time.monotonic() > deadline:
            return
        if names:
            time.sleep(_STILL_IN_USE_S)
