"""Sessions of ONNX Runtime as the server opens them."""

from pathlib import Path
from typing import Any

import onnxruntime

_ERROR_SEVERITY = 3


_LEVELS = {
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}


def session(
    path: Path | bytes, *, num_threads: int = 0, level: int = 0, folder: Path | None = None, dump: Path | None = None
) -> Any:
    """Return an ONNX Runtime session on the CPU as Triton opens it.

    Args:
        path: The file, or a serialised graph, whose external weights lie in `folder`.
        num_threads: Within an operator; 0 for ONNX Runtime's default.
        level: `optimization.graph.level` of the configuration: -1 basic, 1 extended, 2 none, anything else all.
        folder: Of the external weights of a serialised graph.
        dump: Where to write the graph as it was optimised.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERROR_SEVERITY
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # be kind to a busy machine
    options.graph_optimization_level = optimization(level)
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    if dump is not None:
        options.optimized_model_filepath = str(dump)
    graph = path if isinstance(path, bytes) else str(path)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def optimization(level: int) -> Any:
    """Return ONNX Runtime's level for an `optimization.graph.level`."""
    return _LEVELS.get(level, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
