"""A package of PyTorch's ahead-of-time compiler: its names, and running it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _pt2_config import ModelConfig, TensorConfig
from _pt2_errors import LoadError, mismatch


class Package:
    """A loaded ``model.pt2``; ``inputs`` and ``outputs`` are places in its flat call by configured name."""

    def __init__(self, config: ModelConfig, path: Path) -> None:
        self._loader = _load(config, path)
        arguments, results = (json.loads(text)[1] for text in self._loader.get_call_spec())
        positional, keywords = arguments["children_spec"]
        named = [*(f"ARGS{name}" for name in _names(positional)), *(f"KWARGS{name}" for name in _names(keywords))]
        self.inputs = _places(config, "input", config.inputs, named, "INPUT__")
        self.outputs = _places(config, "output", config.outputs, [f"RESULT{n}" for n in _names(results)], "OUTPUT__")
        if len(self.inputs) != len(named):
            message = mismatch(
                f"model '{config.name}', inputs",
                expected=f"all {len(named)} of the package ({', '.join(named)})",
                found=f"{len(self.inputs)} configured",
                advice="correct config.pbtxt",
            )
            raise LoadError(message)

    def run(self, tensors: Sequence[Any]) -> list[Any]:
        """The flat outputs for flat inputs."""
        outputs: list[Any] = self._loader.run(list(tensors))
        return outputs


def package_file(version_dir: str, config: ModelConfig) -> Path:
    """The package of a version. Raises ``LoadError`` where there is none."""
    path = Path(version_dir, config.filename)
    if not path.is_file():
        found = sorted(each.name for each in Path(version_dir).iterdir()) if Path(version_dir).is_dir() else []
        message = mismatch(
            f"model '{config.name}'",
            expected=f"a package at {path}",
            found=f"only {', '.join(found)}" if found else "no file there",
            advice="export the model into this directory or correct default_model_filename",
        )
        raise LoadError(message)
    return path


def _load(config: ModelConfig, path: Path) -> Any:
    import torch

    inductor: Any = torch._inductor
    try:
        return inductor.aoti_load_package(str(path)).loader
    except Exception as exc:
        message = mismatch(
            f"model '{config.name}'",
            expected=f"a package in {path} ({path.stat().st_size} bytes) that PyTorch {torch.__version__} can load",
            found=str(exc).partition("\n")[0],
            advice="export the model again with this PyTorch, on a machine with this processor",
        )
        raise LoadError(message) from exc


def _names(spec: dict[str, Any]) -> list[str]:
    """The places of the tensors in a nest of tuples, lists and dicts: ``[0]``, ``[key][1]``, or one without a name."""
    kind = str(spec["type"] or "")
    if not kind:
        return [""]
    children = spec["children_spec"]
    keys = json.loads(spec["context"]) if kind.endswith("dict") else range(len(children))
    return [f"[{key}]{name}" for key, child in zip(keys, children, strict=True) for name in _names(child)]


def _places(
    config: ModelConfig, kind: str, tensors: Sequence[TensorConfig], named: Sequence[str], ordinal: str
) -> dict[str, int]:
    known = {name: place for place, name in enumerate(named)}
    known |= {f"{ordinal}{place}": place for place in range(len(named))}
    places: dict[str, int] = {}
    for tensor in tensors:
        if tensor.name not in known or known[tensor.name] in places.values():
            message = mismatch(
                f"model '{config.name}', {kind} '{tensor.name}'",
                expected=f"one of {', '.join(known)}, each once",
                found="it configured a second time" if tensor.name in known else "no such name in the package",
                advice="correct config.pbtxt",
            )
            raise LoadError(message)
        places[tensor.name] = known[tensor.name]
    if not places:
        raise LoadError(f"model '{config.name}': expected at least one {kind} in config.pbtxt, found none; add it")
    return places
