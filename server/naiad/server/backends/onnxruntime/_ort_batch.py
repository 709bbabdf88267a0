"""Joins requests into one batch and splits its outputs again, without a copy where none is needed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _ort_errors import OutputError, mismatch
from _ort_ragged import batch_inputs, scatter
from _ort_signature import OutputSpec, Signature
from _ort_states import Turn
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One request: its place in the call, its tensors, its rows, and the outputs that the client wants."""

    index: int
    inputs: Mapping[str, NDArray[Any]]
    rows: int
    wanted: frozenset[str]
    turn: Turn | None = None
    """Its place in a sequence whose model keeps states."""


def groups(jobs: Iterable[Job], signature: Signature) -> list[list[Job]]:
    """The jobs that can run together: of a batching model, those of equal shapes, ragged inputs apart."""
    if not signature.batched:
        return [[job] for job in jobs]
    ragged = {name for name, spec in signature.inputs.items() if spec.ragged}
    found: dict[object, list[Job]] = {}
    for job in jobs:
        key = frozenset((name, None if name in ragged else array.shape[1:]) for name, array in job.inputs.items())
        found.setdefault(key, []).append(job)
    return list(found.values())


def join(jobs: Sequence[Job], signature: Signature) -> Arrays:
    """The model's inputs for one run: the request's own arrays for one job, concatenated rows for several."""
    joined = {name: _joined([job.inputs[name] for job in jobs], name, signature) for name in jobs[0].inputs}
    return joined | batch_inputs(signature.batch_inputs, [job.inputs for job in jobs])


def _joined(arrays: Sequence[NDArray[Any]], name: str, signature: Signature) -> NDArray[Any]:
    spec = signature.inputs[name]
    if spec.ragged:
        arrays = [array.reshape(-1) for array in arrays]
    if spec.scalar:
        return arrays[0].reshape(())
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def split(jobs: Sequence[Job], outputs: Mapping[str, NDArray[Any]], signature: Signature) -> list[Arrays]:
    """Each job's outputs, as views of the batch's.

    Raises ``OutputError`` where an output contradicts the configuration in type or shape, or where its rows are
    not those of the batch: Triton itself would pass anything on to the client.
    """
    parts: list[Arrays] = [{} for _ in jobs]
    for name, output in outputs.items():
        spec = signature.outputs[name]
        _check_type(spec, output, signature)
        for part, piece in zip(parts, _pieces(spec, output, jobs, signature), strict=True):
            part[name] = piece
    return parts


def _pieces(
    spec: OutputSpec, output: NDArray[Any], jobs: Sequence[Job], signature: Signature
) -> Sequence[NDArray[Any]]:
    if spec.scatter_source is not None:
        return scatter(spec.name, output, spec.shape, [job.inputs[spec.scatter_source].shape for job in jobs])
    if spec.scalar_dims is not None and output.ndim == 0:
        return [output.reshape(spec.scalar_dims)]
    rows = sum(job.rows for job in jobs)
    shape = (rows, *spec.shape[1:]) if signature.batched else spec.shape
    if not _fits(output.shape, shape):
        raise _shape_error(spec, output, shape, signature)
    return [output] if len(jobs) == 1 else _rows(output, jobs)


def _rows(output: NDArray[Any], jobs: Sequence[Job]) -> list[NDArray[Any]]:
    pieces, start = [], 0
    for job in jobs:
        pieces.append(output[start : start + job.rows])
        start += job.rows
    return pieces


def _fits(found: Sequence[int], expected: Sequence[int]) -> bool:
    return len(found) == len(expected) and all(
        ours in (-1, theirs) for ours, theirs in zip(expected, found, strict=True)
    )


def _check_type(spec: OutputSpec, output: NDArray[Any], signature: Signature) -> None:
    if output.dtype != spec.data_type.numpy:
        message = mismatch(
            f"model '{signature.model}', output '{spec.name}'",
            expected=f"{spec.data_type.triton} as configured",
            found=output.dtype,
            advice="correct config.pbtxt or export the model again",
        )
        raise OutputError(message)


def _shape_error(spec: OutputSpec, output: NDArray[Any], shape: Sequence[int], signature: Signature) -> OutputError:
    batch = " (the first dimension is the batch's)" if signature.batched else ""
    message = mismatch(
        f"model '{signature.model}', output '{spec.name}'",
        expected=f"shape {list(shape)}{batch}",
        found=list(output.shape),
        advice="correct the dims in config.pbtxt, or the model if it mixes the rows of a batch",
    )
    return OutputError(message)
