"""Sessions of ONNX Runtime as the server opens them."""

from pathlib import Path
from typing import Any

import onnxruntime

_ERROR_SEVERITY = 3


def session(path: Path, *, num_threads: int = 0) -> Any:
    """Return an ONNX Runtime session on the CPU at the optimisation level that Triton uses; 0 threads: its default."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERROR_SEVERITY
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # be kind to a busy machine
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
