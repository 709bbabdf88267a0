"""Inputs and outputs in memory that this process and the server share.

The inputs of all samples lie in one region, which the server only reads, so that any number of requests refer to them
at a time. Outputs go to a place that belongs to one request in flight (a *slot*). Regions of a generator that was
killed are removed by the next one, or by the next client: they carry the name of an owner whose lock tells if it lives.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from naiad.client import Client, ClientError
from naiad.loadtest._data import codec
from naiad.loadtest._data.codec import InferKeywords, Place
from naiad.loadtest._data.regions import Regions
from naiad.loadtest._data.regions import reap as reap
from naiad.loadtest._data.samples import Sample, evenly, size_bytes, size_of
from naiad.loadtest._data.signature import Signature
from naiad.loadtest._data.target import connect
from naiad.loadtest.errors import InvalidPlan
from naiad.loadtest.plan import Connection, Traffic

__all__ = ["Regions", "Slots", "output_sizes", "place_inputs", "reap"]

_log = logging.getLogger("naiad.loadtest")
_ALIGNMENT: Final = 64
_WRITTEN_WITHIN_S: Final = 60.0  # after a request was given up
_FEWEST_MORE: Final = 16
_MOST_ASKED: Final = 8  # requests that are sent beforehand to learn the sizes of outputs
_ROOM_TO_VARY: Final = 2  # how much larger than those seen outputs may be whose size is not fixed


class Slots:
    """Places for the outputs of requests in flight, each slot with the same ones."""

    def __init__(
        self, regions: Regions, sizes_bytes: Mapping[str, int], num_slots: int, notes: list[str] | None = None
    ) -> None:
        """Make room for ``num_slots`` at first; ``notes`` gets a line if there is none for more later.

        Raises:
            InvalidPlan: there is not that much memory.
        """
        self._regions = regions
        self._sizes = dict(sizes_bytes)
        self._slot_bytes = max(_ALIGNMENT, sum(map(_aligned, self._sizes.values())))
        self._rooms: list[_Room] = []  # by slot
        self._spare: list[_Room] = []
        self._lost: deque[tuple[float, _Room]] = deque()  # and since when
        self._notes = [] if notes is None else notes
        self._full = False
        self._more(num_slots)
        self._fill(num_slots)

    def suffix(self, slot: int) -> bytes:
        """Return what says where the outputs of the request in ``slot`` go.

        Where there is no memory for so many slots, it is empty: those outputs come in the answer.
        """
        if slot >= len(self._rooms):
            self._fill(slot + 1)
        return self._rooms[slot].suffix if slot < len(self._rooms) else b""

    def lost(self, slot: int) -> None:
        """Give the slot other memory, as the server may still write to what it had."""
        if slot >= len(self._rooms):
            return
        now_s = time.monotonic()
        while self._lost and now_s - self._lost[0][0] > _WRITTEN_WITHIN_S:
            self._spare.append(self._lost.popleft()[1])
        room = self._take()
        if room is not None:
            self._lost.append((now_s, self._rooms[slot]))
            self._rooms[slot] = room

    def decode(self, answer: bytes, slot: int) -> Mapping[str, NDArray[Any]]:
        """Read the outputs of the request in ``slot``, as copies.

        Raises:
            naiad.client.InvalidResponse: the answer is none.
        """
        return codec.decode_placed(answer, self._rooms[slot].places if slot < len(self._rooms) else {})

    def _fill(self, number: int) -> None:
        while len(self._rooms) < number:
            room = self._take()
            if room is None:
                return
            self._rooms.append(room)

    def _take(self) -> _Room | None:
        if not self._spare and not self._full:
            try:
                self._more(max(_FEWEST_MORE, len(self._rooms)))
            except (InvalidPlan, ClientError) as exc:
                self._full = True
                found = f"no shared memory for the outputs of more than {len(self._rooms)} requests in flight"
                self._notes.append(f"{found}: those of the others came in their answers")
                _log.warning("%s: %s", found, exc)
        return self._spare.pop() if self._spare else None

    def _more(self, number: int) -> None:
        segment = self._regions.add(number * self._slot_bytes)
        for index in reversed(range(number)):
            at, places = index * self._slot_bytes, dict[str, Place]()
            for name, size in self._sizes.items():
                places[name] = Place(segment.name, at, size, segment.memory[at : at + size])
                at += _aligned(size)
            self._spare.append(_Room(places, codec.output_suffix(places)))


class _Room(NamedTuple):
    """The memory of one slot, and how requests are told about it."""

    places: dict[str, Place]
    suffix: bytes


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
    """Ask for a few answers before the run, and return how much room each output needs.

    One is enough where all sizes are fixed.

    Raises:
        naiad.client.ClientError: the server does not answer such a request.
    """
    sizes = dict[str, int]()
    with connect(connection, traffic.timeout_s) as client:
        for sample in _telling(samples):
            answer = _ask(client, traffic, signature, sample)
            fixed = {name: _has_fixed_size(signature, name) for name in answer}
            for name, array in answer.items():
                size = size_bytes(array) * (1 if fixed[name] else _ROOM_TO_VARY)
                sizes[name] = max(size, sizes.get(name, 0))
            if all(fixed.values()):
                break
    return sizes


def _telling(samples: Sequence[Sample]) -> list[Sample]:
    """Return the largest sample of each form, the largest of all first, and some others where there is room."""
    largest = dict[tuple[Any, ...], Sample]()
    for sample in sorted(samples, key=size_of, reverse=True):
        largest.setdefault(tuple(sorted((name, array.shape) for name, array in sample.inputs.items())), sample)
    forms = list(largest.values())
    asked = [forms[index] for index in evenly(len(forms), _MOST_ASKED)]
    return asked + [samples[index] for index in evenly(len(samples), _MOST_ASKED - len(asked))]


def _ask(client: Client, traffic: Traffic, signature: Signature, sample: Sample) -> Mapping[str, NDArray[Any]]:
    alone: InferKeywords = {}
    if signature.stateful:
        alone = {"sequence_id": secrets.randbits(62) + 1, "sequence_start": True, "sequence_end": True}
    return client.infer(traffic.model, sample.inputs, version=traffic.version, **alone)


def _has_fixed_size(signature: Signature, name: str) -> bool:
    tensor = signature.outputs.get(name)
    return tensor is not None and tensor.datatype != "BYTES" and -1 not in signature.row_shape(tensor)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
