"""A package of PyTorch's ahead-of-time compiler: its names, and running it."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from _pt2_config import ModelConfig, TensorConfig
from _pt2_errors import LoadError, mismatch


class Package:
    """A loaded ``model.pt2``; ``inputs`` and ``outputs`` are places in its flat call by configured name.

    ``gpu`` is the number of the GPU that it runs on; None for the processor.
    """

    lends: Final = False

    def __init__(self, config: ModelConfig, path: Path, *, gpu: int | None = None) -> None:
        _check_device(config, path, gpu)
        self._loader = _load(config, path, gpu)
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


def _check_device(config: ModelConfig, path: Path, gpu: int | None) -> None:
    """Compare what the package says of itself with where it is to run: its loader would crash, or fail at a request."""
    about = _metadata(path)
    made_for, wanted = about.get("AOTI_DEVICE_KEY", ""), "cpu" if gpu is None else "cuda"
    if made_for not in ("", wanted):
        advice = f"export it again with --accelerator aoti --device {wanted}, or set instance_group to " + (
            "KIND_GPU" if gpu is None else "KIND_CPU"
        )
        subject, expected = f"model '{config.name}', its package", f"one compiled for {wanted}, where this instance is"
        raise LoadError(mismatch(subject, expected=expected, found=f"one compiled for {made_for}", advice=advice))
    if gpu is not None:
        _check_capability(config, about.get("AOTI_COMPUTE_CAPABILITY", ""), gpu)


def _check_capability(config: ModelConfig, made_for: str, gpu: int) -> None:
    import torch

    here = "".join(map(str, torch.cuda.get_device_capability(gpu)))
    if made_for not in ("", here):
        name = torch.cuda.get_device_name(gpu)
        message = mismatch(
            f"model '{config.name}', its package",
            expected=f"machine code for compute capability {here}, that of GPU {gpu} ({name})",
            found=f"machine code for compute capability {made_for}",
            advice="export it again on a machine with this GPU, with --accelerator aoti --device cuda",
        )
        raise LoadError(message)


def _metadata(path: Path) -> dict[str, str]:
    """What the compiler noted in the archive; nothing where it noted nothing, or where the file is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("_metadata.json"))
            found: dict[str, str] = json.loads(archive.read(name))
            return found
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile):
        return {}


def _load(config: ModelConfig, path: Path, gpu: int | None) -> Any:
    import torch

    inductor: Any = torch._inductor
    # One request at a time runs here, on one stream, so a GPU's runs need not wait for each other on the host; and
    # only without that can they be recorded.
    where = {} if gpu is None else {"run_single_threaded": True, "device_index": gpu}
    try:
        return inductor.aoti_load_package(str(path), **where).loader
    except Exception as exc:
        message = mismatch(
            f"model '{config.name}'",
            expected=f"a package in {path} ({path.stat().st_size} bytes) that PyTorch {torch.__version__} can load",
            found=str(exc).partition("\n")[0],
            advice="export the model again with this PyTorch, on a machine with this processor"
            if gpu is None
            else "look for CUDA's own words in the log above this, as when the GPU's memory is full; where there are "
            "none, export the model again with this PyTorch, on a machine with this GPU",
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
