"""What writes entries of a model repository: each function gives one that does, for `lint_entries`."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from repository_helpers import affine, config_text, graph, node, write_model

Write = Callable[[Path, str], object]
"""Writes an entry of that name, and whatever else it needs, into a repository."""

ROW = {"x": "FP32[3]"}
WHOLE: Mapping[str, Any] = {"max_batch_size": 4, "inputs": ROW, "outputs": {"y": "FP32[3]"}}
"""The configuration of `affine()`."""
SINGLE: Mapping[str, Any] = {"inputs": {"x": "FP32[-1,3]"}, "outputs": {"y": "FP32[-1,3]"}}
"""The same without a batch dimension of Triton's own."""
PART = "part"
"""The model that ensembles are made of."""
PYTHON_MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([]) for _ in requests]
"""


def entry(model: onnx.ModelProto | bytes | None = None, **fields: Any) -> Write:
    """An ONNX model; by default the plainest one, with its configuration changed by `fields`."""
    return lambda repository, name: write_model(
        repository, name, affine() if model is None else model, **{**WHOLE, **fields}
    )


def text(old: str, new: str, **fields: Any) -> Write:
    """An entry with a piece of its `config.pbtxt` replaced; an empty `old` adds a line."""

    def write(repository: Path, name: str) -> None:
        path = write_model(repository, name, affine(), **{**WHOLE, **fields}) / "config.pbtxt"
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new, 1) if old else f"{before}\n{new}\n")

    return write


def files(change: Callable[[Path], object], model: onnx.ModelProto | None = None, **fields: Any) -> Write:
    """An entry whose directory is changed after it was written."""

    def write(repository: Path, name: str) -> None:
        options = {**WHOLE, **fields}
        change(write_model(repository, name, model or affine(), **options))

    return write


def python(source: str = PYTHON_MODEL, **fields: Any) -> Write:
    """A model of the Python backend."""

    def write(repository: Path, name: str) -> None:
        directory = repository / name
        (directory / "1").mkdir(parents=True)
        (directory / "1" / "model.py").write_text(source)
        (directory / "config.pbtxt").write_text(config_text(name, **{**WHOLE, "backend": "python", **fields}))

    return write


def package(content: bytes | None = None, **fields: Any) -> Write:
    """A package of PyTorch's ahead-of-time compiler; by default an archive with nothing in it."""

    def write(repository: Path, name: str) -> None:
        directory = repository / name
        (directory / "1").mkdir(parents=True)
        with zipfile.ZipFile(directory / "1" / "model.pt2", "w") as archive:
            archive.writestr("version", "1")
        if content is not None:
            (directory / "1" / "model.pt2").write_bytes(content)
        (directory / "config.pbtxt").write_text(config_text(name, **fields))

    return write


def ensemble(steps: Sequence[Mapping[str, Any]], *, parts: Mapping[str, Write] | None = None, **fields: Any) -> Write:
    """An ensemble of `part`, which all share, or of other `parts`; `{name}` in a step is the ensemble's own name."""

    def write(repository: Path, name: str) -> None:
        for part, write_part in (parts or {PART: entry()}).items():
            if not (repository / part).exists():
                write_part(repository, part)
        named = [{**step, "model_name": step.get("model_name", "").format(name=name)} for step in steps]
        options = {
            **WHOLE,
            "backend": "",
            "platform": "ensemble",
            "instance_group": [],
            "ensemble_scheduling": {"step": named},
            **fields,
        }
        directory = repository / name
        (directory / "1").mkdir(parents=True)
        (directory / "config.pbtxt").write_text(config_text(name, **options))

    return write


def step(model: str, source: str = "x", result: str = "y", **fields: Any) -> dict[str, Any]:
    """A step that runs a copy of `affine()`."""
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": {"x": source},
        "output_map": {"y": result},
        **fields,
    }


def remove(*names: str) -> Callable[[Path], None]:
    """Remove files or directories of an entry."""

    def change(directory: Path) -> None:
        for name in names:
            path = directory / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def rename(before: str, after: str) -> Callable[[Path], object]:
    """Rename a file or directory of an entry."""
    return lambda directory: (directory / before).rename(directory / after)


def copy_version(*names: str) -> Callable[[Path], None]:
    """Copy version 1 to other names."""

    def change(directory: Path) -> None:
        for name in names:
            shutil.copytree(directory / "1", directory / name)

    return change


def put(name: str, content: bytes) -> Callable[[Path], object]:
    """Write a file of an entry."""

    def change(directory: Path) -> None:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)

    return change


def stamped(*, opset: int | None = None, ir_version: int | None = None) -> onnx.ModelProto:
    """The plainest model, said to be of another opset or format."""
    model = affine()
    if opset is not None:
        model.opset_import[0].version = opset
    if ir_version is not None:
        model.ir_version = ir_version
    return model


def scalar(shape: str = "") -> onnx.ModelProto:
    """`y = 2 * x` on a scalar, or on one number a row."""
    tensor = f"FP32[{shape}]"
    return graph([node("Mul", "x", "two", to="y")], {"x": tensor}, {"y": tensor}, constants={"two": 2.0})


def two_inputs(kind: str = "FP32") -> onnx.ModelProto:
    """`y = a + b`."""
    shape = f"{kind}[batch,3]"
    return graph([node("Add", "a", "b", to="y")], {"a": shape, "b": shape}, {"y": shape})


def with_default() -> onnx.ModelProto:
    """`y = scale * x`, where a request may replace the scale."""
    scale = np.array([2.0], np.float32)
    return graph([node("Mul", "x", "scale", to="y")], {"x": "FP32[n]"}, {"y": "FP32[n]"}, defaults={"scale": scale})


def sequence(flag: str = "FP32[batch,1]") -> onnx.ModelProto:
    """A model that takes a flag of a sequence beside its input."""
    nodes = [node("Identity", "x", to="y"), node("Identity", "start", to="seen")]
    return graph(nodes, {"x": "FP32[batch,3]", "start": flag}, {"y": "FP32[batch,3]", "seen": flag})


def start(**control: Any) -> dict[str, Any]:
    """Sequence batching with one control, START."""
    return {"control_input": [{"name": "start", "control": [{"kind": "CONTROL_SEQUENCE_START", **control}]}]}


def warm(**fields: Any) -> dict[str, Any]:
    """A warm-up of `affine()`; `data` is its input."""
    data = {"data_type": "TYPE_FP32", "dims": [3], "zero_data": True, **fields.pop("data", {})}
    return {"model_warmup": [{"name": "first", "batch_size": 1, "inputs": {"x": data}, **fields}]}


def gpu(name: str, **parameters: str) -> dict[str, Any]:
    """An accelerator for GPUs."""
    each = {"name": name, **({"parameters": parameters} if parameters else {})}
    return {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [each]}}}


def instances(**group: Any) -> dict[str, Any]:
    """One instance group."""
    return {"instance_group": [group]}


def ragged() -> onnx.ModelProto:
    """A model of flat tensors, with the ends of the requests beside."""
    nodes = [node("Mul", "x", "two", to="y"), node("Unsqueeze", "ends", "axis", to="end")]
    ins, outs = {"x": "FP32[-1]", "ends": "FP32[-1]"}, {"y": "FP32[-1]", "end": "FP32[-1,1]"}
    return graph(nodes, ins, outs, constants={"two": 2.0, "axis": [1]})
