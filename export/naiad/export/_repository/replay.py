"""Golden pairs sent to a running server: whether what it serves answers as PyTorch did."""

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from naiad.client import Client, ClientError, ModelMetadata, ModelNotFound, Result, ServerUnavailable
from naiad.export._repository.golden import Arrays, Pair
from naiad.export._repository.served import OutputDistance, ServedVersion
from naiad.export._verify import measures as _measures
from naiad.export.report import Report, Tolerance

_NOT_READY = "the version is there but not ready: it is loading, or it failed to load (the server's log says why)"
_WIRE = {"STRING": "BYTES"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What a version is known by."""

    model: str
    version: int
    pairs: tuple[Pair, ...]
    inputs: Mapping[str, str]
    """Triton's data types by name, as the configuration has them."""
    outputs: Mapping[str, str]
    precision: str
    tolerance: Tolerance
    near_ties: Mapping[str, int]
    """By output, how many integers or flags may differ, because their scores are nearly equal."""
    alone_with: tuple[int, ...] | None = None
    """The versions that a server should serve and no others; None where that is not asked."""


def expected(model: str, version: int, manifest: Mapping[str, Any], pairs: tuple[Pair, ...]) -> Expected:
    """Return what a version with this manifest should answer."""
    report = Report.from_dict(manifest["report"]) if "report" in manifest else None
    precision = manifest.get("precision", "fp32")
    return Expected(
        model=model,
        version=version,
        pairs=pairs,
        inputs={tensor["name"]: tensor["dtype"] for tensor in manifest.get("inputs", ())},
        outputs={tensor["name"]: tensor["dtype"] for tensor in manifest.get("outputs", ())},
        precision=precision,
        tolerance=report.tolerance if report else Tolerance.of(precision),
        near_ties={parity.output: parity.num_near_ties for parity in report.parity} if report else {},
    )


def replay(client: Client, wanted: Expected, *, timeout_s: float) -> ServedVersion:
    """Send every pair to the one server of a client and compare the answers.

    What goes wrong is a problem of the outcome, never an exception: nobody answers, the version is not served,
    another model has its name.
    """
    try:
        problems = _unfit(client, wanted, timeout_s)
        if problems:
            return _outcome(client, wanted, 0, (), problems)
        answers = list(_answers(client, wanted, timeout_s))
        others = list(_others(client, wanted, timeout_s))
    except ClientError as error:
        return _outcome(client, wanted, 0, (), [str(error)])
    outputs, problems = _compare(wanted, answers)
    return _outcome(client, wanted, len(answers), outputs, [*problems, *others])


def _outcome(
    client: Client, wanted: Expected, num_pairs: int, outputs: Sequence[OutputDistance], problems: Sequence[str]
) -> ServedVersion:
    return ServedVersion(
        model=wanted.model,
        version=wanted.version,
        server=client.url,
        num_pairs=num_pairs,
        outputs=tuple(outputs),
        problems=tuple(problems),
    )


def _unfit(client: Client, wanted: Expected, timeout_s: float) -> list[str]:
    """Return why it makes no sense to send a request there."""
    if not client.live():
        return ["nobody answers there: start the server, or correct the address"]
    try:
        metadata = client.model_metadata(wanted.model, wanted.version, timeout_s=timeout_s)
    except ModelNotFound:
        return [_not_served(client, wanted, timeout_s)]
    except ServerUnavailable:
        return [_NOT_READY]
    problems = [*_differences("input", wanted.inputs, metadata), *_differences("output", wanted.outputs, metadata)]
    if problems:
        problems.append("another model is served under this name, or another repository")
    elif client.model_config(wanted.model, wanted.version, timeout_s=timeout_s).model_transaction_policy.decoupled:
        problems.append("the model is decoupled, so that a request has no single answer to compare")
    elif not client.ready(wanted.model, wanted.version):
        problems.append(_NOT_READY)
    return problems


def _not_served(client: Client, wanted: Expected, timeout_s: float) -> str:
    try:
        served = client.model_metadata(wanted.model, timeout_s=timeout_s).versions
    except ModelNotFound:
        return f"the server has no model {wanted.model!r}: load it, or name the server of this repository"
    except ClientError as error:
        return str(error)
    return (
        f"the server has version {', '.join(served) or 'none'} of {wanted.model} and not {wanted.version}: it has not "
        "followed the last promotion, or it serves another repository"
    )


def _others(client: Client, wanted: Expected, timeout_s: float) -> Iterator[str]:
    if wanted.alone_with is None:
        return
    there = client.model_metadata(wanted.model, timeout_s=timeout_s).versions
    others = [version for version in there if version not in map(str, wanted.alone_with)]
    if others:
        yield (
            f"the server also has version {', '.join(others)} of {wanted.model}, which should not be served: it has "
            "not followed the last promotion, or it serves another repository"
        )


def _differences(kind: str, wanted: Mapping[str, str], metadata: ModelMetadata) -> Iterator[str]:
    tensors = metadata.inputs if kind == "input" else metadata.outputs
    there = {tensor.name: tensor.datatype for tensor in tensors}
    for name, datatype in wanted.items():
        if name not in there:
            yield f"{kind} {name!r} is not known there, which has {', '.join(map(str, tensors)) or 'none'}"
        elif there[name] != _WIRE.get(datatype, datatype):
            yield f"{kind} {name!r} is {there[name]} there and {datatype} in the manifest"


def _answers(client: Client, wanted: Expected, timeout_s: float) -> Iterator[tuple[Pair, Arrays]]:
    config = client.model_config(wanted.model, wanted.version, timeout_s=timeout_s)
    ranks = {
        tensor.name: len(tensor.shape)
        for tensor in client.model_metadata(wanted.model, wanted.version, timeout_s=timeout_s).inputs
    }
    stateful = config.HasField("sequence_batching")
    limit = min(config.max_batch_size, 1) if stateful else config.max_batch_size
    for pair in wanted.pairs:
        inputs = {name: _ranked(array, ranks.get(name, array.ndim)) for name, array in pair.inputs.items()}
        rows = pair.num_rows if config.max_batch_size else 0
        parts = [slice(start, start + limit) for start in range(0, rows, limit)] if limit else [slice(None)]
        answers = [
            _infer(client, wanted, inputs if len(parts) == 1 else _cut(inputs, part), timeout_s, alone=stateful)
            for part in parts
        ]
        yield pair, dict(answers[0]) if len(answers) == 1 else _joined(answers)


def _infer(client: Client, wanted: Expected, inputs: Arrays, timeout_s: float, *, alone: bool) -> Result:
    keywords: Any = {}
    if alone:  # a sequence of one request, from the state that a sequence begins with
        keywords = {"sequence_id": secrets.randbits(31) + 1, "sequence_start": True, "sequence_end": True}
    return client.infer(wanted.model, inputs, version=wanted.version, idempotent=True, timeout_s=timeout_s, **keywords)


def _joined(answers: Sequence[Result]) -> Arrays:
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _cut(inputs: Arrays, rows: slice) -> Arrays:
    return {name: array[rows] for name, array in inputs.items()}


def _ranked(array: np.ndarray[Any, Any], rank: int) -> np.ndarray[Any, Any]:
    """Return an array of as many dimensions as the server wants: a scalar is [1] there."""
    return array.reshape(array.shape + (1,) * (rank - array.ndim)) if rank > array.ndim else array


def _compare(wanted: Expected, answers: Sequence[tuple[Pair, Arrays]]) -> tuple[list[OutputDistance], list[str]]:
    worst: dict[str, OutputDistance] = {}
    problems: dict[str, str] = {}
    scales = {
        name: max(_measures.scale_of(pair.outputs[name]) for pair, _ in answers if name in pair.outputs)
        for name in {name for pair, _ in answers for name in pair.outputs}
    }
    for pair, found in answers:
        for name, array in pair.outputs.items():
            if name not in found:
                problems.setdefault(name, f"output {name!r} is not in the answer")
                continue
            distance, problem = _distance(wanted, name, found[name], array, scales[name])
            if name not in worst or distance.max_rel_error > worst[name].max_rel_error:
                worst[name] = distance
            if problem:
                problems.setdefault(name, f"output {name!r} differs from PyTorch in case {pair.case}: {problem}")
    return list(worst.values()), list(problems.values())


def _distance(
    wanted: Expected, name: str, found: np.ndarray[Any, Any], array: np.ndarray[Any, Any], scale: float
) -> tuple[OutputDistance, str]:
    if found.shape != array.shape and [s for s in found.shape if s != 1] == [s for s in array.shape if s != 1]:
        found = found.reshape(array.shape)  # a scalar is [1] to the server
    if found.shape != array.shape:
        distance = OutputDistance(output=name, max_abs_error=math.inf, max_rel_error=math.inf)
        return distance, f"it has shape {list(found.shape)}, expected {list(array.shape)}"
    difference = _measures.difference(found, array, wanted.tolerance.for_output(name), scale)
    distance = OutputDistance(
        output=name, max_abs_error=difference.max_abs_error, max_rel_error=difference.max_rel_error
    )
    num_differing = round(difference.max_rel_error * array.size)
    if not difference.ok and not _measures.is_float(array.dtype) and num_differing <= wanted.near_ties.get(name, 0):
        return distance, ""
    return distance, difference.reason
