"""The exporter of PyTorch's graphs, in the capture process: torch.export, then its translation to ONNX."""

import itertools
import re
from pathlib import Path
from typing import Any

import onnxscript
import torch

from naiad.export._capture.explain import NotConverted, operator_without_onnx, texts

_SINGLE_FILE_BYTES = 1_500_000_000
_UNBOUNDED = 1 << 40


def export(directory: Path, job: dict[str, Any], inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Write the graph of a job, and return the sizes it is valid for."""
    exported = program(directory, job, inputs)
    onnx = convert(exported, job)
    names = symbol_names(exported, list(inputs), job["dynamic"])
    _rename_dimensions(onnx.model, names)
    separate_names(onnx.model.graph)
    _save(onnx, Path(job["target"]) / "model.onnx")
    return {"ranges": ranges(exported, names), "versions": {"onnxscript": onnxscript.__version__}}


def program(directory: Path, job: dict[str, Any], inputs: dict[str, torch.Tensor]) -> Any:
    """Return the exported program: the user's own, or one of the model with its inputs by name or in order."""
    if job["program"]:
        return torch.export.load(directory / job["program"])
    shapes = {name: dict.fromkeys(job["dynamic"].get(name, {}), torch.export.Dim.DYNAMIC) for name in inputs}
    dynamic: Any = shapes if job["plain"] else (tuple(shapes.values()),)
    args = () if job["plain"] else tuple(inputs.values())
    kwargs = inputs if job["plain"] else {}
    return torch.export.export(job["model"], args, kwargs=kwargs, dynamic_shapes=dynamic, strict=False)


def convert(program: Any, job: dict[str, Any]) -> Any:
    """Translate an exported program to ONNX."""
    try:
        return torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            input_names=list(job["inputs"]),
            output_names=list(job["outputs"]),
            opset_version=job["opset"],
        )
    except Exception as exc:
        operator = operator_without_onnx(texts(exc))
        raise NotConverted(operator, _line_of(program, operator)) from exc


def _line_of(program: Any, operator: str | None) -> str | None:
    """Return the line of the model that called an operator, or one that was decomposed into it."""
    nodes = [node for node in program.graph.nodes if operator and str(node.target).startswith(operator)]
    lines = re.findall(r'File "([^"]+)", line (\d+)', nodes[0].meta.get("stack_trace") or "") if nodes else []
    return ":".join(lines[-1]) if lines else None


def ranges(program: Any, names: dict[str, str]) -> dict[str, tuple[int, int | None]]:
    """Return the sizes that a program is valid for, by dynamic dimension; `names` are those of its symbols."""
    return {names.get(str(symbol), str(symbol)): _range(r) for symbol, r in program.range_constraints.items()}


def symbol_names(program: Any, inputs: list[str], dynamic: dict[str, dict[int, str]]) -> dict[str, str]:
    """Return the user's name for each symbol of PyTorch: `{"s77": "batch"}`."""
    nodes = {node.name: node for node in program.graph.nodes}
    arguments = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
    names = {}
    for name, argument in zip(inputs, arguments, strict=True):
        for axis, symbol in dynamic.get(name, {}).items():
            names[str(nodes[argument].meta["val"].shape[axis])] = symbol
    return names


def _rename_dimensions(model: Any, names: dict[str, str]) -> None:
    if not names:
        return
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    for value in _values(model.graph):
        if value.shape is not None:
            for axis, dim in enumerate(value.shape.dims):
                text = None if isinstance(dim, int) else dim.value
                if text:
                    value.shape[axis] = pattern.sub(lambda match: names[match.group()], text)


def separate_names(graph: Any) -> None:
    """Rename what has an input's or output's name by accident: an output `embedding` beside the operator's result."""
    outer = {id(value) for value in (*graph.inputs, *graph.outputs)}
    taken = {value.name for value in (*graph.inputs, *graph.outputs)}
    inner = [value for node in graph for value in node.outputs] + list(graph.initializers.values())
    used = taken | {value.name for value in inner}
    for value in inner:
        if value.name in taken and id(value) not in outer:
            value.name = next(name for number in itertools.count() if (name := f"{value.name}_{number}") not in used)
            used.add(value.name)


def _values(graph: Any) -> Any:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _save(onnx: Any, path: Path) -> None:
    size = sum(value.const_value.nbytes for value in onnx.model.graph.initializers.values() if value.const_value)
    onnx.save(str(path), external_data=size > _SINGLE_FILE_BYTES)


def _range(value: Any) -> tuple[int, int | None]:
    lower, upper = (int(end) if str(end).lstrip("-").isdigit() else None for end in (value.lower, value.upper))
    return lower or 0, upper if upper is not None and upper < _UNBOUNDED else None
