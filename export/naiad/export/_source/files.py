"""Files that are models: `.onnx`, `.pt2`, and TorchScript or a pickled module in `.pt` or `.pth`."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from naiad.export._source.checkpoint import read
from naiad.export._source.graph import GraphSubject
from naiad.export._source.module import ModuleSubject
from naiad.export._source.program import load
from naiad.export._source.subject import Subject
from naiad.export.errors import InvalidExport


def open_file(path: Path, outputs: Sequence[str] | None, *, trust_pickle: bool) -> Subject:
    """Return the subject that a file holds.

    Raises:
        InvalidExport: It cannot be read, is no model, or would run code and is not trusted.
    """
    if path.suffix == ".onnx":
        return GraphSubject(path, outputs)
    if path.suffix == ".pt2":
        return load(path, outputs, trust_pickle=trust_pickle)
    if path.suffix in (".pt", ".pth", ".ts"):
        return ModuleSubject(_module(path, trust_pickle=trust_pickle), outputs, file=path)
    raise InvalidExport(f"{path} is no model file; expected .onnx, .pt2, or .pt with TorchScript or a pickled module")


def _module(path: Path, *, trust_pickle: bool) -> torch.nn.Module:
    script = _script(path)
    if script is not None:
        return script
    model = read(path, trust_pickle=trust_pickle)
    if not isinstance(model, torch.nn.Module):
        raise InvalidExport(
            f"{path} holds weights and no model ({type(model).__name__}); write a recipe whose build() returns the "
            f"module, and give the file as its --checkpoint"
        )
    return model


def _script(path: Path) -> torch.nn.Module | None:
    load_script = vars(torch.jit)["load"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
            module: torch.nn.Module = load_script(str(path), map_location="cpu")
    except (RuntimeError, ValueError):  # another kind of archive, or none, or no file: the next reader says which
        return None
    return module
