"""Stateful models: what goes in as a state and comes out as the next one stays on the server, by sequence.

Triton's implicit states need nothing of the model but that: the first request of a sequence starts at zero, and each
later one gets the state that the one before it left. Clients then send neither and only name their sequence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from naiad.export._configure.batching import Batching
from naiad.export._source.reference import Answer
from naiad.export._source.subject import Subject
from naiad.export.errors import InvalidExport
from naiad.export.report import Choice

_IDLE_US = 60_000_000
_LEAST_CANDIDATES = 256


def apply(config: Any, states: Mapping[str, str], batching: Batching) -> None:
    """Turn inputs and outputs of a configuration into states, `{"h": "h_out"}` for an input `h` and an output `h_out`.

    Raises:
        InvalidExport: A state goes in with another size or type than it comes out, its size varies, or the model has
            no batch dimension.
    """
    if not config.max_batch_size:
        raise InvalidExport(
            "states need a batch dimension, in which the server joins its sequences; export with max_batch_size=1 or "
            "more, and with the batch as the first dimension of every state"
        )
    inputs = {tensor.name: tensor for tensor in config.input}
    outputs = {tensor.name: tensor for tensor in config.output}
    for source, target in states.items():
        _check(source, target, inputs, outputs)
        state = config.sequence_batching.state.add(
            input_name=source, output_name=target, data_type=inputs[source].data_type, dims=inputs[source].dims
        )
        state.initial_state.add(
            name=f"{source}_zero", data_type=state.data_type, dims=inputs[source].dims, zero_data=True
        )
    _remove(config.input, set(states))
    _remove(config.output, set(states.values()))
    _schedule(config, batching)


def first_steps(subject: Subject, answers: Sequence[Answer], states: Mapping[str, str]) -> tuple[Answer, ...]:
    """Return the first step of a sequence in every case: without the states, which are zero, and with its answers."""
    found = []
    with subject.evaluating():
        for answer in answers:
            inputs = {
                name: np.zeros_like(array) if name in states else array for name, array in answer.case.inputs.items()
            }
            outputs = subject.run(inputs)
            sent = {name: array for name, array in inputs.items() if name not in states}
            kept = {name: outputs[name] for name in answer.outputs if name not in states.values()}
            found.append(Answer(case=replace(answer.case, inputs=sent), outputs=kept or outputs))
    return tuple(found)


def require(states: Mapping[str, str], answer: Answer) -> None:
    """Refuse states that the model does not have, before it is captured.

    Raises:
        InvalidExport: There is no such input or output, or all inputs are states.
    """
    inputs, outputs = list(answer.case.inputs), list(answer.outputs)
    for source, target in states.items():
        if source not in inputs or target not in outputs:
            raise InvalidExport(
                f"states name the input {source!r} and the output {target!r}; the model has the inputs {inputs} and "
                f"the outputs {outputs}"
            )
    if states and not set(inputs) - set(states):
        raise InvalidExport("every input is a state; a model needs at least one input that clients send")


def explain(states: Mapping[str, str]) -> Choice:
    """Return what was chosen and why, for the report."""
    names = ", ".join(f"{source} ← {target}" for source, target in states.items())
    reason = "clients send a sequence's requests with its id, the first one with the start flag; the state begins at 0"
    return Choice(field="sequence_batching", value=f"states {names}", reason=reason)


def _check(source: str, target: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    before, after = inputs[source], outputs[target]
    if (before.data_type, list(before.dims)) != (after.data_type, list(after.dims)):
        raise InvalidExport(
            f"the state {source!r} has dims {list(before.dims)} and comes out as {target!r} with {list(after.dims)}, "
            "or with another type; what one step leaves must be what the next one takes"
        )
    if -1 in before.dims or before.HasField("reshape"):
        raise InvalidExport(
            f"the state {source!r} has no fixed size (dims {list(before.dims)}, the batch apart), so it cannot begin "
            "at zero; leave it out of the states, and let clients send it"
        )


def _remove(tensors: Any, names: set[str]) -> None:
    """Leave out what clients no longer send or get; a model whose only outputs are states still answers them."""
    kept = [tensor for tensor in tensors if tensor.name not in names]
    if kept:
        del tensors[:]
        tensors.extend(kept)


def _schedule(config: Any, batching: Batching) -> None:
    """Join the oldest waiting requests of different sequences; unlike fixed slots, it runs no empty ones."""
    sequences = config.sequence_batching
    sequences.max_sequence_idle_microseconds = _IDLE_US
    sequences.oldest.max_candidate_sequences = max(_LEAST_CANDIDATES, 4 * config.max_batch_size)
    if batching.delay_us:
        sequences.oldest.preferred_batch_size.extend(batching.preferred)
        sequences.oldest.max_queue_delay_microseconds = batching.delay_us
