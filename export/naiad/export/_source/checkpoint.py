"""Checkpoints: a state dict from a file, and into a model; nothing that runs code unless the user trusts the file."""

import hashlib
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from naiad.export.errors import InvalidExport

_NESTED = ("state_dict", "model_state_dict", "model")
"""Where trainers keep the weights among other things."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
_NUM_NAMED = 5
_GLOBAL = re.compile(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)")


def load_checkpoint(
    model: torch.nn.Module, path: str | os.PathLike[str], *, trust_pickle: bool = False
) -> dict[str, object]:
    """Load weights into a model, all of them, and return the file's name and hash for the manifest.

    Raises:
        InvalidExport: The file cannot be read or needs trust, or its weights are not the model's.
    """
    file = Path(path)
    found = _state(file, read(file, trust_pickle=trust_pickle))
    expected = model.state_dict()
    state = _unprefixed(found, expected)
    problems = _problems(state, expected)
    if problems:
        raise InvalidExport(f"{file} does not fit {type(model).__name__}: {'; '.join(problems)}")
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as exc:
        reason = " ".join(str(exc).split())
        raise InvalidExport(f"{file} does not fit {type(model).__name__}: {reason}") from exc
    return {"file": file.name, "sha256": sha256(file)}


def read(file: Path, *, trust_pickle: bool) -> Any:
    """Return what a file has: tensors by name, or what was pickled.

    Raises:
        InvalidExport: It cannot be read, or needs trust.
    """
    try:
        if file.suffix == ".safetensors":
            return _read_safetensors(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of ends in one of the errors below
            return torch.load(file, map_location="cpu", weights_only=not trust_pickle)
    except OSError as exc:
        raise InvalidExport(f"cannot read {file}: {exc.strerror or exc}") from exc
    except pickle.UnpicklingError as exc:
        raise _refused(file, exc, trusted=trust_pickle) from exc
    except InvalidExport:
        raise
    except Exception as exc:  # whatever a file that is something else makes its reader raise
        kind = "TorchScript, which is a model of its own" if "TorchScript" in str(exc) else "not what torch.save writes"
        raise InvalidExport(
            f"{file} cannot be read as a checkpoint: it is {kind}; expected a state dict, or .safetensors"
        ) from exc


def sha256(file: Path) -> str:
    """Return the hash of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    import safetensors
    import safetensors.torch

    try:
        return dict(safetensors.torch.load_file(file))
    except safetensors.SafetensorError as exc:
        raise InvalidExport(f"{file} is not a safetensors file: {exc}") from exc


def _refused(file: Path, exc: pickle.UnpicklingError, *, trusted: bool) -> InvalidExport:
    asked = _GLOBAL.search(str(exc))
    if trusted:
        reason = (str(exc).strip().splitlines() or ["it is damaged"])[0]
        return InvalidExport(f"{file} cannot be read as a checkpoint: {reason}")
    what = asked[1] if asked else "more than tensors"
    return InvalidExport(
        f"{file} asks for {what} to be unpickled, which can run any code of the file's author; save the weights "
        "alone (torch.save(model.state_dict(), …) or safetensors), or say --trust-pickle (trust_pickle=True) if you "
        "trust the file"
    )


def _state(file: Path, found: Any) -> dict[str, torch.Tensor]:
    if isinstance(found, torch.nn.Module):
        return dict(found.state_dict())
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping | torch.nn.Module):
            return _state(file, found[key])
    if not isinstance(found, Mapping) or not any(isinstance(value, torch.Tensor) for value in found.values()):
        keys = f" with {list(found)[:_NUM_NAMED]}" if isinstance(found, Mapping) else ""
        raise InvalidExport(f"{file} has no weights by name; it holds a {type(found).__name__}{keys}")
    return {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}


def _unprefixed(state: dict[str, torch.Tensor], expected: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights without what a wrapper put before every name, where only that makes them fit."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in expected):
            return _unprefixed({name.removeprefix(prefix): value for name, value in state.items()}, expected)
    return state


def _problems(state: Mapping[str, torch.Tensor], expected: Mapping[str, Any]) -> list[str]:
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} is {list(state[name].shape)}, the model's is {list(value.shape)}"
        for name, value in expected.items()
        if name in state and isinstance(value, torch.Tensor) and value.shape != state[name].shape
    ]
    found = [("it lacks", missing), ("it has beyond the model's", unexpected), ("shapes differ:", shapes)]
    return [f"{what} {_some(names)}" for what, names in found if names]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return ", ".join(names[:_NUM_NAMED]) + more
