"""The right values inside a graph, in the capture process: PyTorch's exported program, run node by node.

The exporter names an ONNX value after the node of the program that it was made from, so both can be compared. The model
itself is run beside it, module by module: where the program differs from the model, the capture is at fault.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export.graph_signature import InputKind, OutputKind

from naiad.export._capture import dynamo
from naiad.export._verify.measures import difference, scale_of
from naiad.export.report import Tolerance

_TOTAL_BYTES = 2_000_000_000
"""Of the values that are written; what comes after is left out."""
_TOLERANCE = Tolerance(cosine=-1.0)


def export(directory: Path, job: dict[str, Any], inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Write the values of one case, and return their files by the names of the ONNX values, or of the modules."""
    if job["modules"]:
        return _modules_only(directory, job)
    program = dynamo.program(directory, job, inputs)
    onnx = dynamo.convert(program, job)
    decomposed = onnx.exported_program
    names = _names(onnx.model.graph, decomposed)
    case = {name: torch.from_numpy(array) for name, array in job["case"].items()}
    watched = {} if job["model"] is None else _run_model(job["model"], case, plain=job["plain"])
    recorder = _Recorder(decomposed.graph_module, names, directory)
    recorder.watch(watched, decomposed.graph)
    results = recorder.run(*_arguments(decomposed, list(case.values())))
    recorder.keep_outputs(_user_outputs(decomposed, results), job["outputs"])
    return {"tensors": recorder.files, "capture": recorder.departure}


def _modules_only(directory: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Write what each module gives, for a graph of the legacy exporter, whose values have the names of modules."""
    case = {name: torch.from_numpy(array) for name, array in job["case"].items()}
    outputs = _run_model(job["model"], case, plain=False, first_of_several=True)
    files: dict[str, str] = {}
    for path, value in outputs.items():
        name = path.removeprefix("model.")  # the wrapper that gives the model flat arguments
        if path not in ("", "model"):
            files[name] = f"{len(files)}.npy"
            np.save(directory / files[name], value, allow_pickle=False)
    return {"modules": files}


class _Recorder(torch.fx.Interpreter):
    """Runs a program, writes what the graph has too, and compares module outputs with the model's own."""

    def __init__(self, module: Any, names: Mapping[str, list[str]], directory: Path) -> None:
        super().__init__(module)
        self.files: dict[str, str] = {}
        self.departure: dict[str, str] | None = None
        self._names = names
        self._directory = directory
        self._written = 0
        self._ends: dict[str, tuple[str, np.ndarray[Any, Any]]] = {}

    def watch(self, outputs: Mapping[str, np.ndarray[Any, Any]], graph: Any) -> None:
        """Compare the last node of each module with what the model's module gave."""
        last = {path: node.name for node in graph.nodes for path in _modules(node)}
        self._ends = {last[path]: (path, value) for path, value in reversed(list(outputs.items())) if path in last}

    def run_node(self, n: Any) -> Any:
        """Run one node and note what it gives."""
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            value = result.detach().cpu()
            for name in self._names.get(n.name, ()):
                self._write(name, value)
            if n.name in self._ends and self.departure is None:
                self._compare(n, value)
        return result

    def keep_outputs(self, results: list[Any], names: tuple[str, ...]) -> None:
        """Write what the program returns, under the outputs' names."""
        for name, value in zip(names, results, strict=False):
            if isinstance(value, torch.Tensor):
                self._write(name, value.detach().cpu())

    def _write(self, name: str, value: torch.Tensor) -> None:
        size = value.numel() * value.element_size()
        if value.dtype == torch.bfloat16 or self._written + size > _TOTAL_BYTES:
            return
        self._written += size
        self.files[name] = f"{len(self.files)}.npy"
        np.save(self._directory / self.files[name], value.numpy(), allow_pickle=False)

    def _compare(self, node: Any, value: torch.Tensor) -> None:
        path, right = self._ends[node.name]
        ours = value.numpy() if value.dtype != torch.bfloat16 else value.float().numpy()
        if ours.shape == right.shape and difference(ours, right, _TOLERANCE, scale_of(right)).ok:
            return
        self.departure = {
            "tensor": node.name,
            "operator": str(node.target),
            "module": path,
            "stack_trace": node.meta.get("stack_trace") or "",
        }


def _names(graph: Any, program: Any) -> dict[str, list[str]]:
    """Return the ONNX values made from each node of the program, by the node's name."""
    nodes, outputs = {node.name for node in program.graph.nodes}, {id(value) for value in graph.outputs}
    values = [value for node in graph for value in node.outputs if value.name in nodes and id(value) not in outputs]
    made_from = [(value.name, value) for value in values]
    dynamo.separate_names(graph)
    found: dict[str, list[str]] = {}
    for name, value in made_from:
        found.setdefault(name, []).append(value.name)
    return found


def _arguments(program: Any, inputs: list[torch.Tensor]) -> list[Any]:
    """Return everything that the program's graph takes, in order: weights, constants and the case's inputs."""
    given, arguments = iter(inputs), []
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            constant = getattr(spec.arg, "value", None)
            is_tensor = type(spec.arg).__name__ == "TensorArgument"
            arguments.append(next(given) if is_tensor else constant)
        elif spec.target in program.state_dict:
            arguments.append(program.state_dict[spec.target])
        else:
            arguments.append(program.constants[spec.target])
    return arguments


def _user_outputs(program: Any, results: Any) -> list[Any]:
    specs = program.graph_signature.output_specs
    return [value for spec, value in zip(specs, results, strict=True) if spec.kind == OutputKind.USER_OUTPUT]


def _run_model(
    model: Any, case: dict[str, torch.Tensor], *, plain: bool, first_of_several: bool = False
) -> dict[str, np.ndarray[Any, Any]]:
    """Return what each module of the model gives, in the order in which they end; without those called twice."""
    outputs: dict[str, np.ndarray[Any, Any]] = {}
    repeated: set[str] = set()
    hooks = []

    def note(path: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            del module, args
            if path in outputs:
                repeated.add(path)
            if first_of_several and isinstance(output, tuple) and output:
                output = output[0]
            if isinstance(output, torch.Tensor):
                value = output.detach().cpu()
                outputs[path] = (value.float() if value.dtype == torch.bfloat16 else value).numpy().copy()

        return hook

    for path, module in model.named_modules():
        hooks.append(module.register_forward_hook(note(path)))
    try:
        model(**case) if plain else model(*case.values())
    finally:
        for hook in hooks:
            hook.remove()
    return {path: value for path, value in outputs.items() if path not in repeated}


def _modules(node: Any) -> list[str]:
    """Return the paths of the modules that a node belongs to."""
    if node.op != "call_function":
        return []
    return [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
