"""Rules about the ONNX file's format: what the target's ONNX Runtime reads.

Source: `naiad.export._check.targets`.
"""

from collections.abc import Iterator

from naiad.export._lint.entry import Entry
from naiad.export._lint.graph import RUNTIME_DOMAINS
from naiad.export._lint.problem import Problem, advice, fails

_HARDWARE_DOMAINS = frozenset({"com.microsoft.nchwc", "com.ms.internal.nhwc"})


def opset(entry: Entry) -> Iterator[Problem]:
    """The operators are of a version that the target's ONNX Runtime has."""
    for number, graph in entry.graphs():
        if graph.opset > entry.target.max_opset:
            message = f"the graph has opset {graph.opset}; {entry.target} reads up to {entry.target.max_opset}"
            fix = f"export for the target, with opset {entry.target.default_opset}"
            yield fails("", message, fix, file=entry.relative(entry.model_path(number)))


def ir_version(entry: Entry) -> Iterator[Problem]:
    """The file format is one that the target's ONNX Runtime reads."""
    for number, graph in entry.graphs():
        if graph.ir_version > entry.target.max_ir_version:
            message = (
                f"the file has IR version {graph.ir_version}; {entry.target} reads up to {entry.target.max_ir_version}"
            )
            fix = "export for the target, or lower ir_version where the graph uses nothing newer"
            yield fails("", message, fix, file=entry.relative(entry.model_path(number)))


def domains(entry: Entry) -> Iterator[Problem]:
    """Operators of other domains need a library; those for one kind of processor are not for a file."""
    for number, graph in entry.graphs():
        file = entry.relative(entry.model_path(number))
        unknown = sorted(graph.domains - RUNTIME_DOMAINS)
        if unknown and not entry.config.model_operations.op_library_filename:
            message = f"the graph has operators of {', '.join(unknown)}, which ONNX Runtime does not have"
            fix = "name their library in model_operations.op_library_filename"
            yield fails("", message, fix, file=file)
        if graph.domains & _HARDWARE_DOMAINS:
            message = "the graph was saved after it had been optimised for one kind of processor"
            yield advice("", message, "save it with basic optimisations, and leave the rest to the server", file=file)


def cpu_operators(entry: Entry) -> Iterator[Problem]:
    """A graph may have operators that run on GPUs only."""
    for number, graph in entry.graphs():
        if graph.lacks_cpu:
            message = f"an operator cannot run on a CPU ({graph.lacks_cpu})"
            fix = "serve it on GPUs only, or replace the operator or its type"
            file = entry.relative(entry.model_path(number))
            yield Problem(effect="needs a GPU", field="", message=message, fix=fix, file=file)


RULES = (opset, ir_version, domains, cpu_operators)
