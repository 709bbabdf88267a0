"""The requests of a model's traffic, serialised beforehand, with what differs from one sending to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from naiad.loadtest._data import codec
from naiad.loadtest._data.answers import AnswerCheck, checker
from naiad.loadtest._data.codec import request_id_suffix as request_id_suffix
from naiad.loadtest._data.codec import sequence_suffix as sequence_suffix
from naiad.loadtest._data.files import file_samples
from naiad.loadtest._data.golden import golden_samples
from naiad.loadtest._data.samples import Samples
from naiad.loadtest._data.shared_memory import Regions, Slots, output_sizes, place_inputs
from naiad.loadtest._data.signature import Signature
from naiad.loadtest._data.stream import outputs_in
from naiad.loadtest._data.synthetic import synthetic_samples
from naiad.loadtest.errors import InvalidData
from naiad.loadtest.plan import Connection, Golden, Synthetic, Traffic

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Payloads", "make_payloads", "request_id_suffix", "sequence_suffix"]


class Payloads:
    """What to send to one model; a context manager, as shared memory may belong to it."""

    def __init__(
        self,
        requests: Sequence[bytes],
        samples: Samples,
        *,
        check: AnswerCheck | None = None,
        regions: Regions | None = None,
        slots: Slots | None = None,
    ) -> None:
        self.requests = requests
        """A serialised ModelInferRequest each, to which suffixes may be appended."""
        self.steps: Sequence[tuple[int, ...]] = samples.steps
        """Recorded sequences: the indices of each one's requests in their order; empty where any may follow any."""
        self.check = check
        """Compares answers with what the data expects; ``None`` where nothing is to be compared."""
        self.notes: Sequence[str] = samples.notes
        """What a reader of the report has to know about the data; there may be more of it at the end."""
        self.request_bytes = max(map(len, requests))
        """Size of the largest request; what lies in shared memory is not part of it."""
        self._regions = regions
        self._slots = slots

    @property
    def num_samples(self) -> int:
        """How many different requests there are."""
        return len(self.requests)

    def output_suffix(self, slot: int) -> bytes:
        """Return what says where the outputs of the request in ``slot`` go; empty without shared memory.

        A slot belongs to one request in flight at a time; slots are counted from 0.
        """
        return self._slots.suffix(slot) if self._slots is not None else b""

    def lost(self, slot: int) -> None:
        """Note that nobody knows when the server is done with the request in ``slot``: the next one gets other memory.

        That is a request whose deadline passed, or that was cancelled.
        """
        if self._slots is not None:
            self._slots.lost(slot)

    def close(self) -> None:
        """Give back what the server was told about; doing it twice does nothing."""
        if self._regions is not None:
            self._regions.close()

    def __enter__(self) -> Payloads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def make_payloads(
    traffic: Traffic, signature: Signature, *, seed: int, connection: Connection | None = None, num_slots: int = 64
) -> Payloads:
    """Return the requests that ``traffic`` asks for, at least one.

    ``connection`` and ``num_slots`` (requests in flight at a time, as far as known) are for shared memory only.

    Raises:
        InvalidData: the data does not fit the model.
        InvalidPlan: there is no shared memory to be had, or the server takes none.
        naiad.client.ClientError: the server does not answer.
    """
    check_traffic(traffic, signature)
    samples = make_samples(traffic, signature, seed)
    if traffic.shared_memory:
        assert connection is not None
        return _placed(traffic, signature, samples, connection, num_slots)
    requests = [codec.encode_inputs(traffic.model, traffic.version, sample.inputs) for sample in samples.samples]
    key = outputs_in if traffic.stream else bytes  # ids tell a stream's requests apart
    check = checker(samples.samples, key=key) if traffic.check else None
    return Payloads(_wishing(traffic, requests), samples, check=check)


def _placed(
    traffic: Traffic, signature: Signature, samples: Samples, connection: Connection, num_slots: int
) -> Payloads:
    """Put the inputs into shared memory, and make room for the outputs."""
    regions, slots = Regions(connection), None
    try:
        if signature.decoupled:  # several answers would overwrite each other
            samples.notes.append("inputs are in shared memory; the answers of a decoupled model come over the stream")
        else:
            sizes = output_sizes(connection, traffic, signature, samples.samples)
            slots = Slots(regions, sizes, num_slots, samples.notes)
        requests = place_inputs(regions, traffic, samples.samples)
    except BaseException:
        regions.close()
        raise
    check = None
    if traffic.check and slots is not None:
        check = checker(samples.samples, slots.decode, key=None)
    return Payloads(_wishing(traffic, requests), samples, check=check, regions=regions, slots=slots)


def _wishing(traffic: Traffic, requests: list[bytes]) -> list[bytes]:
    """Add the wish to be told of the end of a stream's answers."""
    if not traffic.stream:
        return requests
    suffix = codec.final_suffix()
    return [request + suffix for request in requests]


def _check_outputs(traffic: Traffic, samples: Samples) -> None:
    if traffic.check and not all(sample.outputs for sample in samples.samples):
        raise InvalidData(
            "check compares answers with expected ones, and the data has none: add them (output/<name> in .npz, "
            '"outputs" in JSON lines), or leave check out',
            model=traffic.model,
        )


def make_samples(traffic: Traffic, signature: Signature, seed: int) -> Samples:
    """Return the samples that ``traffic`` asks for, at least one.

    Raises:
        InvalidData: they do not fit the model, or have nothing to check answers with.
    """
    samples = _samples(traffic, signature, seed)
    _check_outputs(traffic, samples)
    return samples


def _samples(traffic: Traffic, signature: Signature, seed: int) -> Samples:
    data, batch = traffic.data, traffic.batch
    if isinstance(data, Synthetic):
        return synthetic_samples(data, signature, batch=batch, seed=seed)
    if isinstance(data, Golden):
        return golden_samples(data.path, signature, batch=batch, sequences=traffic.sequence is not None)
    return file_samples(data, signature, batch=batch, sequences=traffic.sequence is not None)


def check_traffic(traffic: Traffic, signature: Signature) -> None:
    """Refuse what the model would refuse.

    Raises:
        InvalidData: the batch is too large, or the model wants a stream or sequences that there are not to be.
    """
    model, limit, batch = signature.name, signature.max_batch_size, traffic.batch
    if batch > max(limit, 1):
        found = f"at most {limit}" if limit else "1 (the model does not batch: max_batch_size is 0)"
        raise InvalidData(f"expected a batch of {found} for model '{model}', found {batch}", model=model)
    if signature.decoupled and not traffic.stream:
        raise InvalidData(
            f"model '{model}' is decoupled, it answers over a stream only: set stream = true", model=model
        )
    if signature.decoupled and traffic.check:
        raise InvalidData(
            f"model '{model}' gives any number of answers to a request (decoupled), which check cannot compare: "
            "leave it out",
            model=model,
        )
    if signature.stateful and traffic.sequence is None:
        raise InvalidData(f"model '{model}' keeps state for sequences: say how long they are (sequence)", model=model)
    if traffic.sequence is not None and batch > 1:
        raise InvalidData(f"expected a batch of 1 for requests of sequences, found {batch}", model=model)
