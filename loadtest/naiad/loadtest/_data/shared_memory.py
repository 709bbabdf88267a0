"""Inputs and outputs in memory that this process and the server share.

The inputs of all samples lie in one region, which the server only reads, so that any number of requests refer to them
at a time. Outputs go to a place that belongs to one request in flight (a *slot*). Regions of a generator that was
killed are removed by the next one, or by the next client: they carry the name of an owner whose lock tells if it lives.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from numpy.typing import NDArray

from naiad.client import AccessDenied, Client, ClientError, InvalidInput, ServerUnavailable
from naiad.loadtest._data import codec
from naiad.loadtest._data.codec import InferKeywords, Owner, Place, Segment
from naiad.loadtest._data.samples import Sample, evenly, size_bytes, size_of
from naiad.loadtest._data.signature import Signature
from naiad.loadtest._data.target import connect
from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.plan import Connection, Traffic

__all__ = ["Regions", "Slots", "output_sizes", "place_inputs", "reap"]

_EXTENSION: Final = "system_shared_memory"
_FIRST_SAFE_VERSION: Final = (2, 50)  # older ones die when memory is unregistered that they still use
_ALIGNMENT: Final = 64
_LEAVE_S: Final = 1.0
_STILL_IN_USE_S: Final = 0.02
_MOST_ASKED: Final = 8  # requests that are sent beforehand to learn the sizes of outputs
_ROOM_TO_VARY: Final = 2  # how much larger than those seen outputs may be whose size is not fixed


class Regions:
    """The regions that one server knows from this process; a context manager would be too short: close it."""

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
                "send fewer different or smaller requests at a time, or leave shared_memory out"
            ) from exc
        self._segments.append(segment)
        with connect(self._connection) as client:
            _register(client, segment)
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


class Slots:
    """Places for the outputs of requests in flight, each slot with the same ones."""

    def __init__(self, regions: Regions, sizes_bytes: Mapping[str, int], num_slots: int) -> None:
        """Make room for ``num_slots`` at first.

        Raises:
            InvalidPlan: there is not that much memory.
        """
        self._regions = regions
        self._sizes = dict(sizes_bytes)
        self._slot_bytes = max(_ALIGNMENT, sum(map(_aligned, self._sizes.values())))
        self._places: list[dict[str, Place]] = []
        self._suffixes: list[bytes] = []
        self._full = False
        self._grow(num_slots)

    def suffix(self, slot: int) -> bytes:
        """Return what says where the outputs of the request in ``slot`` go.

        Where there is no memory for so many slots, it is empty: those outputs come in the answer.
        """
        if slot >= len(self._suffixes) and not self._full:
            try:
                self._grow(max(len(self._suffixes), slot + 1 - len(self._suffixes)))
            except (InvalidPlan, ClientError):
                self._full = True
        return self._suffixes[slot] if slot < len(self._suffixes) else b""

    def decode(self, answer: bytes, slot: int) -> Mapping[str, NDArray[Any]]:
        """Read the outputs of the request in ``slot``, as copies.

        Raises:
            naiad.client.InvalidResponse: the answer is none.
        """
        return codec.decode_placed(answer, self._places[slot] if slot < len(self._places) else {})

    def _grow(self, number: int) -> None:
        segment = self._regions.add(number * self._slot_bytes)
        for index in range(number):
            at, places = index * self._slot_bytes, dict[str, Place]()
            for name, size in self._sizes.items():
                places[name] = Place(segment.name, at, size, segment.memory[at : at + size])
                at += _aligned(size)
            self._places.append(places)
            self._suffixes.append(codec.output_suffix(places))


def place_inputs(regions: Regions, traffic: Traffic, samples: Sequence[Sample]) -> list[bytes]:
    """Put the inputs of all samples into one region; return the requests that refer to them.

    Raises:
        InvalidPlan: there is not that much memory, or the server refuses it.
    """
    tensors = [array for sample in samples for array in sample.inputs.values()]
    segment = regions.add(sum(_aligned(size_bytes(array)) for array in tensors) + _ALIGNMENT)
    at = 0

    def room(size: int) -> Place:
        nonlocal at
        place = Place(segment.name, at, size, segment.memory[at : at + size])
        at += _aligned(size)
        return place

    return [codec.encode_placed(traffic.model, traffic.version, sample.inputs, room) for sample in samples]


def output_sizes(
    connection: Connection, traffic: Traffic, signature: Signature, samples: Sequence[Sample]
) -> dict[str, int]:
    """Ask for a few answers (the largest request of each form), and return how much room each output needs.

    Raises:
        naiad.client.ClientError: the server does not answer such a request.
    """
    sizes = dict[str, int]()
    largest = dict[tuple[Any, ...], Sample]()
    for sample in sorted(samples, key=size_of):
        largest[tuple(sorted((name, array.shape) for name, array in sample.inputs.items()))] = sample
    forms = list(largest.values())
    with connect(connection, traffic.timeout_s) as client:
        for index in evenly(len(forms), _MOST_ASKED):
            for name, size in _sizes_of_answer(client, traffic, signature, forms[index]).items():
                sizes[name] = max(size, sizes.get(name, 0))
    return sizes


def _sizes_of_answer(client: Client, traffic: Traffic, signature: Signature, sample: Sample) -> dict[str, int]:
    alone: InferKeywords = {}
    if signature.stateful:
        alone = {"sequence_id": secrets.randbits(62) + 1, "sequence_start": True, "sequence_end": True}
    answer = client.infer(traffic.model, sample.inputs, version=traffic.version, **alone)
    sizes = dict[str, int]()
    for name, array in answer.items():
        tensor = signature.outputs.get(name)
        fixed = tensor is not None and tensor.datatype != "BYTES" and -1 not in signature.row_shape(tensor)
        sizes[name] = size_bytes(array) * (1 if fixed else _ROOM_TO_VARY)
    return sizes


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
        raise InvalidPlan(f"{client.url} takes no shared memory (no extension {_EXTENSION}): leave shared_memory out")
    version = tuple(int(part) for part in re.findall(r"\d+", metadata.version)[:2])
    if metadata.name == "triton" and version < _FIRST_SAFE_VERSION:
        raise InvalidPlan(
            f"expected Triton 2.50 or later at {client.url} for shared memory, found {metadata.version}, which may die "
            "when memory is given back: leave shared_memory out"
        )


def _register(client: Client, segment: Segment) -> None:
    try:
        codec.register(client, segment)
    except AccessDenied as exc:
        raise InvalidPlan(
            f"{client.url} lets only those register shared memory who have its admin secret: "
            "give it with the address (grpc://:SECRET@host:port), or leave shared_memory out"
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


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
