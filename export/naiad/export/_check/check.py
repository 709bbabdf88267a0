"""Checks of the exported graph: what it was promised to take, and what it would give once served.

Each of these exports without an error, and shows only as wrong answers or as a refusal of the server.
"""

import re
from collections.abc import Sequence

from naiad.export._capture.graph import Graph
from naiad.export._check.targets import Target, find_target
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples
from naiad.export.errors import CheckFailed
from naiad.export.report import Finding


def check(
    graph: Graph,
    samples: Samples,
    answers: Sequence[Answer],
    *,
    model: str,
    trained: bool,
    target: Target | None = None,
) -> tuple[Finding, ...]:
    """Return what is worth knowing, after refusing what would be wrong.

    Raises:
        CheckFailed: With one sentence for each reason.
    """
    errors = [
        *_names(graph, samples, answers),
        *outside(graph, samples),
        *_frozen_inputs(graph, samples),
        *_frozen_outputs(graph, samples, answers),
        *_random(graph),
        *_format(graph, target or find_target()),
    ]
    if errors:
        raise CheckFailed(f"{model} cannot be published: {'; '.join(errors)}", model=model, findings=tuple(errors))
    return tuple(_notes(graph, samples, trained=trained))


def _names(graph: Graph, samples: Samples, answers: Sequence[Answer]) -> list[str]:
    pairs = (
        ("inputs", list(samples.names), list(graph.inputs)),
        ("outputs", list(answers[0].outputs), list(graph.outputs)),
    )
    return [
        f"the graph has the {kind} {found}; expected {expected}, as the model has them"
        for kind, expected, found in pairs
        if found != expected
    ]


def outside(graph: Graph, samples: Samples) -> list[str]:
    """Compare the sizes for which the graph holds with the batches that the server will form."""
    if not samples.batch or samples.batch not in graph.ranges:
        return []
    low, high = graph.ranges[samples.batch]
    errors = []
    # A lower end of 2 is what PyTorch always assumes; whether the graph holds at 1 is verified, not assumed.
    if low > 2:
        errors.append(
            f"the graph is only valid for {samples.batch} >= {low}: a Python `if` on that size was decided by the "
            "sample; replace it by torch.where or torch.cond"
        )
    if high is not None and high < samples.max_batch_size:
        errors.append(
            f"the graph is only valid for {samples.batch} <= {high}, and max_batch_size is {samples.max_batch_size}: "
            "a Python `if` or a constant limits it; correct the model, or lower max_batch_size"
        )
    return errors


def _frozen_inputs(graph: Graph, samples: Samples) -> list[str]:
    return [
        f"dimension {axis} of input {name!r} was declared dynamic; the graph fixes it at {graph.inputs[name][axis]}"
        for name, axes in samples.dynamic.items()
        for axis in axes
        if name in graph.inputs and isinstance(graph.inputs[name][axis], int)
    ]


def _frozen_outputs(graph: Graph, samples: Samples, answers: Sequence[Answer]) -> list[str]:
    """Compare each declared dimension with the sizes that PyTorch gave at different batch sizes."""
    errors = []
    for name, dims in graph.outputs.items():
        shapes = [answer.outputs[name].shape for answer in answers if name in answer.outputs]
        if any(len(shape) != len(dims) for shape in shapes):
            errors.append(f"output {name!r} has rank {len(dims)} in the graph and {len(shapes[0])} in PyTorch")
            continue
        for axis, dim in enumerate(dims):
            sizes = sorted({shape[axis] for shape in shapes})
            if isinstance(dim, int) and (sizes != [dim] or (samples.batch and axis == 0)):
                errors.append(
                    f"dimension {axis} of output {name!r} is fixed at {dim} in the graph; the model itself gives "
                    f"{' or '.join(map(str, sizes))}. A constant in view() or "
                    "reshape() is the usual reason: use x.shape[0] or -1"
                )
    return errors


def _random(graph: Graph) -> list[str]:
    return [
        f"the graph draws random numbers ({name}), so that no two answers are the same; remove what is random from "
        "forward(), or pass the noise as an input"
        for name in graph.random
    ]


def _format(graph: Graph, target: Target) -> list[str]:
    if graph.ir_version <= target.max_ir_version and graph.opset <= target.max_opset:
        return []
    return [
        f"the graph has opset {graph.opset} and IR version {graph.ir_version}; {target} reads opsets up to "
        f"{target.max_opset} and IR up to {target.max_ir_version}: choose a later target"
    ]


def _notes(graph: Graph, samples: Samples, *, trained: bool) -> list[Finding]:
    notes = [
        Finding(check="sizes", message=f"the graph is valid for {symbol} {_between(low, high)} only")
        for symbol, (low, high) in graph.ranges.items()
        if symbol != samples.batch and symbol in _symbols(samples) and (low > 2 or high is not None)
    ]
    notes += [
        Finding(check="unused input", message=f"no operator reads input {name!r}; clients must send it all the same")
        for name in graph.unused
    ]
    notes += [Finding(check="exporter", message=_exporter(graph))] if graph.exporter == "legacy" else []
    notes += [Finding(check="format", message=note) for note in graph.notes]
    notes += [
        Finding(
            check="constant output",
            message=f"output {name!r} depends on no input and is the same in every answer; leave it out, or look "
            "for what took it out of the tensors",
        )
        for name in graph.constant
    ]
    notes += [
        Finding(
            check="size by value",
            message=f"dimension {axis} of output {name!r} depends on the values of the input, not on its size; clients "
            "must take any size",
        )
        for name, dims in graph.outputs.items()
        for axis, dim in enumerate(dims)
        if isinstance(dim, str) and re.fullmatch(r"u\d+", dim)
    ]
    if trained:
        message = "the model was in train mode; it was exported in eval mode, and is as it was again"
        notes.append(Finding(check="train mode", message=message))
    return notes


def _exporter(graph: Graph) -> str:
    return (
        f"the legacy exporter (TorchScript) made the graph: {graph.reason}. It records one run, so what it saw is "
        "checked at other sizes and values"
    )


def _symbols(samples: Samples) -> set[str]:
    return {symbol for axes in samples.dynamic.values() for symbol in axes.values()}


def _between(low: int, high: int | None) -> str:
    # PyTorch says 2 where it did not look further.
    least = f">= {low}" if low > 2 else ""
    most = "" if high is None else f"<= {high}"
    return " and ".join(filter(None, (least, most)))
