"""Sessions of ONNX Runtime as the server opens them."""

from pathlib import Path
from typing import Any

import onnxruntime

from naiad.export._runtime.bound import Bound, Replayed
from naiad.export._runtime.place import CPU, CPU_PROVIDER, Place
from naiad.export.errors import InvalidExport

_ERROR_SEVERITY = 3


_LEVELS = {
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}


def session(
    path: Path | bytes,
    *,
    num_threads: int = 0,
    level: int = 0,
    folder: Path | None = None,
    dump: Path | None = None,
    place: Place = CPU,
) -> Any:
    """Return an ONNX Runtime session as Triton opens it; one with bound tensors where the place has them.

    Args:
        path: The file, or a serialised graph, whose external weights lie in `folder`.
        num_threads: Within an operator; 0 for ONNX Runtime's default.
        level: `optimization.graph.level` of the configuration: -1 basic, 1 extended, 2 none, anything else all.
        folder: Of the external weights of a serialised graph.
        dump: Where to write the graph as it was optimised.
        place: Where it runs.

    Raises:
        InvalidExport: ONNX Runtime dropped the first provider of the place.
    """
    options = _options(num_threads, level)
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    if dump is not None:
        options.optimized_model_filepath = str(dump)
    if not place.memory:
        graph = path if isinstance(path, bytes) else str(path)
        return onnxruntime.InferenceSession(graph, options, providers=[CPU_PROVIDER])
    return Bound(_opened(path, options, place), place.memory)


def replayed(path: Path, *, level: int, place: Place) -> Replayed:
    """Return a session that keeps its tensors in place, and replays CUDA graphs where the place has them enabled.

    Raises:
        InvalidExport: As `session`.
    """
    return Replayed(_opened(path, _options(1, level), place), place.memory)


def profiled(path: Path, prefix: Path, *, level: int, place: Place) -> Any:
    """Return a plain session that notes for each node which provider ran it, in a file that begins with `prefix`.

    Raises:
        InvalidExport: As `session`.
    """
    options = _options(1, level)
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix)
    return _opened(path, options, place)


def optimization(level: int) -> Any:
    """Return ONNX Runtime's level for an `optimization.graph.level`."""
    return _LEVELS.get(level, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)


def _options(num_threads: int, level: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERROR_SEVERITY
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # be kind to a busy machine
    options.graph_optimization_level = optimization(level)
    return options


def _opened(path: Path | bytes, options: Any, place: Place) -> Any:
    providers = place.options(None if isinstance(path, bytes) else path)
    # Without the fallback a provider that cannot start is an error, not a session on the CPU.
    graph = path if isinstance(path, bytes) else str(path)
    opened = onnxruntime.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    wanted, found = providers[0][0], opened.get_providers()
    if wanted not in found:
        raise InvalidExport(
            f"ONNX Runtime could not start its {wanted} and would run on {', '.join(found)} instead; its own messages "
            "above say which library is missing, or export with --device cpu"
        )
    return opened
