"""The capture process: `python -m naiad.export._capture.worker DIRECTORY` exports the job in that directory.

Its answer is one JSON document on standard output; whatever PyTorch prints goes to standard error.
"""

import ctypes
import json
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_SINGLE_FILE_BYTES = 1_500_000_000
_UNBOUNDED = 1 << 40
_FOREIGN = {"torch", "onnxscript", "onnx_ir", "sympy", "<frozen runpy>"}
_FIXED = re.compile(r"You marked L\['(\w+)'\]\.size\(\)\[(\d+)\] as dynamic but your code specialized it .*\((\d+)\)")


def main() -> None:
    """Export the job in the directory named by the first argument."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    answer_to = os.dup(1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        answer = _export(Path(sys.argv[1]))
    except Exception as exc:  # noqa: BLE001 - every failure is reported to the parent, which knows what to say
        answer = {"error": _explain(exc)}
    os.write(answer_to, json.dumps(answer).encode())


def _export(directory: Path) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)  # nothing is computed here, and idle threads would spin

    # The file is the parent's own, in its private stage; it holds code by design.
    job = torch.load(directory / "job.pt", map_location="cpu", weights_only=False)
    (directory / "job.pt").unlink()
    inputs, dynamic = {name: torch.from_numpy(array) for name, array in job["inputs"].items()}, job["dynamic"]
    with torch.no_grad():
        program = _program(directory, job, inputs)
        onnx = _convert(program, job)
    names = _symbol_names(program, list(inputs), dynamic)
    _rename_dimensions(onnx.model, names)
    _save(onnx, Path(job["target"]) / "model.onnx")
    return _describe(onnx, program, names)


def _program(directory: Path, job: dict[str, Any], inputs: dict[str, Any]) -> Any:
    """Return the exported program: the user's own, or one of the model with its inputs by name or in order."""
    import torch

    if job["model"] is None:
        return torch.export.load(directory / "program.pt2")
    shapes = {name: dict.fromkeys(job["dynamic"].get(name, {}), torch.export.Dim.DYNAMIC) for name in inputs}
    args, dynamic = ((), shapes) if job["plain"] else (tuple(inputs.values()), (tuple(shapes.values()),))
    kwargs = inputs if job["plain"] else {}
    return torch.export.export(job["model"], args, kwargs=kwargs, dynamic_shapes=dynamic, strict=False)


def _convert(program: Any, job: dict[str, Any]) -> Any:
    import torch

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
        operator = _operator(_texts(exc))
        raise _NotConverted(operator, _line_of(program, operator)) from exc


class _NotConverted(Exception):
    """ONNX lacks an operator, or the conversion failed for another reason; the cause is chained."""

    def __init__(self, operator: str | None, source: str | None) -> None:
        super().__init__("the conversion to ONNX failed")
        self.operator = operator
        self.source = source


def _line_of(program: Any, operator: str | None) -> str | None:
    """Return the line of the model that called an operator, or one that was decomposed into it."""
    nodes = [node for node in program.graph.nodes if operator and str(node.target).startswith(operator)]
    lines = re.findall(r'File "([^"]+)", line (\d+)', nodes[0].meta.get("stack_trace") or "") if nodes else []
    return ":".join(lines[-1]) if lines else None


def _symbol_names(program: Any, inputs: list[str], dynamic: dict[str, dict[int, str]]) -> dict[str, str]:
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


def _values(graph: Any) -> Any:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _save(onnx: Any, path: Path) -> None:
    size = sum(value.const_value.nbytes for value in onnx.model.graph.initializers.values() if value.const_value)
    onnx.save(str(path), external_data=size > _SINGLE_FILE_BYTES)


def _describe(onnx: Any, program: Any, names: dict[str, str]) -> dict[str, Any]:
    import onnx as onnx_package
    import onnxscript
    import torch

    graph = onnx.model.graph
    outputs = {id(value) for value in graph.outputs}
    return {
        "inputs": {value.name: _dims(value) for value in graph.inputs},
        "outputs": {value.name: _dims(value) for value in graph.outputs},
        "ranges": {names.get(str(symbol), str(symbol)): _range(r) for symbol, r in program.range_constraints.items()},
        "unused": [value.name for value in graph.inputs if not value.uses() and id(value) not in outputs],
        "opset": onnx.model.opset_imports[""],
        "ir_version": onnx.model.ir_version,
        "exporter": "dynamo",
        "versions": {
            "torch": torch.__version__,
            "onnx": onnx_package.__version__,
            "onnxscript": onnxscript.__version__,
        },
    }


def _dims(value: Any) -> list[int | str]:
    return [dim if isinstance(dim, int) else str(dim.value) for dim in value.shape.dims] if value.shape else []


def _range(value: Any) -> tuple[int, int | None]:
    lower, upper = (int(end) if str(end).lstrip("-").isdigit() else None for end in (value.lower, value.upper))
    return lower or 0, upper if upper is not None and upper < _UNBOUNDED else None


def _explain(exc: BaseException) -> dict[str, Any]:
    chain, texts = _chain(exc), _texts(exc)
    converted = next((item for item in chain if isinstance(item, _NotConverted)), None)
    operator = converted.operator if converted else None
    return {
        "errno": next((item.errno for item in chain if isinstance(item, OSError) and item.errno), None),
        "message": _message(texts, operator),
        "operator": operator,
        "source": converted.source if converted else _source(exc),
    }


def _chain(exc: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = exc
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _texts(exc: BaseException) -> list[str]:
    return [str(item) for item in _chain(exc) if not isinstance(item, _NotConverted)]


def _operator(texts: list[str]) -> str | None:
    found = (re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", text) for text in texts)
    return next((match.group(1) for match in found if match), None)


def _message(texts: list[str], operator: str | None) -> str:
    if operator:
        return f"ONNX has no operator for {operator}; compute it outside the model, or from other operations"
    for text in texts:
        fixed = _FIXED.search(text)
        if fixed:
            return (
                f"dimension {fixed[2]} of input {fixed[1]!r} was declared dynamic and the model fixes it at "
                f"{fixed[3]}; look for a constant in view(), reshape() or expand(), and for a Python if or loop "
                "over it, or leave it out of dynamic"
            )
    lines = [line.strip() for line in texts[0].splitlines() if line.strip()]
    return re.sub(r"\x1b\[\d*m", "", lines[0]) if lines else "no reason given"


def _source(exc: BaseException) -> str | None:
    """Return the innermost line of code outside PyTorch and Naiad that the failure passed through."""
    for frame in reversed(traceback.extract_tb(exc.__traceback__)):
        parts = Path(frame.filename).parts
        if not _FOREIGN.intersection(parts) and parts[-3:-1] != ("naiad", "export") and parts[0] != "<":
            return f"{frame.filename}:{frame.lineno}"
    return None


if __name__ == "__main__":
    main()
