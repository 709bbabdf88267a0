"""The TorchScript exporter, in the capture process: for what the newer one cannot read.

It records one run of the model, so a Python `if` or a number taken out of a tensor would silently become what they were
in that run. It warns of these; here each such warning in the model's own code is an error.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.jit._trace import TracerWarning

from naiad.export._capture import graph

MAX_OPSET = 20
"""The newest that this exporter writes."""


class Baked(Exception):
    """The recording would fix something that depends on the input; `source` is the line."""

    def __init__(self, what: str, source: str) -> None:
        super().__init__(what)
        self.source = source


def export(directory: Path, job: dict[str, Any], inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Write the graph of a job; this exporter knows no ranges of sizes."""
    path = Path(job["target"]) / "model.onnx"
    load: Any = torch.jit.load
    model = load(directory / job["script"]) if job["script"] else job["model"]
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", TracerWarning)
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            str(path),
            dynamo=False,
            input_names=list(inputs),
            output_names=list(job["outputs"]),
            dynamic_axes=job["dynamic"] | job["dynamic_outputs"],
            opset_version=min(job["opset"], MAX_OPSET),
        )
    _refuse_baked(noted)
    _restore_inputs(path, job, inputs)
    _declare_sizes(path)
    return {"ranges": {}}


def _refuse_baked(noted: list[warnings.WarningMessage]) -> None:
    """Raise the first warning about the model's own code; PyTorch's layers warn of what they handle."""
    library = str(Path(torch.__file__).parent)
    for warning in noted:
        if issubclass(warning.category, TracerWarning) and not warning.filename.startswith(library):
            what = str(warning.message).partition(" might cause")[0].partition(". ")[0]
            raise Baked(what[:1].lower() + what[1:], f"{warning.filename}:{warning.lineno}")


def _restore_inputs(path: Path, job: dict[str, Any], inputs: dict[str, torch.Tensor]) -> None:
    """Declare the inputs that no operator reads again: this exporter drops them."""
    model = onnx.load(str(path), load_external_data=False)
    found = {value.name: value for value in model.graph.input}
    if list(found) == list(inputs):
        return
    del model.graph.input[:]
    for name, tensor in inputs.items():
        axes = job["dynamic"].get(name, {})
        shape = [axes.get(axis, size) for axis, size in enumerate(tensor.shape)]
        element = onnx.helper.np_dtype_to_tensor_dtype(tensor.numpy().dtype)
        model.graph.input.append(found.pop(name, None) or onnx.helper.make_tensor_value_info(name, element, shape))
    model.graph.input.extend(found.values())
    buffer = io.BytesIO()
    onnx.save(model, buffer)
    path.write_bytes(buffer.getvalue())


def _declare_sizes(path: Path) -> None:
    """Declare the sizes of outputs that follow from the operators; this exporter leaves some of them open."""
    model = onnx.load(str(path), load_external_data=False)
    inferred = {value.name: value for value in graph.inferred(model).output}
    for value in model.graph.output:
        declared, known = value.type.tensor_type.shape.dim, inferred[value.name].type.tensor_type.shape.dim
        for before, found in zip(declared, known, strict=True):
            if found.WhichOneof("value") == "dim_value":
                before.dim_value = found.dim_value
    buffer = io.BytesIO()
    onnx.save(model, buffer)
    path.write_bytes(buffer.getvalue())
