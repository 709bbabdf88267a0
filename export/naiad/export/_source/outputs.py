"""The outputs of a PyTorch model as arrays by name."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from naiad.export._source.datatypes import TORCH
from naiad.export._source.samples import Inputs
from naiad.export.errors import InvalidExport


def named(outputs: Any, names: Sequence[str] | None, inputs: Sequence[str]) -> Inputs:
    """Flatten what a model returned; a name that an input has too gets `_out`, since ONNX must tell them apart.

    Raises:
        InvalidExport: An output is not a tensor that Triton knows, or `names` does not fit the outputs.
    """
    tensors = [(path, leaf) for path, leaf in pytree.tree_flatten_with_path(outputs)[0] if leaf is not None]
    found = [_name(path, index, len(tensors)) for index, (path, _) in enumerate(tensors)]
    found = [f"{name}_out" if name in inputs else name for name in found]
    chosen = list(names) if names is not None else found
    if len(chosen) != len(tensors):
        raise InvalidExport(
            f"the model has {len(tensors)} outputs ({', '.join(found)}); {len(chosen)} names were given"
        )
    if set(chosen) & set(inputs):
        raise InvalidExport(f"an output cannot have the name of an input; found {sorted(set(chosen) & set(inputs))}")
    if len(set(chosen)) != len(chosen) or not chosen:
        raise InvalidExport(f"the outputs need distinct names; found {chosen}")
    return {name: _array(name, leaf) for name, (_, leaf) in zip(chosen, tensors, strict=True)}


def words(path: Sequence[Any]) -> list[str]:
    """Return the parts of a place in a nest of lists and dicts, as they can stand in a name."""
    parts = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path]
    return [re.sub(r"\W+", "_", part) for part in parts if part]


def check_datatype(kind: str, name: str, tensor: torch.Tensor) -> None:
    """Refuse a type that cannot stand at the boundary of a served model.

    Raises:
        InvalidExport: With what to do instead.
    """
    if tensor.dtype in TORCH:
        return
    if tensor.dtype is torch.bfloat16:
        raise InvalidExport(
            f"{kind} {name!r} is torch.bfloat16; expected one of float16, float32 or float64 at the boundary: numpy "
            "has no bfloat16, nor has ONNX Runtime many kernels for it. Call model.float(), which loses nothing, and "
            "give float32 samples"
        )
    known = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in TORCH))
    raise InvalidExport(f"{kind} {name!r} is {tensor.dtype}; expected one of {known}: cast it in the model's forward()")


def _name(path: Sequence[Any], index: int, count: int) -> str:
    """Return the name of an output by its place: a dict's key, a named tuple's field, else its number."""
    parts = words(path)
    if parts and not parts[0].isdigit():
        return "_".join(parts)
    return "output" if count == 1 else f"output_{index}"


def _array(name: str, leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        raise InvalidExport(f"output {name!r} is {type(leaf).__name__}; expected a tensor, which is all Triton returns")
    check_datatype("output", name, leaf)
    return leaf.detach().cpu().contiguous().numpy()
